"""The unfolded rule list against the literal walk: every dump of the data set, and generated chain programs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshsieve import packets
from meshsieve.importers import chains
from meshsieve.importers.iptables import IptablesImporter
from meshsieve.importers.iptables.syntax import Dump, parse
from meshsieve.importers.sources import read_source
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, Layer, SourceFile
from tests.reference.iptables_packets import PacketMaker, chain_and_number, columns
from tests.reference.iptables_walk import Packet, Walk

SHARED = Path(os.environ.get("MESHSIEVE_SHARED", Path(__file__).parents[2] / "../shared/data"))
DUMPS = sorted(SHARED.glob("policies/iptables/*.rules")) + sorted(SHARED.glob("policies/aerleon-iptables/*.txt"))
MODES = ("strict", "upper", "lower")
VERDICTS = {Action.ALLOW: "ACCEPT", Action.DROP: "DROP", Action.REJECT: "REJECT", Action.UNDECIDED: "UNDECIDED"}


def load(source: SourceFile, mode: str, chain: str, unseen: tuple[str, ...] = ()) -> tuple[Dump, Layer]:
    options = ImportOptions(strict=False, mode=mode, chain=chain, unseen=unseen)
    return parse(source), IptablesImporter().load([source], options).layers[0]


def check(
    dump: Dump, layer: Layer, mode: str, chain: str, some: list[Packet], family: int, *, may_stop: bool = False
) -> None:
    """Same verdict and same deciding rule for every packet; with ``may_stop`` it may be undecided earlier."""
    rules = layer.points[0].rules
    results = packets.compile(rules).classify_batch(columns(some, rules.names, family))
    walk = Walk(dump.tables["filter"], mode)
    for packet, result in zip(some, results, strict=True):
        rule = rules[int(result if result >= 0 else -result - 2)]
        got = (VERDICTS[rule.action] if result >= 0 else "UNDECIDED", *chain_and_number(rule.source.obj))
        if not (may_stop and got[0] == "UNDECIDED"):
            assert got == walk.verdict(packet, chain), f"{mode}: {packet}"


@pytest.mark.skipif(not DUMPS, reason="the shared data set is not here")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("path", DUMPS, ids=lambda p: p.name)
def test_dumps_unfold_to_the_walk(path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MAX_TERMS", 1000)  # so that no skip ends a strict walk early
    if path.name.endswith("testVerbatimTerm.txt"):
        pytest.skip("holds a line that is no iptables")
    source = read_source(path)
    for chain in ("FORWARD", "INPUT"):
        for unseen in ((), ("iif", "oif")):
            dump, layer = load(source, mode, chain, unseen)
            family = next(iter(layer.families))
            maker = PacketMaker(dump.tables["filter"], [layer.points[0].rules], family, seed=7)
            some = [maker.packet(without=unseen, may_lack=mode == "strict") for _ in range(800)]
            if chain == "INPUT":  # no outgoing interface: its name is empty
                some = [{**p, "oif": ""} for p in some]
            check(dump, layer, mode, chain, some, family)


@pytest.mark.skipif(not DUMPS, reason="the shared data set is not here")
@pytest.mark.parametrize("path", DUMPS, ids=lambda p: p.name)
def test_bounds_bracket_every_truth_of_the_unknown(path: Path) -> None:
    """Whatever the unknown matches are, the verdict lies between lower and upper."""
    if path.name.endswith("testVerbatimTerm.txt"):
        pytest.skip("holds a line that is no iptables")
    source = read_source(path)
    dump, upper = load(source, "upper", "FORWARD")
    _, lower = load(source, "lower", "FORWARD")
    table = dump.tables["filter"]
    family = next(iter(upper.families))
    maker = PacketMaker(table, [upper.points[0].rules], family, seed=3)
    unknown = sorted(
        {o.text for c in table.chains.values() for r in c.rules for o in r.options if o.name in ("unknown", "limit")}
    )
    some = [p for p in (maker.packet() for _ in range(900)) if not p["fragment"]]
    accepted = {}
    for layer in (upper, lower):
        rules = layer.points[0].rules
        results = packets.compile(rules).classify_batch(columns(some, rules.names, family))
        accepted[layer.points[0].rules] = rules.actions[results] == Action.ALLOW
    at_most, at_least = accepted[upper.points[0].rules], accepted[lower.points[0].rules]
    for truths in range(2 ** min(len(unknown), 4)):
        walk = Walk(table, "strict", {text: bool(truths >> i & 1) for i, text in enumerate(unknown)})
        real = np.array([walk.verdict(p, "FORWARD")[0] == "ACCEPT" for p in some])
        assert (at_least <= real).all()
        assert (real <= at_most).all()


MATCHES = st.sampled_from(
    [
        "-s 10.0.0.0/8",
        "! -s 10.0.0.0/9",
        "-d 192.168.0.0/16",
        "-p tcp",
        "! -p udp",
        "-p tcp -m tcp --dport 80",
        "-p tcp -m tcp ! --dport 80:90",
        "-p udp -m multiport --ports 53,1000:2000",
        "-p tcp -m tcp --tcp-flags SYN,ACK SYN",
        "-p icmp -m icmp --icmp-type 8",
        "-p icmp -m icmp ! --icmp-type 3/4",
        "-i eth+",
        "! -i lo",
        "-o eth0",
        "-m state --state NEW,RELATED",
        "-m conntrack ! --ctstate ESTABLISHED",
        "-m iprange --src-range 10.0.0.5-10.3.0.9",
        "-f",
        "-m ttl --ttl-gt 5",
        "-m limit --limit 1/sec",
        "-m unknowable --a",
        "-m unknowable --b",
    ]
)
CHAINS = ("FORWARD", "A", "B", "C")


@st.composite
def programs(draw: st.DrawFn) -> str:
    """A dump whose chains call only later ones."""
    lines = ["*filter", f":FORWARD {draw(st.sampled_from(['ACCEPT', 'DROP']))} [0:0]", ":A - [0:0]", ":B - [0:0]"]
    lines.append(":C - [0:0]")
    for index, chain in enumerate(CHAINS):
        targets = ["-j ACCEPT", "-j DROP", "-j REJECT", "-j RETURN", "-j RETURN", "-j NFQUEUE", "-j LOG", ""]
        targets += [f"-{kind} {callee}" for callee in CHAINS[index + 1 :] for kind in "jjg"]
        for _ in range(draw(st.integers(0, 5))):
            matches = draw(st.lists(MATCHES, max_size=2, unique=True))
            lines.append(f"-A {chain} {' '.join(matches)} {draw(st.sampled_from(targets))}")
    return "\n".join([*lines, "COMMIT", ""])


@settings(
    max_examples=int(os.environ.get("MESHSIEVE_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(text=programs(), seed=st.integers(0, 2**32), unseen=st.sampled_from([(), ("iif", "oif")]))
def test_generated_programs_unfold_to_the_walk(
    monkeypatch: pytest.MonkeyPatch, text: str, seed: int, unseen: tuple[str, ...]
) -> None:
    monkeypatch.setattr(chains, "MAX_TERMS", 1000)  # so that no skip ends a strict walk early
    source = SourceFile("generated", text)
    for mode in MODES:
        dump, layer = load(source, mode, "FORWARD", unseen)
        maker = PacketMaker(dump.tables["filter"], [layer.points[0].rules], 4, seed)
        some = [maker.packet(without=unseen, may_lack=mode == "strict") for _ in range(40)]
        check(dump, layer, mode, "FORWARD", some, 4)


@pytest.mark.parametrize("limit", [1, 4])
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=programs(), seed=st.integers(0, 2**32))
def test_skips_that_replace_long_conditions_keep_the_bounds_exact(
    monkeypatch: pytest.MonkeyPatch, limit: int, text: str, seed: int
) -> None:
    """In mode strict a skip may end undecided what the walk would decide; never the other way round."""
    monkeypatch.setattr(chains, "MAX_TERMS", limit)
    source = SourceFile("generated", text)
    for mode in MODES:
        dump, layer = load(source, mode, "FORWARD")
        maker = PacketMaker(dump.tables["filter"], [layer.points[0].rules], 4, seed)
        some = [maker.packet(may_lack=mode == "strict") for _ in range(40)]
        check(dump, layer, mode, "FORWARD", some, 4, may_stop=mode == "strict")
