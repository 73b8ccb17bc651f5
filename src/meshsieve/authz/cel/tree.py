"""The tree of an expression: the shape of google.api.expr.v1alpha1.Expr, in which Envoy's configuration carries it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from meshsieve.authz.cel.values import UInt, Value
from meshsieve.routes.proto import Proto

MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Literal:
    value: Value


@dataclass(frozen=True, slots=True)
class Ident:
    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """``operand.field``; with ``test``, ``has(operand.field)``."""

    operand: Expr
    field: str
    test: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """``target.function(args)``, or without a target ``function(args)``; operators are functions such as ``_&&_``."""

    function: str
    args: tuple[Expr, ...]
    target: Expr | None = None


@dataclass(frozen=True, slots=True)
class ListExpr:
    elements: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class MapExpr:
    entries: tuple[tuple[Expr, Expr], ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What a macro stands for: for each element of ``over``, while ``condition`` holds, ``accu`` becomes ``step``."""

    variable: str
    over: Expr
    accu: str
    start: Expr
    condition: Expr
    step: Expr
    result: Expr


Expr = Literal | Ident | Select | Call | ListExpr | MapExpr | Comprehension
TRUE, FALSE = Literal(True), Literal(False)
ACCU = "__result__"


def macro(name: str, over: Expr, variable: str, body: Expr, body2: Expr | None = None) -> Comprehension:
    """``over.all(variable, body)`` and its like, as cel-spec expands them."""
    accu = Ident(ACCU)
    start: Expr
    step: Expr
    condition: Expr = TRUE
    result: Expr = accu
    match name:
        case "all":
            start, step = TRUE, Call("_&&_", (accu, body))
            condition = Call("@not_strictly_false", (accu,))
        case "exists":
            start, step = FALSE, Call("_||_", (accu, body))
            condition = Call("@not_strictly_false", (Call("!_", (accu,)),))
        case "exists_one":
            start, step = Literal(0), Call("_?_:_", (body, Call("_+_", (accu, Literal(1))), accu))
            result = Call("_==_", (accu, Literal(1)))
        case "filter":
            one = ListExpr((Ident(variable),))
            start, step = ListExpr(()), Call("_?_:_", (body, Call("_+_", (accu, one)), accu))
        case _:
            start, step = ListExpr(()), Call("_+_", (accu, ListExpr((body if body2 is None else body2,))))
            if body2 is not None:
                step = Call("_?_:_", (body, step, accu))
    return Comprehension(variable, over, ACCU, start, condition, step, result)


def from_envoy(node: Proto, depth: int = 0) -> Expr:
    """A google.api.expr.v1alpha1.Expr in proto JSON.

    raises  PolicyError
    """
    if depth > MAX_DEPTH:
        raise node.error(f"nested deeper than {MAX_DEPTH}")

    def inner(parent: Proto, key: str) -> Expr:
        message = parent.message(key)
        if message is None:
            raise parent.error("is missing", key)
        return from_envoy(message, depth + 1)

    kinds = ("const_expr", "ident_expr", "select_expr", "call_expr", "list_expr", "struct_expr", "comprehension_expr")
    kind = node.only("id", *kinds).one_of(*kinds, required=True)
    message = node.message(kind or "")
    assert message is not None
    match kind:
        case "const_expr":
            return Literal(_constant(message))
        case "ident_expr":
            return Ident(message.only("name").string("name"))
        case "select_expr":
            message.only("operand", "field", "test_only")
            return Select(inner(message, "operand"), message.string("field"), message.flag("test_only"))
        case "call_expr":
            message.only("target", "function", "args")
            target = inner(message, "target") if message.has("target") else None
            args = tuple(from_envoy(a, depth + 1) for a in message.messages("args"))
            return Call(message.string("function"), args, target)
        case "list_expr":
            return ListExpr(tuple(from_envoy(e, depth + 1) for e in message.only("elements").messages("elements")))
        case "struct_expr":
            entries = []
            for entry in message.only("entries").messages("entries"):
                entry.only("id", "map_key", "value")
                entries.append((inner(entry, "map_key"), inner(entry, "value")))
            return MapExpr(tuple(entries))
    message.only("iter_var", "iter_range", "accu_var", "accu_init", "loop_condition", "loop_step", "result")
    parts = (inner(message, key) for key in ("accu_init", "loop_condition", "loop_step", "result"))
    return Comprehension(message.string("iter_var"), inner(message, "iter_range"), message.string("accu_var"), *parts)


def _constant(node: Proto) -> Value:
    kinds = (
        "null_value", "bool_value", "int64_value", "uint64_value", "double_value", "string_value", "bytes_value",
    )  # fmt: skip
    kind = next((k for k in kinds if node.spelled(k) in node.only(*kinds).data), None)
    match kind:
        case "null_value":
            return None
        case "bool_value":
            return node.flag("bool_value")
        case "int64_value":
            return node.whole("int64_value", -(2**63), 2**63 - 1, 0) or 0
        case "uint64_value":
            return UInt(node.whole("uint64_value", 0, 2**64 - 1, 0) or 0)
        case "double_value":
            value = node.value("double_value")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise node.error(f"expected a number, got {value!r}", "double_value")
            return float(value)
        case "string_value":
            return node.string("string_value")
        case "bytes_value":
            try:
                return base64.b64decode(node.string("bytes_value"), validate=True)
            except (binascii.Error, ValueError):
                raise node.error("is not base64", "bytes_value") from None
    raise node.error("holds no value")
