"""Every engine and backend answers as the linear reference, whatever the rules, the fields and the batch size."""

from __future__ import annotations

import numpy as np
import pytest

from meshsieve import _core, packets
from meshsieve.columns import PacketColumns
from meshsieve.errors import CompileError
from meshsieve.model import Rule, RuleSet, ValueSet
from tests.differential.worlds import ALL_FIELDS, FIVE_TUPLE, World

ENGINES = [name for name, _ in _core.engines() if name != "linear"]
BACKENDS = _core.backends()

#   what it shows                       fields                               rules  v6     absent  skips
CASES = [
    ("five fields, IPv4, all present", FIVE_TUPLE, 60, False, 0.0, 0.0),
    ("five fields, IPv4, some absent", FIVE_TUPLE, 60, False, 0.2, 0.0),
    ("five fields, both families", FIVE_TUPLE, 120, True, 0.05, 0.0),
    ("addresses only", ("src_ip", "dst_ip"), 200, True, 0.1, 0.0),
    ("one field", ("dport",), 30, False, 0.1, 0.0),
    ("ports without a protocol", ("sport", "dport"), 60, False, 0.0, 0.0),
    ("fields of one byte", ("proto", "icmp_type"), 60, False, 0.0, 0.0),
    ("as many small fields as are joined in one pass", ("proto", "ttl", "sport", "dport"), 80, False, 0.0, 0.0),
    ("more of them", ("proto", "ttl", "dscp", "sport", "dport", "ip_length"), 60, False, 0.0, 0.0),
    ("every field", ALL_FIELDS, 80, True, 0.1, 0.0),
    ("no field present but names", ("iif", "oif", "vnic"), 40, False, 0.3, 0.0),
    ("more rules than one word of chunks", FIVE_TUPLE, 700, False, 0.02, 0.0),
    ("chains that skip", FIVE_TUPLE, 50, True, 0.1, 0.2),
]


def same(rules: RuleSet, headers: PacketColumns, engine: str, backend: str) -> None:
    expected = packets.compile(rules, engine="linear").classify_batch(headers)
    try:
        compiled = packets.compile(rules, engine=engine, backend=backend)
    except CompileError as error:
        pytest.skip(f"{engine} declines: {error}")
    got = compiled.classify_batch(headers)
    wrong = np.flatnonzero(got != expected)
    assert len(wrong) == 0, f"packet {wrong[0]}: got {got[wrong[0]]}, expected {expected[wrong[0]]}"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("fields", "n", "v6", "absent", "skips"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_answer_is_the_reference_s(
    engine: str, backend: str, fields: tuple[str, ...], n: int, v6: bool, absent: float, skips: float
) -> None:
    for seed in range(3):
        world = World(seed, fields, sets_a_field=4 if fields == ALL_FIELDS else 12, v6=v6)
        rules = world.rules(n, share=2.5 / len(fields) if len(fields) > 5 else 0.5, skips=skips)
        same(rules, world.packets(1000, absent), engine, backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [0, 1, 7, 63, 64, 65, 200])
def test_the_batch_size_changes_nothing(engine: str, backend: str, size: int) -> None:
    world = World(5, FIVE_TUPLE)
    same(
        world.rules(40), world.packets(size) if size else world.packets(1).take(np.zeros(0, np.int64)), engine, backend
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n_rules", [0, 1, 64, 511, 512, 513, 2048, 2049, 5000])
def test_the_number_of_rules_changes_nothing(engine: str, backend: str, n_rules: int) -> None:
    world = World(n_rules, ("src_ip", "dport", "proto"), v6=False)
    same(world.rules(n_rules, share=0.9), world.packets(300, 0.0), engine, backend)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("n", [30, 40, 45, 48, 60])
def test_small_fields_may_have_more_than_65536_classes_together(engine: str, n: int) -> None:
    """(n + 1)^2 x (n - 4) combinations of ports and protocols, each with rules of its own."""
    sizes = {"sport": n, "dport": n, "proto": n - 5}
    rules = RuleSet([Rule({f: ValueSet.numbers(v)}) for f, size in sizes.items() for v in range(size)])
    random = np.random.default_rng(n)
    headers = PacketColumns({f: random.integers(0, size + 1, 2000) for f, size in sizes.items()})
    same(rules, headers, engine, BACKENDS[0])


@pytest.mark.parametrize(("field", "value"), [("proto", 6), ("dport", 443), ("sport", 0xFFFF)])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_column_may_stand_for_all_packets(engine: str, field: str, value: int) -> None:
    world = World(3, FIVE_TUPLE, v6=False)
    headers = world.packets(100, 0.0)
    one = PacketColumns({**dict(headers.items()), field: np.array([value])}, length=100)
    same(world.rules(50), one, engine, BACKENDS[0])
