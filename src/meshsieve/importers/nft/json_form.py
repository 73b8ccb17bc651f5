"""``nft -j list ruleset``: the JSON form, as the tables and words that the text form gives.

Every object becomes what the text parser would have made of it, so that rules are read in one place (rules.py). Words
stand where their rule's object stands. Commands (``add``, ``insert``, ``create``, ``flush ruleset``) are read as well.

Source  libnftables-json(5)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object, read_json
from meshsieve.importers.nft.syntax import HOOKS, Chain, Element, NftSet, Table
from meshsieve.importers.nft.words import Word
from meshsieve.policy import SourceFile

_QUIET = ("metainfo", "flowtable", "counter", "quota", "limit", "ct helper", "ct timeout", "ct expectation", "secmark",
          "synproxy")  # fmt: skip
_BARE_VERDICTS = ("accept", "drop", "return", "continue")


def looks_like_json(text: str) -> bool:
    head = text[:4096].lstrip("\ufeff \t\r\n")
    return head.startswith("{") and '"nftables"' in head


def parse_json(source: SourceFile) -> list[Table]:
    """The tables in the order in which they appear.

    raises  PolicyError naming file, line and column
    """
    document = read_json(source.text, source.name)
    items = document.get("nftables") if isinstance(document, Object) else None
    if not isinstance(items, list):
        raise PolicyError("has no list 'nftables'", where=source.name, hint="give the output of: nft -j list ruleset")
    reader = _Reader(source.name)
    for item in items:
        if not isinstance(item, Object) or len(item) != 1:
            raise PolicyError("an entry of 'nftables' must be an object with one key", where=source.name)
        reader.entry(item)
    return list(reader.tables.values())


class _Reader:
    def __init__(self, file: str) -> None:
        self.file = file
        self.tables: dict[tuple[str, str], Table] = {}

    def entry(self, item: Object) -> None:
        ((verb, value),) = item.items()
        if verb == "flush" and isinstance(value, Object) and "ruleset" in value:
            self.tables.clear()
        elif verb in ("add", "insert", "create") and isinstance(value, Object) and len(value) == 1:
            ((kind, inner),) = value.items()
            self.add(kind, inner, item, first=verb == "insert")
        else:
            self.add(verb, value, item, first=False)

    def add(self, kind: str, obj: Any, item: Object, first: bool) -> None:
        if kind in _QUIET:
            return
        if not isinstance(obj, Object):
            raise _error(item, f"'{kind}' must be an object")
        if kind == "table":
            table = self.tables.setdefault(
                (_text(obj, "family"), _text(obj, "name")), Table(_text(obj, "family"), _text(obj, "name"))
            )
            # nft 1.0.6 writes the family where the flag "dormant" should stand.
            table.dormant |= bool(set(map(str, _listed(obj.get("flags")))) - {"owner", "persist"})
            return
        table = self._table(obj)
        if kind == "chain":
            self._chain(table, obj)
        elif kind in ("set", "map"):
            made = table.sets.setdefault(_text(obj, "name"), NftSet())
            made.dynamic |= "dynamic" in _listed(obj.get("flags"))
            made.elements += [_element(e, obj) for e in _listed(obj.get("elem"))]
        elif kind == "element":
            name = _text(obj, "name")
            if name not in table.sets:
                raise _error(obj, f"no set is called '{name}'")
            table.sets[name].elements += [_element(e, obj) for e in _listed(obj.get("elem"))]
        elif kind == "rule":
            name = _text(obj, "chain")
            if name not in table.chains:
                raise _error(obj, f"table {table.family} {table.name} has no chain '{name}'")
            rules = table.chains[name].rules
            rules.insert(0 if first else len(rules), _rule(obj))
            for name in _written_sets(obj):
                table.sets.setdefault(name, NftSet()).dynamic = True
        else:
            raise _error(obj, f"an object of kind '{kind}' is not read")

    def _table(self, obj: Object) -> Table:
        key = _text(obj, "family"), _text(obj, "table")
        if key not in self.tables:
            raise _error(obj, f"there is no table {key[0]} {key[1]}")
        return self.tables[key]

    def _chain(self, table: Table, obj: Object) -> None:
        chain = table.chains.setdefault(_text(obj, "name"), Chain(_text(obj, "name"), obj.line))
        if "hook" not in obj:
            return
        policy, priority = obj.get("policy", "accept"), obj.get("prio", 0)
        if obj["hook"] not in HOOKS or policy not in ("accept", "drop") or type(priority) is not int:
            raise _error(obj, "is no base chain: hook, policy or prio is not known")
        chain.type, chain.hook = str(obj.get("type", "")), str(obj["hook"])
        chain.policy, chain.priority = str(policy), priority


def _error(obj: Object, message: str) -> PolicyError:
    return PolicyError(message, where=obj.where(), hint="give the output of: nft -j list ruleset")


def _text(obj: Object, key: str) -> str:
    value = obj.get(key)
    if type(value) is not str or not value:
        raise _error(obj, f"'{key}' must be text")
    return value


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _element(value: Any, holder: Object) -> Element:
    """An element of a set, or the pair of a map."""
    mapped: Any = None
    if isinstance(value, list) and len(value) == 2:
        value, mapped = value
    words = list(_operand(value, holder))
    key = "".join(words).split("\0.\0") if "\0.\0" in words else ["".join(words)]
    texts = () if mapped is None else tuple(_words(_verdict_or_operand(mapped, holder), holder))
    return Element(tuple(key), texts)


def _verdict_or_operand(value: Any, holder: Object) -> Iterator[str]:
    if isinstance(value, Object) and (verdict := next(iter(value), "")) in (*_BARE_VERDICTS, "jump", "goto"):
        yield from _statement(verdict, value[verdict], holder)
    else:
        yield from _operand(value, holder)


def _rule(obj: Object) -> list[Word]:
    texts: list[str] = []
    for statement in _listed(obj.get("expr")):
        if not isinstance(statement, Object) or len(statement) != 1:
            raise _error(obj, "a statement must be an object with one key")
        ((kind, value),) = statement.items()
        texts += _statement(kind, value, obj)
    words = _words(iter(texts), obj)
    comment = obj.get("comment")
    if isinstance(comment, str):
        place = words[0] if words else Word("", obj.line, 1)
        words += [Word("comment", place.line, place.column), Word(comment, place.line, place.column, quoted=True)]
    if not words:
        raise _error(obj, "an empty rule")
    return words


def _written_sets(rule: Object) -> Iterator[str]:
    """Sets that the rule fills: nft 1.0.6 leaves their flag "dynamic" out of its JSON."""
    for statement in _listed(rule.get("expr")):
        written = statement.get("set") if isinstance(statement, Object) else None
        if isinstance(written, Object) and isinstance(written.get("set"), str):
            yield written["set"].removeprefix("@")


def _words(texts: Iterator[str], holder: Object) -> list[Word]:
    line, column = (int(part) for part in holder.where().rsplit(":", 2)[1:])
    return [Word(text.replace("\0", ""), line, column) for text in texts]


# Statements


def _statement(kind: str, value: Any, holder: Object) -> Iterator[str]:
    if kind in _BARE_VERDICTS:
        yield kind
    elif kind in _STATEMENTS:
        yield from _STATEMENTS[kind](value, holder)
    elif (
        kind in ("log", "notrack", "masquerade", "queue", "tproxy", "synproxy", "fwd", "dup", "flow", "reject")
        or kind == "counter"
    ):
        yield kind
    elif kind == "xt":
        kinds = (value.get("type", "match"), value.get("name", "?")) if isinstance(value, Object) else ("match", "?")
        yield from ("xt", *map(str, kinds))
    else:
        raise _error(holder, f"a statement '{kind}' is not read")


def _match(value: Any, holder: Object) -> Iterator[str]:
    if not isinstance(value, Object):
        raise _error(holder, "'match' must be an object")
    yield from _operand(value.get("left"), holder)
    operator = value.get("op", "==")
    right = value.get("right")
    if operator == "in":  # any of some flags
        if isinstance(right, list):
            yield from _joined(list(right), ",", holder)
            return
    elif operator != "==" or (isinstance(value.get("left"), Object) and "&" in value["left"]):
        yield str(operator)
    elif _is_flags(value.get("left")):
        yield "=="
    if isinstance(right, list):
        yield from _joined(right, ",", holder)
    else:
        yield from _operand(right, holder)


def _is_flags(left: Any) -> bool:
    payload = left.get("payload") if isinstance(left, Object) else None
    return isinstance(payload, Object) and (payload.get("protocol"), payload.get("field")) == ("tcp", "flags")


def _vmap(value: Any, holder: Object) -> Iterator[str]:
    if not isinstance(value, Object):
        raise _error(holder, "'vmap' must be an object")
    yield from _operand(value.get("key"), holder)
    yield "vmap"
    data = value.get("data")
    if isinstance(data, str):
        yield data
        return
    pairs = data.get("set") if isinstance(data, Object) else None
    yield "{"
    for pair in _listed(pairs):
        if not isinstance(pair, list) or len(pair) != 2:
            raise _error(holder, "an entry of a verdict map must be a pair")
        yield from _operand(pair[0], holder)
        yield ":"
        yield from _verdict_or_operand(pair[1], holder)
        yield ","
    yield "}"


def _call(kind: str) -> Callable[[Any, Object], Iterator[str]]:
    def words(value: Any, holder: Object) -> Iterator[str]:
        if not isinstance(value, Object):
            raise _error(holder, f"'{kind}' must be an object")
        yield from (kind, _text(value, "target"))

    return words


def _limit(value: Any, holder: Object) -> Iterator[str]:
    yield from ("limit", "rate")
    if isinstance(value, Object):
        yield f"{value.get('rate', '?')}/{value.get('per', 'second')}"


def _mangle(value: Any, holder: Object) -> Iterator[str]:
    if not isinstance(value, Object):
        raise _error(holder, "'mangle' must be an object")
    yield from _operand(value.get("key"), holder)
    yield "set"
    yield from _operand(value.get("value"), holder)


def _translation(kind: str) -> Callable[[Any, Object], Iterator[str]]:
    def words(value: Any, holder: Object) -> Iterator[str]:
        yield kind
        if isinstance(value, Object):
            address, port = value.get("addr"), value.get("port")
            to = "".join(_operand(address, holder)) if address is not None else ""
            to = f"[{to}]" if ":" in to and port is not None else to
            yield "to"
            yield to + (f":{''.join(_operand(port, holder))}" if port is not None else "")

    return words


def _set_statement(value: Any, holder: Object) -> Iterator[str]:
    operation = value.get("op", "add") if isinstance(value, Object) else "add"
    yield from (str(operation), "@set", "{", "}")


_STATEMENTS: dict[str, Callable[[Any, Object], Iterator[str]]] = {
    "match": _match,
    "vmap": _vmap,
    "jump": _call("jump"),
    "goto": _call("goto"),
    "limit": _limit,
    "mangle": _mangle,
    "snat": _translation("snat"),
    "dnat": _translation("dnat"),
    "redirect": _translation("redirect"),
    "set": _set_statement,
}


# Expressions


def _joined(parts: list[Any], by: str, holder: Object) -> Iterator[str]:
    for number, part in enumerate(parts):
        if number:
            yield by
        yield from _operand(part, holder)


def _operand(value: Any, holder: Object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool):
        yield "exists" if value else "missing"
    elif isinstance(value, int):
        yield str(value)
    elif isinstance(value, list):
        yield from _joined(value, ",", holder)
    elif isinstance(value, Object) and len(value) == 1:
        ((kind, inner),) = value.items()
        yield from _expression(kind, inner, holder)
    else:
        raise _error(holder, f"an expression is not read: {str(value)[:60]}")


def _expression(kind: str, inner: Any, holder: Object) -> Iterator[str]:
    if kind in ("payload", "meta", "ct", "fib", "socket", "osf", "rt", "exthdr", "ipsec", "tcp option"):
        yield from _selector(kind, inner, holder)
    elif kind == "prefix" and isinstance(inner, Object):
        yield f"{''.join(_operand(inner.get('addr'), holder))}/{inner.get('len')}"
    elif kind == "range" and isinstance(inner, list) and len(inner) == 2:
        yield "-".join("".join(_operand(part, holder)) for part in inner)
    elif kind == "set":
        yield "{"
        for part in _listed(inner):
            yield from _operand(part, holder)
            yield ","
        yield "}"
    elif kind == "concat" and isinstance(inner, list):
        yield from _joined(inner, "\0.\0", holder)
    elif kind == "elem" and isinstance(inner, Object):
        yield from _operand(inner.get("val"), holder)
    elif kind in ("&", "|", "^", "<<", ">>") and isinstance(inner, list):
        listed = [Object({"|": part}) if isinstance(part, list) else part for part in inner]
        parts = [list(_operand(part, holder)) for part in listed]
        yield from parts[0]
        for part in parts[1:]:
            yield kind
            # The mask of `tcp flags & (fin | syn) == syn` is one operand.
            yield from ("(", *part, ")") if kind == "&" and "|" in part else part
    else:
        raise _error(holder, f"an expression '{kind}' is not read")


def _selector(kind: str, inner: Any, holder: Object) -> Iterator[str]:
    if not isinstance(inner, Object):
        raise _error(holder, f"'{kind}' must be an object")
    if kind == "payload":
        if "protocol" in inner:
            yield from (str(inner["protocol"]), str(inner.get("field", "")))
        else:  # raw bytes: nobody can interpret them
            yield from ("meta", f"raw-{inner.get('base')}-{inner.get('offset')}-{inner.get('len')}")
    elif kind == "fib":
        yield "fib"
        for number, flag in enumerate(_listed(inner.get("flags"))):
            yield from ((".",) if number else ())
            yield str(flag)
        yield str(inner.get("result", ""))
    elif kind == "ct":
        yield from ("ct", *((str(inner["dir"]),) if "dir" in inner else ()), str(inner.get("key", "")))
    else:
        yield from (kind.split()[0], str(inner.get("key", inner.get("name", ""))))
