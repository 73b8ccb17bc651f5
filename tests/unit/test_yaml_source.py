"""The strict YAML reader: what it reads, what it refuses and where it says so."""

from __future__ import annotations

import pytest

from meshsieve.errors import PolicyError
from meshsieve.importers import yaml_source
from meshsieve.importers.yaml_source import load_documents

READS = [
    ("integers", "7", 7),
    ("hexadecimal", "0x1F", 31),
    ("a negative number", "-3", -3),
    ("floats", "1.5e1", 15.0),
    ("a time is text, not base 60", "12:30", "12:30"),
    ("a date is text", "2024-01-01", "2024-01-01"),
    ("yes is a boolean, as in Kubernetes", "yes", True),
    ("quoted digits stay text", "'017'", "017"),
    ("an explicit !!str is text", "!!str 7", "7"),
    ("an IPv6 address is text", "::1", "::1"),
    ("a whole number as a key is text, as in Kubernetes", "8080: a", {"8080": "a"}),
    ("json is yaml", '{"a": [1, true, "x"]}', {"a": [1, True, "x"]}),
]


@pytest.mark.parametrize(("what", "text", "value"), READS, ids=[row[0] for row in READS])
def test_reads(what: str, text: str, value: object) -> None:
    assert load_documents(text, "f.yaml") == [value]


REFUSES = [
    ("a duplicate key", "a: 1\na: 2\n", "f.yaml:2:1: duplicate key 'a', first on line 1"),
    ("a leading zero", "a: 017", "f.yaml:1:4: 017 has a leading zero"),
    ("a Python tag", "!!python/object/apply:os.system ['x']", "f.yaml:1:1: tag"),
    ("an unfinished alias", "a: &a [*a]", "f.yaml:1:8: alias *a"),
    ("a merge key", "a: &a {x: 1}\nb: {<<: *a}", "merge keys"),
    ("a key that is no text", "1.5: a", "key '1.5' is not text"),
    ("not a number", "a: .nan", "not a finite number"),
    ("an infinite number", "a: 1e999", "too large"),
    ("a huge integer", "a: " + "9" * 5000, "more than 20 digits"),
    ("a tab as indentation", "a:\n\t- b", "f.yaml:2:1: not valid YAML"),
    ("a NUL character", '"a\\0b"', "NUL"),
    ("a lone surrogate", '{"a": "\\ud800"}', "not valid YAML"),
]


@pytest.mark.parametrize(("what", "text", "message"), REFUSES, ids=[row[0] for row in REFUSES])
def test_refuses(what: str, text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        load_documents(text, "f.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("f.yaml:1:") or str(caught.value).startswith("f.yaml:2:")


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("limit", "value", "just_inside", "just_outside"),
    [
        ("MAX_DEPTH", 5, nested(6), nested(7)),
        ("MAX_NODES", 4, "[1, 2, 3]", "[1, 2, 3, 4]"),
        ("MAX_DOCUMENTS", 2, "a\n---\nb", "a\n---\nb\n---\nc"),
        ("MAX_SCALAR", 4, "abcd", "abcde"),
        ("MAX_BYTES", 5, "a: bc", "a: bcd"),
    ],
)
def test_limits_hold_at_their_edge(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int, just_inside: str, just_outside: str
) -> None:
    monkeypatch.setattr(yaml_source, limit, value)
    load_documents(just_inside, "f.yaml")
    with pytest.raises(PolicyError):
        load_documents(just_outside, "f.yaml")


def test_aliases_count_as_often_as_they_stand() -> None:
    bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    with pytest.raises(PolicyError, match="after aliases"):
        load_documents(bomb, "f.yaml")


def test_positions_of_keys_and_items() -> None:
    (document,) = load_documents("a:\n  - b: 1\n  - c\n", "f.yaml")
    assert document.where("a") == "f.yaml:1:1"
    assert document["a"].where(1) == "f.yaml:3:5"
    assert document["a"][0].where("b") == "f.yaml:2:5"


def test_empty_documents_are_left_out_and_a_byte_order_mark_is_accepted_once() -> None:
    assert load_documents("\ufeff---\n---\na: 1\n---\n", "f.yaml") == [{"a": 1}]
