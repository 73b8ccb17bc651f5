"""Saved tables: the same answers and rules after loading, and a named refusal of everything else."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benches import boxes, classbench, groups, hard_sets
from meshsieve import _core, changing, packets, saved_tables
from meshsieve.errors import BackendError, CompileError, ModelError, OutputError, TableError
from meshsieve.model import Action, MarkCodes, NameCodes, Rule, RuleSet, Source, ValueSet
from tests.differential.worlds import ALL_FIELDS, FIVE_TUPLE, World

ENGINES = [name for name, _ in _core.engines()]


def saved_and_loaded(clf: packets.PacketClassifier, folder: Path, **options: object) -> packets.PacketClassifier:
    clf.save(folder / "table")
    return packets.load_table(folder / "table", **options)


#   what it shows                      fields        rules  v6     skips
WORLDS = [
    ("five fields, IPv4", FIVE_TUPLE, 100, False, 0.0),
    ("five fields, both families", FIVE_TUPLE, 100, True, 0.0),
    ("every field", ALL_FIELDS, 60, True, 0.0),
    ("names and numbers only", ("iif", "vnic", "dport"), 40, False, 0.0),
    ("chains that skip", FIVE_TUPLE, 60, True, 0.2),
    ("more than 2,048 rules", ("src_ip", "dport"), 2200, False, 0.0),
    ("no rule", FIVE_TUPLE, 0, False, 0.0),
    ("rules without fields", (), 3, False, 0.0),
]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("engine", ["auto", *ENGINES])
@pytest.mark.parametrize(("fields", "n", "v6", "skips"), [w[1:] for w in WORLDS], ids=[w[0] for w in WORLDS])
def test_a_loaded_table_answers_as_before(
    engine: str, mapped: bool, fields: tuple[str, ...], n: int, v6: bool, skips: float, tmp_path: Path
) -> None:
    world = World(n, fields, sets_a_field=6, v6=v6)
    headers = world.packets(500, 0.1) if fields else World(1, FIVE_TUPLE).packets(500)
    try:
        clf = packets.compile(world.rules(n, 0.5, skips=skips), engine=engine)
    except CompileError as error:
        pytest.skip(f"{engine} declines: {error}")
    loaded = saved_and_loaded(clf, tmp_path, mapped=mapped)
    assert np.array_equal(loaded.classify_batch(headers), clf.classify_batch(headers))
    assert loaded.stats.engine == clf.stats.engine
    assert loaded.stats.bytes == clf.stats.bytes
    assert loaded.stats.worst_case_steps == clf.stats.worst_case_steps
    assert list(loaded.rules) == list(clf.rules)


BIG = [
    ("acl1", lambda: boxes.to_rule_set(classbench.rules("acl1", 3000, 5))),
    ("fw2", lambda: boxes.to_rule_set(classbench.rules("fw2", 3000, 5))),
    ("short prefixes", lambda: boxes.to_rule_set(hard_sets.short_prefixes(600))),
    ("groups", lambda: groups.Policy(200).rule_set),
]


@pytest.mark.parametrize("backend", _core.backends())
@pytest.mark.parametrize("engine", [engine for engine in ENGINES if engine != "linear"])
@pytest.mark.parametrize("make", [b[1] for b in BIG], ids=[b[0] for b in BIG])
def test_a_large_table_answers_as_before_on_every_backend(make, engine: str, backend: str, tmp_path: Path) -> None:
    rules = make()
    try:
        clf = packets.compile(rules, engine=engine)
    except CompileError as error:
        pytest.skip(f"{engine} declines: {error}")
    loaded = saved_and_loaded(clf, tmp_path, backend=backend)
    assert loaded.stats.backend == backend
    random = np.random.default_rng(1)
    headers = boxes.to_columns(
        np.column_stack([random.integers(0, 1 << bits, 3000) for bits in (32, 32, 16, 16, 8)]).astype(np.uint32)
    )
    assert np.array_equal(loaded.classify_batch(headers), clf.classify_batch(headers))
    one = packets.compile(rules, engine="linear")
    assert np.array_equal(loaded.classify_batch(headers), one.classify_batch(headers))


def test_rules_come_along_with_names_sources_and_clauses(tmp_path: Path) -> None:
    names = {"iif": NameCodes.of(exact=["lo"], prefixes=["eth"])}
    rules = RuleSet(
        [
            Rule(
                {"iif": names["iif"].prefix("eth")}, name="übung", source=Source("a.rules", 3, "chain INPUT"), log=True
            ),
            Rule({"dport": ValueSet.numbers(80)}, action=Action.DROP, unknown=("-m string", "-m bpf")),
            Rule({"src_ip": ValueSet.addresses(["2001:db8::/32", "10.0.0.0/8"])}, name="bad \udcff byte"),
        ],
        names=names,
        marks=MarkCodes(((1, 1, "mark"), (4, 6, "ct_mark"))),
    )
    loaded = saved_and_loaded(packets.compile(rules), tmp_path)
    assert list(loaded.rules) == list(rules)
    assert loaded.rules.names == names
    assert loaded.rules.marks == rules.marks
    assert loaded.classify("10.0.0.1", "10.0.0.2", 1, 80, 6, iif="eth7") == 0
    told = loaded.explain("10.0.0.1", "10.0.0.2", 1, 80, 6, iif="lo")
    assert told.result == -3
    assert "-m string" in str(told)


def test_a_loaded_table_changes_like_any(tmp_path: Path) -> None:
    world = World(4, FIVE_TUPLE, v6=False)
    clf = packets.compile(world.rules(50))
    loaded = saved_and_loaded(clf, tmp_path)
    for changed in (clf, loaded):
        changed.update(remove=[0, 7], insert=[(3, Rule({"dport": ValueSet.numbers((0, 1000))}))])
    headers = world.packets(500, 0.1)
    assert np.array_equal(loaded.classify_batch(headers), clf.classify_batch(headers))
    again = saved_and_loaded(loaded, tmp_path)
    assert np.array_equal(again.classify_batch(headers), clf.classify_batch(headers))
    assert list(again.rules) == list(clf.rules)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    clf = packets.compile(World(4, FIVE_TUPLE).rules(50), engine="bitmap")
    clf.save(tmp_path / "a")
    clf.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_mapped_table_outlives_its_name_and_its_replacement(tmp_path: Path) -> None:
    path = tmp_path / "table"
    world = World(4, FIVE_TUPLE)
    clf = packets.compile(world.rules(50), engine="forest")
    headers = world.packets(200)
    loaded = saved_and_loaded(clf, tmp_path, mapped=True)
    packets.compile([Rule()]).save(path)
    assert np.array_equal(loaded.classify_batch(headers), clf.classify_batch(headers))
    path.unlink()
    assert np.array_equal(loaded.classify_batch(headers), clf.classify_batch(headers))


def test_another_process_reads_it(tmp_path: Path) -> None:
    world = World(4, FIVE_TUPLE, v6=False)
    clf = packets.compile(world.rules(50))
    clf.save(tmp_path / "table")
    code = "import sys; from meshsieve import packets; print(len(packets.load_table(sys.argv[1], mapped=True).rules))"
    path = os.pathsep.join(["src", os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "table")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "50\n"


# --- what is refused ---


def image_of(engine: str = "forest", n: int = 30) -> bytes:
    clf = packets.compile(World(n, FIVE_TUPLE).rules(n), engine=engine)
    return _core.save_classifier(clf._writer.version.native, [b"{}"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image: b"", "is no saved table"),
        (lambda image: b"not a table, but long enough to be one" * 9, "is no saved table"),
        (lambda image: image[:40], "is no saved table"),
        (lambda image: image[:-64], "bytes, and has"),
        (lambda image: image + b"more", "bytes, and has"),
        (lambda image: image[:8] + b"\1\2\3\4" + image[12:], "byte order"),
        (lambda image: image[:12] + b"\7\0\0\0" + image[16:], "has format version 7, this meshsieve reads version"),
        (lambda image: image[:20] + b"\x80\0\0\0" + image[24:], "features"),
        (lambda image: image[:200] + bytes([image[200] ^ 1]) + image[201:], "checksum"),
        (lambda image: _core.seal(image[:16] + b"\2\0\0\0" + image[20:]), "holds no rules"),
    ],
)
def test_what_is_no_table_is_refused_by_name(change, words: str, tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_bytes(change(image_of()))
    for mapped in (False, True):
        with pytest.raises(TableError, match=words) as refused:
            packets.load_table(path, mapped=mapped)
        assert str(refused.value).startswith(str(path))


def test_what_is_no_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        packets.load_table(tmp_path / "missing")
    with pytest.raises(TableError, match="no regular file"):
        packets.load_table(tmp_path)


def test_an_unknown_backend_is_refused(tmp_path: Path) -> None:
    packets.compile([Rule()]).save(tmp_path / "table")
    with pytest.raises(BackendError):
        packets.load_table(tmp_path / "table", backend="quantum")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table"
    packets.compile([Rule()]).save(path)
    before = path.read_bytes()
    with pytest.raises(OutputError):
        packets.compile([Rule()]).save(tmp_path / "no" / "folder")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["table"]


def test_a_signed_table_needs_its_key(tmp_path: Path) -> None:
    path = tmp_path / "table"
    clf = packets.compile([Rule()])
    clf.save(path, key=b"secret")
    assert packets.load_table(path, key=b"secret").classify("10.0.0.1", "10.0.0.2") == 0
    with pytest.raises(TableError, match="signed; give the key"):
        packets.load_table(path)
    with pytest.raises(TableError, match="not saved with this key"):
        packets.load_table(path, key=b"other")
    image, tag = path.read_bytes()[:-32], path.read_bytes()[-32:]
    at = image.rindex(b"budget_bytes")
    path.write_bytes(_core.seal(image[:at] + b"Budget" + image[at + 6 :]) + tag)
    with pytest.raises(TableError, match="was changed since"):
        packets.load_table(path, key=b"secret")
    clf.save(path)
    with pytest.raises(TableError, match="is not signed"):
        packets.load_table(path, key=b"secret")


# --- hostile files: one byte changed, checksum put right ---


def _outcome(image: bytes, headers: packets.PacketColumns) -> object:
    """The answers, or the refusal; anything else (a crash, another exception) fails the test."""
    try:
        loaded = saved_tables.of_image(_core.Image.of(image))
    except TableError as error:
        return str(error)
    lookup = packets._fast.Lookup(loaded.native.capsule)
    options = changing.Options("auto", "auto", 0)
    clf = packets.PacketClassifier(
        changing.Version(loaded.native, lookup, options, len(loaded.rules), listed=loaded.rules)
    )
    list(loaded.rules)
    return clf.classify_batch(headers)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_changed_byte_behind_a_right_checksum_ends_in_a_result_or_a_refusal(engine: str, tmp_path: Path) -> None:
    world = World(8, FIVE_TUPLE, sets_a_field=4)
    rules = world.rules(12, skips=0.1)
    headers = world.packets(64, 0.1)
    clf = packets.compile(rules, engine=engine)
    clf.save(tmp_path / "table")
    image = (tmp_path / "table").read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for at in [*range(64, 2000), *random.integers(2000, len(image), 1000).tolist()]:
        changed = bytearray(image)
        changed[at] ^= int(random.integers(1, 256))
        found = _outcome(_core.seal(bytes(changed)), headers)
        refused += isinstance(found, str)
        if not isinstance(found, str):
            assert len(found) == len(headers)
            assert found.max() < len(rules)
            assert found.min() >= -len(rules) - 1
    assert refused > 100
    assert isinstance(_outcome(_core.seal(image), headers), np.ndarray)


def test_children_of_two_nodes_are_refused_before_they_cost_anything(tmp_path: Path) -> None:
    """65,536 children a node, shared by all nodes, would make the check a thousand times as long as the file."""
    clf = packets.compile(boxes.to_rule_set(classbench.rules("acl1", 2000, 3)), engine="forest")
    clf.save(tmp_path / "table")
    image = (tmp_path / "table").read_bytes()
    node = np.dtype([("first", "<u4"), ("mask", "<u2"), ("shift", "u1"), ("dim", "u1")])
    tried = 0
    for at in range(64, len(image) - 64, 64):  # roots first; their children follow in turn
        one, two = ((int(n["first"]), int(n["mask"])) for n in np.frombuffer(image, node, 2, at))
        if not 2 <= one[0] < 16 or one[1] == 0 or two[0] != one[0] + one[1] + 1:
            continue
        shared = image[: at + 8] + (two[0] - 1).to_bytes(4, "little") + image[at + 12 :]
        assert "a child of two parents" in str(
            _outcome(_core.seal(shared), boxes.to_columns(np.zeros((1, 5), np.uint32)))
        )
        tried += 1
    assert tried == 1


def test_offsets_that_go_beyond_the_alternatives_and_back_are_refused() -> None:
    one = np.zeros((1, len(_core.FIELDS)), np.int32)
    with pytest.raises(ModelError, match="rule 0: alternative offsets"):
        _core.RuleSet(
            np.zeros(3, np.uint64),
            np.zeros((0, 4), np.uint64),
            np.repeat(one, 2, axis=0),
            np.array([0, 2**31, 1], np.uint32),
            one,
            np.zeros(2, np.uint8),
            np.full(2, -1, np.int32),
            np.ones(2, np.uint8),
        )


def test_every_flipped_bit_and_every_truncation_is_refused() -> None:
    image = image_of(n=4)
    for at in range(len(image)):
        for bit in (0, 5) if at > 64 else range(8):
            changed = bytearray(image)
            changed[at] ^= 1 << bit
            with pytest.raises(TableError):
                _core.Image.of(bytes(changed))
    for length in range(0, len(image), 7):
        with pytest.raises(TableError):
            _core.Image.of(image[:length])


# --- prefix tables ---


def prefix_table() -> packets.PrefixTable:
    random = np.random.default_rng(5)
    table = packets.PrefixTable({"0.0.0.0/0": -7, "2001:db8::/32": 2**62, "2001:db8::1/128": 3})
    lengths = random.integers(1, 33, 300)
    for length, address in zip(lengths.tolist(), random.integers(0, 2**32, 300).tolist(), strict=True):
        table.insert(f"{ipaddress.IPv4Address(address >> (32 - length) << (32 - length))}/{length}", address % 50)
    return table


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("backend", _core.backends())
def test_a_loaded_prefix_table_answers_and_changes_as_before(backend: str, mapped: bool, tmp_path: Path) -> None:
    table = prefix_table()
    table.save(tmp_path / "prefixes")
    loaded = packets.PrefixTable.load(tmp_path / "prefixes", backend=backend, mapped=mapped)
    addresses = np.random.default_rng(1).integers(0, 2**32, 3000).astype(np.uint32)
    for change in ({}, {"10.0.0.0/8": 1, "2001:db8:1::/48": 2}):
        for one in (table, loaded):
            one.update(change)
        assert len(loaded) == len(table)
        assert loaded.native.items() == table.native.items()
        assert np.array_equal(loaded.lookup_batch(addresses), table.lookup_batch(addresses))
        for address in ("2001:db8::1", "2001:db8:1::1", "2001:db9::", "10.1.2.3"):
            assert loaded.lookup(address) == table.lookup(address)


def test_files_of_one_kind_are_not_taken_for_the_other(tmp_path: Path) -> None:
    prefix_table().save(tmp_path / "prefixes", key=b"k")
    with pytest.raises(TableError, match="prefixes is signed"):
        packets.PrefixTable.load(tmp_path / "prefixes")
    with pytest.raises(TableError, match="holds no rules"):
        packets.load_table(tmp_path / "prefixes", key=b"k")
    packets.compile([Rule()]).save(tmp_path / "rules")
    with pytest.raises(TableError, match="holds no prefixes"):
        packets.PrefixTable.load(tmp_path / "rules")


def test_a_changed_byte_of_a_prefix_table_ends_in_a_value_or_a_refusal() -> None:
    image = _core.save_prefixes(prefix_table().native)
    addresses = np.random.default_rng(1).integers(0, 2**32, 200).astype(np.uint32)
    random = np.random.default_rng(3)
    refused = 0
    for at in random.integers(64, len(image), 3000).tolist():
        changed = bytearray(image)
        changed[at] ^= int(random.integers(1, 256))
        try:
            loaded = packets.PrefixTable.of(_core.load_prefixes(_core.Image.of(_core.seal(bytes(changed)))))
        except TableError:
            refused += 1
            continue
        loaded.lookup_batch(addresses)
        loaded.lookup("2001:db8::1")
        loaded.native.items()
    assert refused > 100


def test_a_list_that_is_being_changed_is_saved_as_it_stands(tmp_path: Path) -> None:
    world = World(9, FIVE_TUPLE, sets_a_field=4)
    clf = packets.compile(world.rules(12))
    clf.update(remove=[0, 3], insert=[(5, clf.rules[0])])
    headers = world.packets(64, 0.1)
    clf.save(tmp_path / "table")
    loaded = packets.load_table(tmp_path / "table")
    assert len(loaded) == 11
    assert loaded.classify_batch(headers).tolist() == clf.classify_batch(headers).tolist()
    clf.settle()
