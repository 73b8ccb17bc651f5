"""Layers and points combined: which verdict, which rule is named, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from meshsieve.columns import PacketColumns
from meshsieve.engine import Engine
from meshsieve.inventory import Inventory, Vnic
from meshsieve.model import Action, Rule, RuleSet, Source, ValueSet
from meshsieve.policy import Layer, Point, Verdict

A, B, OUTSIDE = "10.0.0.1", "10.0.0.2", "192.0.2.1"
INVENTORY = Inventory([Vnic("a", "A", ((4, 0x0A000001),)), Vnic("b", "B", ((4, 0x0A000002),))])


def rule(action: Action, name: str = "", unknown: tuple[str, ...] = (), **match: int | str) -> Rule:
    sets = {
        field: ValueSet.addresses([value]) if isinstance(value, str) else ValueSet.numbers(value)
        for field, value in match.items()
    }
    return Rule(sets, action, name=name or action.name.lower(), source=Source("rules", 1, name), unknown=unknown)


def tcp(src: str, dst: str, dport: int | None = 80) -> PacketColumns:
    headers = {"src": [src], "dst": [dst], "proto": [6], "ip_ver": [4]}
    return PacketColumns(headers if dport is None else {**headers, "dport": [dport], "sport": [1024]})


def two_ends(out: Sequence[Rule], into: Sequence[Rule], excluded: frozenset[int] = frozenset()) -> Layer:
    return Layer(
        "nsx",
        (
            Point("out", RuleSet(out), constants={"direction": 1}, vnic_of="src", excluded=excluded),
            Point("in", RuleSet(into), constants={"direction": 2}, vnic_of="dst", excluded=excluded),
        ),
        INVENTORY,
    )


ALLOW, DROP, REJECT = rule(Action.ALLOW, "yes"), rule(Action.DROP, "no"), rule(Action.REJECT, "never")
UNKNOWN_ALLOW = rule(Action.ALLOW, "maybe", ("a clause",))

CASES = [
    # what it shows                                 out              in             from    to       action       rule
    ("both points allow: the first rule is named", [ALLOW], [rule(Action.ALLOW, "also")], A, B, "ALLOW", "yes"),
    ("the receiver denies", [ALLOW], [DROP], A, B, "DROP", "no"),
    ("the first denial decides", [REJECT], [DROP], A, B, "REJECT", "never"),
    ("undecided beats allowed", [ALLOW], [UNKNOWN_ALLOW], A, B, "UNDECIDED", "maybe"),
    ("a denial beats undecided", [UNKNOWN_ALLOW], [DROP], A, B, "DROP", "no"),
    ("a rule is named before a default", [], [ALLOW], A, B, "ALLOW", "yes"),
    ("no rule anywhere: the default, without a rule", [], [], A, B, "ALLOW", None),
    ("only the known end judges", [DROP], [ALLOW], OUTSIDE, B, "ALLOW", "yes"),
    ("nobody judges strangers", [DROP], [DROP], OUTSIDE, OUTSIDE, "NONE", None),
]


@pytest.mark.parametrize(
    ("out", "into", "src", "dst", "action", "name"), [c[1:] for c in CASES], ids=[c[0] for c in CASES]
)
def test_points_combine(out: list[Rule], into: list[Rule], src: str, dst: str, action: str, name: str | None) -> None:
    batch = Engine([two_ends(out, into)]).classify(tcp(src, dst))
    assert (batch["action"][0], batch["rule"][0]) == (action, name)


def test_an_excluded_vnic_passes_its_own_point_and_the_peer_still_judges() -> None:
    layer = two_ends([DROP], [DROP], excluded=frozenset({0}))
    batch = Engine([layer]).classify(tcp(A, OUTSIDE))
    assert (batch["action"][0], batch["reason"][0]) == ("ALLOW", "nsx out: the vNIC is excluded from filtering")
    assert Engine([layer]).classify(tcp(A, B))["action"][0] == "DROP"


def test_layers_all_must_allow() -> None:
    host = Layer("host", (Point("INPUT", RuleSet([rule(Action.DROP, "wall", dport=80)])),))
    engine = Engine([two_ends([ALLOW], [ALLOW]), host])
    assert engine.classify(tcp(A, B, 80))["rule"][0] == "wall"
    assert engine.classify(tcp(A, B, 81))["action"][0] == "ALLOW"


def test_a_layer_leaves_other_ip_versions_unjudged() -> None:
    layer = Layer("v6", (Point("INPUT", RuleSet([DROP])),), families=frozenset({6}))
    batch = Engine([layer]).classify(tcp(A, B))
    assert (batch["action"][0], batch["reason"][0]) == ("NONE", "no layer judges IPv4")


def test_a_missing_port_makes_the_packet_undecided_and_the_reason_names_it() -> None:
    layer = Layer("host", (Point("INPUT", RuleSet([rule(Action.ALLOW, "web", dport=80)])),))
    batch = Engine([layer]).classify(tcp(A, B, None))
    assert batch["action"][0] == "UNDECIDED"
    assert batch["rule"][0] == "web"
    assert batch["reason"][0] == "host INPUT: undecided at this rule: the packet lacks dport"


def test_an_unknown_clause_is_named_in_the_reason() -> None:
    layer = Layer("host", (Point("INPUT", RuleSet([UNKNOWN_ALLOW])),))
    reason = Engine([layer]).classify(tcp(A, B))["reason"][0]
    assert reason == "host INPUT: undecided at this rule: 'a clause' cannot be known offline"


MODES = [
    # what it shows                              rules                          upper    lower
    ("unknown allow", [UNKNOWN_ALLOW, DROP], "ALLOW", "DROP"),
    ("unknown drop", [rule(Action.DROP, "d", ("x",)), ALLOW], "ALLOW", "DROP"),
    ("two unknown, then allow", [rule(Action.DROP, "d", ("x",)), UNKNOWN_ALLOW, ALLOW], "ALLOW", "DROP"),
    ("unknown but certain in effect", [UNKNOWN_ALLOW, ALLOW], "ALLOW", "ALLOW"),
    ("an undecided action", [rule(Action.UNDECIDED, "queue")], "ALLOW", "DROP"),
    (
        "unknown skip: either branch",
        [Rule({}, Action.SKIP, skip_to=2, unknown=("x",)), DROP, ALLOW],
        "ALLOW",
        "DROP",
    ),
    (
        "unknown skip, both branches deny",
        [Rule({}, Action.SKIP, skip_to=2, unknown=("x",)), DROP, DROP],
        "DROP",
        "DROP",
    ),
    ("unknown drop, then nothing: the default", [rule(Action.DROP, "d", ("x",))], "ALLOW", "DROP"),
]


@pytest.mark.parametrize(("rules", "upper", "lower"), [c[1:] for c in MODES], ids=[c[0] for c in MODES])
def test_upper_and_lower_bound_what_is_accepted(rules: list[Rule], upper: str, lower: str) -> None:
    layer = Layer("host", (Point("INPUT", RuleSet(rules), default=Verdict.ALLOW),))
    assert Engine([layer]).classify(tcp(A, B))["action"][0] == "UNDECIDED"
    assert Engine([layer], mode="upper").classify(tcp(A, B))["action"][0] == upper
    assert Engine([layer], mode="lower").classify(tcp(A, B))["action"][0] == lower


def test_every_row_answers_alone_as_in_a_batch() -> None:
    rng = np.random.default_rng(1)
    layer = two_ends([rule(Action.DROP, "d1", dport=80), UNKNOWN_ALLOW], [rule(Action.ALLOW, "a1", src_ip=A), DROP])
    engine = Engine([layer])
    hosts = np.array([0x0A000001, 0x0A000002, 0xC0000201], np.uint32)
    headers = PacketColumns(
        {
            "src": hosts[rng.integers(0, 3, 60)],
            "dst": hosts[rng.integers(0, 3, 60)],
            "proto": np.full(60, 6),
            "dport": rng.integers(79, 82, 60),
        }
    )
    batch = engine.classify(headers)
    for i in range(60):
        alone = engine.classify(headers.take(np.array([i])))
        assert alone.row(0) == batch.row(i)
    assert len(set(batch["action"])) >= 3


def test_points_with_the_same_rule_list_share_one_table() -> None:
    shared = RuleSet([ALLOW])
    layer = Layer("nsx", (Point("out", shared, vnic_of="src"), Point("in", shared, vnic_of="dst")), INVENTORY)
    first, second = Engine([layer]).tables.points
    assert first.classifier is second.classifier
