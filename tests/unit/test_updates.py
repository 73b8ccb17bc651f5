"""Changing a compiled list: positions, skips, versions, readers that run meanwhile."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve import packets
from meshsieve.changing import History
from meshsieve.errors import ModelError
from meshsieve.model import Action, Rule, RuleSet, ValueSet
from tests.property import strategies


def named(*names: str) -> RuleSet:
    return RuleSet([Rule({"dport": ValueSet.numbers(ord(n))}, name=n) for n in names])


def names(rules: RuleSet) -> str:
    return "".join(rule.name for rule in rules)


def rule(name: str) -> Rule:
    return Rule({"dport": ValueSet.numbers(ord(name))}, name=name)


CASES = [
    # what it shows                                remove     insert                              result
    ("nothing changes nothing", [], [], "abcd"),
    ("before a rule", [], [(1, rule("x"))], "axbcd"),
    ("at the end", [], [(4, rule("x"))], "abcdx"),
    ("one position keeps its order", [], [(2, rule("x")), (0, rule("z")), (2, rule("y"))], "zabxycd"),
    ("out", [1, 3], [], "ac"),
    ("a rule twice out is once out", [1, 1], [], "acd"),
    ("in the place of another", [2], [(2, rule("x"))], "abxd"),
    ("all indices count in the old list", [0, 1], [(2, rule("x")), (4, rule("y"))], "xcdy"),
    ("everything out", [0, 1, 2, 3], [], ""),
]


@pytest.mark.parametrize(("remove", "insert", "result"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_positions(remove, insert, result):
    clf = packets.compile(named(*"abcd"))
    before = clf.snapshot()
    clf.update(remove=remove, insert=insert)
    assert names(clf.rules) == result
    for port in "abcdxyz":
        assert clf.classify("10.0.0.1", "10.0.0.2", 1, ord(port), 6) == result.find(port)
        assert before.classify("10.0.0.1", "10.0.0.2", 1, ord(port), 6) == "abcd".find(port)


def test_one_change_at_a_time():
    clf = packets.compile(named(*"abc"))
    clf.insert(rule("x"), 0)
    clf.remove(1)
    clf.replace(2, rule("y"))
    assert names(clf.rules) == "xby"
    assert [clf.rules.label(i)[0] for i in range(3)] == ["x", "b", "y"]


def columns(names: str | list[str]) -> RuleSet:
    ports = [ord(name) for name in names]
    return RuleSet.from_ranges({"dport": (ports, ports)})


AS_COLUMNS = [
    # what it shows                               rules  at         what is at which port
    ("each before its rule", "xy", [1, 3], "axbcyd"),
    ("any order of positions", "xyz", [4, 0, 2], "yabzcdx"),
    ("one position keeps its order", "xyz", [2, 0, 2], "yabxzcd"),
    ("none", "", [], "abcd"),
]


@pytest.mark.parametrize(("more", "at", "result"), [c[1:] for c in AS_COLUMNS], ids=[c[0] for c in AS_COLUMNS])
def test_rules_are_put_in_as_columns(more, at, result):
    clf = packets.compile(named(*"abcd"))
    clf.update(insert=columns(more), at=at)
    assert [clf.classify("10.0.0.1", "10.0.0.2", 1, ord(name), 6) for name in result] == list(range(len(result)))
    assert [chr(r.match["dport"].v4[0][0]) for r in clf.rules] == list(result)
    clf.remove(result.index("b"))
    clf.update(remove=np.array([0]), insert=[(1, rule("w"))])
    left = result.replace("b", "")
    assert [chr(r.match["dport"].v4[0][0]) for r in clf.rules] == [*"w", *left[1:]]
    clf.settle()
    assert clf.classify("10.0.0.1", "10.0.0.2", 1, ord("w"), 6) == 0


def test_columns_with_skips_are_compiled():
    clf = packets.compile(named(*"ab"))
    clf.update(insert=RuleSet([Rule(action=Action.SKIP, skip_to=1)]), at=[0])
    assert clf.classify("10.0.0.1", "10.0.0.2", 1, ord("a"), 6) == -1
    assert clf.classify("10.0.0.1", "10.0.0.2", 1, ord("b"), 6) == 2


NOT_COLUMNS = [
    ("no positions", {"insert": columns("x")}, "give `at`"),
    ("too few positions", {"insert": columns("xy"), "at": [0]}, "give 2 integers"),
    ("positions that are no numbers", {"insert": columns("x"), "at": ["0"]}, "give 1 integers"),
    ("a position beyond the list", {"insert": columns("x"), "at": [5]}, "positions are 0 to 4"),
    ("a position below the list", {"insert": columns("xy"), "at": [2, -1]}, "positions are 0 to 4"),
    ("positions beside pairs", {"insert": [(0, rule("x"))], "at": [0]}, "pairs have their positions"),
]


@pytest.mark.parametrize(("arguments", "why"), [c[1:] for c in NOT_COLUMNS], ids=[c[0] for c in NOT_COLUMNS])
def test_columns_that_cannot_be_put_in(arguments, why):
    clf = packets.compile(named(*"abcd"))
    with pytest.raises(ModelError, match=why):
        clf.update(**arguments)
    assert names(clf.rules) == "abcd"


def test_skips_follow_their_rule():
    rules = RuleSet([Rule(action=Action.SKIP, skip_to=2), rule("a"), rule("b"), Rule(action=Action.SKIP, skip_to=4)])
    edited = rules.edited(insert=[(1, rule("x")), (4, rule("z"))])
    assert [r.skip_to for r in edited] == [3, -1, -1, -1, 6, -1]
    assert [r.skip_to for r in rules.edited(remove=[2])] == [2, -1, 3]


REFUSED = [
    ([4], []),
    ([-1], []),
    ([1.5], []),
    ([], [(5, Rule())]),
    ([], [(-1, Rule())]),
    ([], [(0.5, Rule())]),
    ([], [(0, Rule({"colour": ValueSet()}))]),
    ([], [(0, "deny")]),
]


@pytest.mark.parametrize(("remove", "insert"), REFUSED)
def test_what_cannot_be_leaves_the_list_as_it_was(remove, insert):
    clf = packets.compile(named(*"abcd"))
    with pytest.raises(ModelError):
        clf.update(remove=remove, insert=insert)
    assert names(clf.rules) == "abcd"


def test_sets_that_no_rule_uses_any_more_are_let_go():
    clf = packets.compile(named(*"ab"), engine="linear")
    for port in range(1500):
        clf.replace(1, Rule({"dport": ValueSet.numbers(port)}))
    assert "over" in repr(clf.rules)
    assert len(clf.rules._sets) < 1100
    assert clf.classify("10.0.0.1", "10.0.0.2", 1, 1499, 6) == 1


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_edited_list_answers_as_one_compiled_anew(data):
    before, more = data.draw(strategies.rule_sets()), data.draw(strategies.rule_sets(4))
    size = len(before)
    remove = data.draw(st.lists(st.integers(0, size - 1), max_size=4)) if size else []
    added = [Rule(r.match, Action.ALLOW, r.alternatives, unknown=r.unknown) for r in more]
    insert = [(data.draw(st.integers(0, size)), r) for r in added]
    clf = packets.compile(before)
    clf.update(remove=remove, insert=insert)
    anew = packets.compile(RuleSet(list(clf.rules)), engine="linear")
    packet = data.draw(strategies.packets(clf.rules))
    arguments = {{"src_ip": "src", "dst_ip": "dst"}.get(name, name): value for name, value in packet.items()}
    assert clf.classify(**arguments) == anew.classify(**arguments)


def test_every_answer_comes_wholly_from_one_version():
    """Two lists whose answers never agree are published in turn while readers ask: a batch is all one or all other."""
    first = [Rule({"dport": ValueSet.numbers((0, 9))}), Rule()]
    clf = packets.compile(first)
    headers = {"dport": np.arange(4096) % 20, "proto": 6}
    answers = {0: np.where(np.arange(4096) % 20 < 10, 0, 1), 1: np.where(np.arange(4096) % 20 < 10, 1, 2)}
    mixed, seen, stop = [], set(), threading.Event()

    def read():
        while not stop.is_set():
            got = clf.classify_batch(headers)
            which = [k for k, wanted in answers.items() if np.array_equal(got, wanted)]
            seen.update(which)
            if not which:
                mixed.append(got)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    turns, deadline = 0, time.monotonic() + 60
    while turns < 150 or (seen != {0, 1} and time.monotonic() < deadline):  # changes are quicker than readers start
        clf.insert(Rule({"dport": ValueSet.numbers(77)}), 0)
        clf.remove(0)
        turns += 1
    stop.set()
    for reader in readers:
        reader.join()
    assert not mixed
    assert seen == {0, 1}


def test_a_version_that_is_held_answers_as_it_did_however_much_changes():
    """So many leaves are written that the tables get new memory several times, and each keeps what it was."""
    size = 300
    ports = np.arange(size)
    clf = packets.compile(RuleSet.from_ranges({"dport": (ports, ports), "proto": (ports * 0 + 6, ports * 0 + 6)}))
    headers = {"dport": ports.astype(np.uint16), "proto": 6}
    random = np.random.default_rng(4)
    order = ports.tolist()  # the port of each rule
    held = []
    for turn in range(300):
        if turn % 50 == 0:
            held.append((clf.snapshot(), np.argsort(order)))
        places = np.sort(random.choice(size, 40, replace=False))
        gone = [order[place] for place in places]
        left = [port for i, port in enumerate(order) if i not in set(places.tolist())]
        at = np.sort(random.integers(0, len(left) + 1, len(gone)))
        clf.update(remove=places)
        columns = np.array(gone)
        clf.update(
            insert=RuleSet.from_ranges({"dport": (columns, columns), "proto": (columns * 0 + 6, columns * 0 + 6)}),
            at=at,
        )
        order = np.insert(np.array(left), at, gone).tolist()
    held.append((clf, np.argsort(order)))
    for version, expected in held:
        assert np.array_equal(version.classify_batch(headers), expected)


def test_what_was_put_in_is_found_again_however_often_slots_are_renumbered():
    random = np.random.default_rng(8)
    history, put = History(named(*"abcd")), list("abcd")  # by slot
    for turn in range(40):
        more = [chr(c) for c in random.integers(ord("A"), ord("Z"), random.integers(0, 4)).tolist()]
        history.put(columns(more) if turn % 3 else [rule(name) for name in more])
        put += more
        slots = random.permutation(len(put))[: random.integers(1, len(put) + 1)].astype(np.int32)
        wanted = [put[slot] for slot in slots.tolist()]
        assert [chr(r.match["dport"].v4[0][0]) for r in history.listed(slots)] == wanted
        if turn % 4 == 3:
            history, put = history.of(slots), wanted


def test_a_table_that_forgets_rules_long_gone_holds_the_same_list():
    """More rules are put in as columns than a changeable table remembers, so that it numbers its slots anew."""
    clf = packets.compile(named(*"abcd"))
    ports = np.arange(1000, 2000)
    for _ in range(80):
        clf.update(insert=RuleSet.from_ranges({"dport": (ports, ports)}), at=np.full(1000, 2))
        clf.update(remove=np.arange(2, 1002))
    clf.update(insert=RuleSet.from_ranges({"dport": (ports[:2], ports[:2])}), at=[0, 4])
    for settled in (False, True):
        assert [clf.classify("10.0.0.1", "10.0.0.2", 1, port, 6) for port in (1000, 97, 98, 99, 100, 1001, 1002)] == [
            *range(6),
            -1,
        ]
        assert [r.match["dport"].v4[0][0] for r in clf.rules] == [1000, 97, 98, 99, 100, 1001]
        assert settled or clf.settle()
