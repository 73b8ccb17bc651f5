"""CEL conditions of RBAC policies, evaluated by us and by the real Envoy on loopback.

``python -m tests.differential.cel_expressions --expressions 20000 --seed 1`` is the long form.

How     Two policies for each expression, on two routes of one Envoy: the expression, and its negation. Both refused is
        an error in it, so that errors are told from false. Envoy gets the tree, and we read the same configuration.
        Expressions are of the right types nine times in ten.
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
from collections import Counter
from typing import Any

from meshsieve.authz import from_envoy
from meshsieve.authz.cel import tree
from meshsieve.authz.cel.values import UInt
from meshsieve.errors import PolicyError
from meshsieve.request import Request
from tests.differential.authz import send
from tests.differential.envoy import TYPE, free_ports, listener, running

AT_ONCE = 500
HEADERS = (
    ("x-env", "dev"), ("x-number", "12"), ("x-two", "a"), ("x-two", "b"), ("user-agent", "curl/8"),
    ("referer", "http://r/"), ("x-request-id", "7"), ("content-length", "0"), ("x-accent", "caf\u00e9"),
)  # fmt: skip
CONFIG = {"enable_string_conversion": True, "enable_string_concat": True}


def to_proto(expr: tree.Expr) -> dict[str, Any]:
    """google.api.expr.v1alpha1.Expr in proto JSON."""
    match expr:
        case tree.Literal(value):
            return {"const_expr": _constant(value)}
        case tree.Ident(name):
            return {"ident_expr": {"name": name}}
        case tree.Select(operand, field, test):
            return {"select_expr": {"operand": to_proto(operand), "field": field, "test_only": test}}
        case tree.Call(function, args, target):
            call: dict[str, Any] = {"function": function, "args": [to_proto(a) for a in args]}
            if target is not None:
                call["target"] = to_proto(target)
            return {"call_expr": call}
        case tree.ListExpr(elements):
            return {"list_expr": {"elements": [to_proto(e) for e in elements]}}
        case tree.MapExpr(entries):
            return {"struct_expr": {"entries": [{"map_key": to_proto(k), "value": to_proto(v)} for k, v in entries]}}
        case tree.Comprehension():
            return {
                "comprehension_expr": {
                    "iter_var": expr.variable,
                    "iter_range": to_proto(expr.over),
                    "accu_var": expr.accu,
                    "accu_init": to_proto(expr.start),
                    "loop_condition": to_proto(expr.condition),
                    "loop_step": to_proto(expr.step),
                    "result": to_proto(expr.result),
                }
            }


def _constant(value: Any) -> dict[str, Any]:
    if value is None:
        return {"null_value": None}
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, UInt):
        return {"uint64_value": str(int(value))}
    if isinstance(value, int):
        return {"int64_value": str(value)}
    if isinstance(value, float):
        return {"double_value": value}
    if isinstance(value, bytes):
        return {"bytes_value": base64.b64encode(value).decode()}
    return {"string_value": str(value)}


# --- expressions

Expr = tree.Expr
TEXTS = ("", "a", "b", "ab", "dev", "A", "12", "-3", "1.5", "true", "curl", "\u00e9", "a,b", "/x", "1h", "0x1", " 1")
INTS = (0, 1, -1, 2, 3, 7, -7, 12, 255, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
DOUBLES = (0.0, -0.0, 1.0, 1.5, -2.5, 12.0, 1e300, -1e300, 9007199254740993.0, 0.1, 1e19)
TIMES = (
    "2024-02-29T23:59:59Z",
    "2024-01-01T00:00:00.123456789+01:30",
    "1969-12-31T23:59:59.5Z",
    "2024-13-01T00:00:00Z",
)
DURATIONS = ("0s", "1s", "-1.5s", "90m", "1h30m", "24h", "1ms", "1000000h", "1", "1d", "+1s", "-0.000000001s")
PATTERNS = ("a", "^a", "b$", "[a-c]+", "a.*b", "(?i)A", "\\\\d+", "", "x|b", ".")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "+02:00", "-01:30", "Asia/Kolkata", "Nowhere/At_All", "")
PARTS = (
    "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfYear", "getDayOfWeek", "getHours", "getMinutes",
    "getSeconds", "getMilliseconds",
)  # fmt: skip
KINDS = ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "timestamp", "duration", "null", "type")
STRINGS = (
    "path", "url_path", "host", "scheme", "method", "referer", "useragent", "id", "protocol", "query",
)  # fmt: skip


class Expressions:
    """Random trees of a wanted type."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def of(self, kind: str, depth: int) -> Expr:
        if self.random.random() < 0.08:
            kind = self.random.choice(KINDS)
        if depth <= 0 or self.random.random() < 0.15:
            return self.leaf(kind)
        return getattr(self, f"_{kind}", self.leaf_of(kind))(depth - 1)

    def leaf_of(self, kind: str) -> Any:
        return lambda _: self.leaf(kind)

    def leaf(self, kind: str) -> Expr:
        r = self.random
        match kind:
            case "bool":
                return r.choice((tree.TRUE, tree.FALSE, tree.Select(tree.Ident("connection"), "mtls")))
            case "int":
                return r.choice((tree.Literal(r.choice(INTS)), tree.Select(tree.Ident("request"), "size")))
            case "uint":
                return tree.Literal(UInt(abs(r.choice(INTS))))
            case "double":
                return tree.Literal(r.choice(DOUBLES))
            case "string":
                return r.choice((tree.Literal(r.choice(TEXTS)), self.attribute()))
            case "bytes":
                return tree.Literal(r.choice(TEXTS).encode())
            case "list":
                return tree.ListExpr(())
            case "map":
                return r.choice((tree.MapExpr(()), tree.Select(tree.Ident("request"), "headers")))
            case "timestamp":
                return tree.Call("timestamp", (tree.Literal(r.choice(TIMES)),))
            case "duration":
                return tree.Call("duration", (tree.Literal(r.choice(DURATIONS)),))
            case "type":
                return tree.Ident(
                    r.choice(("int", "uint", "double", "string", "bytes", "bool", "list", "map", "null_type"))
                )
        return tree.Literal(None)

    def attribute(self) -> Expr:
        r = self.random
        if r.random() < 0.5:
            names = ("x-env", "X-Env", "x-number", "x-two", "x-none", "user-agent", "x-accent", "")
            headers = tree.Select(tree.Ident("request"), "headers")
            return tree.Call("_[_]", (headers, tree.Literal(r.choice(names))))
        return tree.Select(tree.Ident("request"), r.choice(STRINGS), False)

    def two(self, kind: str, depth: int) -> tuple[Expr, Expr]:
        return self.of(kind, depth), self.of(kind, depth)

    def _bool(self, depth: int) -> Expr:
        r = self.random
        kind = r.choice(KINDS)
        match r.randrange(10):
            case 0:
                return tree.Call("!_", (self.of("bool", depth),))
            case 1 | 2:
                return tree.Call(r.choice(("_&&_", "_||_")), self.two("bool", depth))
            case 3 | 4:
                return tree.Call(r.choice(("_==_", "_!=_")), self.two(kind, depth))
            case 5 | 6:
                return tree.Call(r.choice(("_<_", "_<=_", "_>_", "_>=_")), self.two(kind, depth))
            case 7:
                holder = self.of(r.choice(("list", "map")), depth)
                return tree.Call("@in", (self.of(r.choice(("string", "int", "uint", "double", "bool")), depth), holder))
            case 8:
                function = r.choice(("contains", "startsWith", "endsWith", "matches", "matches"))
                other = tree.Literal(r.choice(PATTERNS)) if function == "matches" else self.of("string", depth)
                return tree.Call(function, (other,), self.of("string", depth))
        if r.random() < 0.5:
            return tree.Call("bool", (self.of(r.choice(("string", "bool")), depth),))
        return tree.Select(self.of("map", depth), r.choice(("a", "b", "x-env")), True)

    def _number(self, kind: str, depth: int, more: tuple[str, ...]) -> Expr:
        r = self.random
        match r.randrange(4):
            case 0 | 1:
                operators = ("_+_", "_-_", "_*_", "_/_", "_%_")
                return tree.Call(r.choice(operators), self.two(kind, depth))
            case 2:
                return tree.Call(kind, (self.of(r.choice((*more, "int", "uint", "double", "string")), depth),))
        return self.either(kind, depth)

    def _int(self, depth: int) -> Expr:
        r = self.random
        match r.randrange(5):
            case 0:
                # Envoy counts headers of its own with those of the request.
                return tree.Call("size", (self.of(r.choice(("string", "bytes", "list")), depth),))
            case 1:
                zone = (tree.Literal(r.choice(ZONES)),) if r.random() < 0.5 else ()
                return tree.Call(
                    r.choice(PARTS), zone, self.of(r.choice(("timestamp", "timestamp", "duration")), depth)
                )
            case 2:
                return tree.Call("-_", (self.of("int", depth),))
        return self._number("int", depth, ("timestamp",))

    def _uint(self, depth: int) -> Expr:
        return self._number("uint", depth, ())

    def _double(self, depth: int) -> Expr:
        if self.random.random() < 0.2:
            return tree.Call("-_", (self.of("double", depth),))
        return self._number("double", depth, ())

    def _string(self, depth: int) -> Expr:
        r = self.random
        match r.randrange(4):
            case 0:
                return tree.Call("_+_", self.two("string", depth))
            case 1:
                kinds = ("int", "uint", "bool", "string", "bytes", "timestamp", "duration")
                return tree.Call("string", (self.of(r.choice(kinds), depth),))
            case 2:
                return tree.Call("_[_]", (self.of("map", depth), self.of("string", depth)))
        return self.either("string", depth)

    def _bytes(self, depth: int) -> Expr:
        return tree.Call("bytes", (self.of("string", depth),))

    def _list(self, depth: int) -> Expr:
        kind = self.random.choice(KINDS)
        return tree.ListExpr(tuple(self.of(kind, depth) for _ in range(self.random.randint(0, 3))))

    def _map(self, depth: int) -> Expr:
        r = self.random
        key, kind = r.choice(("string", "string", "int", "bool", "uint")), r.choice(KINDS)
        keys = [tree.Literal(r.choice("ab")) if key == "string" else self.leaf(key) for _ in range(r.randint(0, 2))]
        return tree.MapExpr(tuple((k, self.of(kind, depth)) for k in keys))

    def _timestamp(self, depth: int) -> Expr:
        r = self.random
        match r.randrange(3):
            case 0:
                operator = r.choice(("_+_", "_-_"))
                return tree.Call(operator, (self.of("timestamp", depth), self.of("duration", depth)))
            case 1:
                # Beyond the years 1 to 9999 Envoy gives dates of no calendar; nobody writes such times.
                inner = tree.Literal(r.choice(INTS[:10])) if r.random() < 0.3 else self.of("timestamp", depth)
                return tree.Call("timestamp", (inner,))
        return self.either("timestamp", depth)

    def _duration(self, depth: int) -> Expr:
        r = self.random
        match r.randrange(3):
            case 0:
                return tree.Call("_-_", self.two("timestamp", depth))
            case 1:
                return tree.Call(r.choice(("_+_", "_-_")), self.two("duration", depth))
        return self.either("duration", depth)

    def _type(self, depth: int) -> Expr:
        return tree.Call("type", (self.of(self.random.choice(KINDS[:8]), depth),))

    def either(self, kind: str, depth: int) -> Expr:
        if self.random.random() < 0.5:
            return self.leaf(kind)
        return tree.Call("_?_:_", (self.of("bool", depth), *self.two(kind, depth)))


# --- both sides


def policy(expr: Expr) -> dict[str, Any]:
    """RBAC's rules: allowed where the condition holds."""
    anybody = {"permissions": [{"any": True}], "principals": [{"any": True}]}
    return {
        "action": "ALLOW",
        "policies": {"p": {**anybody, "condition": to_proto(expr), "cel_config": CONFIG}},
    }


def configuration(port: int, expressions: list[Expr]) -> dict[str, Any]:
    routes = [
        {
            "match": {"path": f"/{number}"},
            "direct_response": {"status": 200},
            "typed_per_filter_config": {
                "rbac": {"@type": TYPE + "http.rbac.v3.RBACPerRoute", "rbac": {"rules": policy(expr)}}
            },
        }
        for number, expr in enumerate(expressions)
    ]
    out = listener("cel", "127.0.0.1", port, routes)
    filters = out["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    filters.insert(0, {"name": "rbac", "typed_config": {"@type": TYPE + "http.rbac.v3.RBAC"}})
    return out


def envoy_answers(expressions: list[Expr]) -> list[bool]:
    (port,) = free_ports(1)
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS)
    texts = [f"GET /{n}?q=1 HTTP/1.1\r\nhost: h:8080\r\n{lines}\r\n".encode() for n in range(len(expressions))]
    with running([configuration(port, expressions)], [], port):
        return [status == 200 for status in send("127.0.0.1", "127.0.0.1", port, texts)]


def our_answer(number: int, expr: Expr) -> bool:
    config = {"@type": TYPE + "http.rbac.v3.RBAC", "rules": policy(expr)}
    request = Request(
        authority="h:8080", path=f"/{number}?q=1", headers=HEADERS, source_ip="127.0.0.1", destination_ip="127.0.0.1"
    )
    return from_envoy(config).decide(request).allowed


def compare(seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """How often ``count`` random expressions were true, false, an error; and every difference in words."""
    draw = Expressions(seed)
    expressions = []
    while len(expressions) < 2 * count:
        expr = draw.of("bool", draw.random.randint(1, 5))
        try:
            our_answer(0, expr)
        except PolicyError:
            continue  # a literal that no function takes, say
        expressions += [expr, tree.Call("!_", (expr,))]
    theirs = envoy_answers(expressions)
    tally: Counter[str] = Counter()
    wrong = []
    for n in range(0, len(expressions), 2):
        ours = (our_answer(n, expressions[n]), our_answer(n + 1, expressions[n + 1]))
        tally[_word(*ours)] += 1
        if ours != (theirs[n], theirs[n + 1]):
            wrong.append(f"Envoy {_word(theirs[n], theirs[n + 1])}, ours {_word(*ours)}: {written(expressions[n])}")
    return tally, wrong


def _word(holds: bool, negation_holds: bool) -> str:
    return "true" if holds else "false" if negation_holds else "error"


def written(expr: Expr) -> str:
    """Near enough to CEL for a person."""
    match expr:
        case tree.Literal(value):
            return f"{value!r}u" if isinstance(value, UInt) else repr(value)
        case tree.Ident(name):
            return name
        case tree.Select(operand, field, test):
            return f"has({written(operand)}.{field})" if test else f"{written(operand)}.{field}"
        case tree.Call(function, args, target):
            before = "" if target is None else written(target) + "."
            return f"{before}{function}({', '.join(map(written, args))})"
        case tree.ListExpr(elements):
            return f"[{', '.join(map(written, elements))}]"
        case tree.MapExpr(entries):
            return "{" + ", ".join(f"{written(k)}: {written(v)}" for k, v in entries) + "}"
    return str(expr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.differential.cel_expressions", description=__doc__)
    parser.add_argument("--expressions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    total: Counter[str] = Counter()
    different = 0
    for step in range(-(-options.expressions // AT_ONCE)):
        tally, wrong = compare(options.seed + step, AT_ONCE)
        total += tally
        different += len(wrong)
        print(*wrong[:40], sep="\n", end="\n" if wrong else "")
    print(f"{sum(total.values())} expressions, {different} different; {dict(total)}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
