"""Marks over several tables and chains: imported against a literal walk that keeps two numbers for a packet."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve.columns import PacketColumns
from meshsieve.engine import Engine
from meshsieve.importers.iptables.importer import IptablesImporter
from meshsieve.importers.iptables.syntax import RuleLine, Table, parse
from meshsieve.importers.iptables.targets import mark_and_mask
from meshsieve.policy import ImportOptions, SourceFile

ALL = 0xFFFFFFFF
WAY = [("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("mangle", "FORWARD"), ("filter", "FORWARD")]
FIELDS = ["", "", "-p tcp", "-p udp", "-s 10.0.0.1", "! -s 10.0.0.1", "-d 10.0.0.3", "-p tcp -m tcp --dport 80"]
TESTS = ["", "", "-m mark --mark 0x1", "-m mark ! --mark 0x1", "-m mark --mark 0x2/0x2", "-m mark ! --mark 0x0/0x3",
         "-m connmark --mark 0x1/0x1", "-m connmark ! --mark 0x0"]  # fmt: skip
SETS = [
    "MARK --set-mark 0x1", "MARK --set-xmark 0x2/0x3", "MARK --or-mark 0x2", "MARK --and-mark 0x1",
    "MARK --xor-mark 0x3", "CONNMARK --save-mark", "CONNMARK --restore-mark", "CONNMARK --set-mark 0x1",
    "CONNMARK --save-mark --nfmask 0x1 --ctmask 0x3", "CONNMARK --restore-mark --nfmask 0x2 --ctmask 0x2",
]  # fmt: skip

Packet = dict[str, int | str]


def dump(r: random.Random) -> str:
    lines: list[str] = []
    for table in ("raw", "mangle", "filter"):
        lines.append(f"*{table}")
        hooks = [hook for name, hook in WAY if name == table]
        lines += [f":{hook} {r.choice(['ACCEPT'] * 5 + ['DROP'])} [0:0]" for hook in hooks]
        chains = ["a", "b", "c"]
        lines += [f":{chain} - [0:0]" for chain in chains]
        for chain in [*hooks, *chains]:
            callees = chains[chains.index(chain) + 1 :] if chain in chains else chains
            for _ in range(r.randint(0, 5)):
                targets = ["-j ACCEPT", "-j RETURN", "-j RETURN", "-j DROP"] + [
                    f"-j {r.choice(SETS)}" for _ in range(5)
                ]
                targets += [f"-{kind} {callee}" for callee in callees for kind in "jjg"]
                lines.append(f"-A {chain} {r.choice(FIELDS)} {r.choice(TESTS)} {r.choice(targets)}")
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


class Walk:
    """One packet through the tables; mark and connection mark begin at 0, as for the first packet of a connection."""

    def __init__(self, packet: Packet) -> None:
        self.packet, self.mark, self.connmark = packet, 0, 0

    def verdict(self, tables: dict[str, Table]) -> str:
        for table, hook in WAY:
            chain = tables[table].chains[hook]
            if (self.chain(tables[table], hook) or chain.policy) == "DROP":
                return "DROP"
        return "ALLOW"

    def chain(self, table: Table, name: str) -> str | None:
        for rule in table.chains[name].rules:
            if not self.matches(rule):
                continue
            target = rule.target or ""
            if target in ("ACCEPT", "DROP"):
                return target
            if target == "RETURN":
                return None
            if target in table.chains:
                decided = self.chain(table, target)
                if decided or rule.goto:
                    return decided
            else:
                self.set(target, rule.extra.split())
        return None

    def matches(self, rule: RuleLine) -> bool:
        return all(self.holds(o.name, o.arguments[0]) != o.negated for o in rule.options)

    def holds(self, name: str, value: str) -> bool:
        if name in ("mark", "connmark"):
            wanted, mask = mark_and_mask(value)
            return (self.mark if name == "mark" else self.connmark) & mask == wanted
        if name == "protocol":
            return self.packet["proto"] == {"tcp": 6, "udp": 17}[value]
        field = {"source": "src", "destination": "dst", "dport": "dport"}[name]
        return str(self.packet[field]) == value

    def set(self, target: str, words: list[str]) -> None:
        options = dict(zip(words[::2], words[1::2], strict=False)) if len(words) > 1 else {words[0]: ""}
        if "save-mark" in words[0] or "restore-mark" in words[0]:
            options = {words[0]: "", **dict(zip(words[1::2], words[2::2], strict=True))}
            nfmask, ctmask = (int(options.get(f"--{kind}mask", "0xffffffff"), 16) for kind in ("nf", "ct"))
            if words[0] == "--save-mark":
                self.connmark = self.connmark & ~ctmask & ALL ^ (self.mark & nfmask)
            else:
                self.mark = self.mark & ~nfmask & ALL ^ (self.connmark & ctmask)
            return
        ((option, text),) = options.items()
        value, mask = mark_and_mask(text)
        old = self.mark if target == "MARK" else self.connmark
        new = {
            "--set-mark": old & ~mask & ALL | value,
            "--set-xmark": old & ~mask & ALL ^ value,
            "--or-mark": old | value,
            "--and-mark": old & value,
            "--xor-mark": old ^ value,
        }[option]
        if target == "MARK":
            self.mark = new
        else:
            self.connmark = new


PACKETS: list[Packet] = [
    {"src": src, "dst": dst, "proto": proto, "dport": dport}
    for src in ("10.0.0.1", "10.0.0.2") for dst in ("10.0.0.3", "10.0.0.4")
    for proto, dport in ((6, 80), (6, 81), (17, 80))
]  # fmt: skip


def compare(r: random.Random) -> Counter[str]:
    text = dump(r)
    options = ImportOptions(table="all")
    engine = Engine(IptablesImporter().load([SourceFile("d", text)], options).layers)
    many = len(PACKETS)
    columns = PacketColumns({
        "src_ip": [p["src"] for p in PACKETS], "dst_ip": [p["dst"] for p in PACKETS],
        "proto": [p["proto"] for p in PACKETS], "dport": [p["dport"] for p in PACKETS], "sport": [1000] * many,
        "ct_state": [1] * many, "ip_ver": [4] * many, "fragment": [0] * many, "tcp_flags": np.full(many, 2),
    })  # fmt: skip
    found = engine.classify(columns)["action"]
    tables = parse(SourceFile("d", text)).tables
    seen: Counter[str] = Counter()
    for packet, action in zip(PACKETS, found, strict=True):
        expected = Walk(packet).verdict(tables)
        assert action in (expected, "UNDECIDED"), f"{packet}: {action}, {expected}\n{text}"
        seen[action] += 1
    return seen


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_tables(r: random.Random) -> None:
    compare(r)


def test_nearly_everything_is_decided() -> None:
    seen: Counter[str] = Counter()
    for seed in range(30):
        seen += compare(random.Random(seed))
    assert seen["ALLOW"] > 50
    assert seen["DROP"] > 50
    assert seen["UNDECIDED"] < 0.1 * seen.total(), seen
