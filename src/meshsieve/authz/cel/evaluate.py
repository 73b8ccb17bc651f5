"""The value of an expression, within a budget of nodes.

``&&`` and ``||`` do not mind an error on one side where the other side decides: ``false && error`` is false. Every
other error ends the evaluation: the expression has no value.
Cost    A node is one unit; an operator or function that walks its operands costs their elements and a unit for every
        256 characters as well, a pattern that is worked out 1,000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshsieve.authz.cel import values
from meshsieve.authz.cel.dialect import OWN, Dialect
from meshsieve.authz.cel.tree import Call, Comprehension, Expr, Ident, ListExpr, Literal, MapExpr, Select
from meshsieve.authz.cel.values import EvaluationError, FinalError, Value

MAX_NODES = 10_000
_PATTERN_NODES = 1000  # compiling may take RE2 milliseconds
OPERATORS: dict[str, Callable[[Value, Value], Value]] = {
    "_==_": values.equal,
    "_!=_": lambda a, b: not values.equal(a, b),
    "_<_": values.less,
    "_>_": lambda a, b: values.less(b, a),
    "_<=_": lambda a, b: values.less(a, b) or values.equal(a, b),
    "_>=_": lambda a, b: values.less(b, a) or values.equal(a, b),
    "_+_": values.add,
    "_-_": values.subtract,
    "_*_": lambda a, b: values.arithmetic("_*_", a, b),
    "_/_": lambda a, b: values.arithmetic("_/_", a, b),
    "_%_": lambda a, b: values.arithmetic("_%_", a, b),
    "_[_]": values.index,
    "@in": values.contained,
}


class Evaluator:
    """One evaluation. ``names``: values of identifiers, each made when first asked for; None is CEL's null.

    raises  EvaluationError from ``value`` where the expression has none
    """

    def __init__(self, names: Callable[[str], Value], max_nodes: int = MAX_NODES, dialect: Dialect = OWN) -> None:
        self.names = names
        self.left = max_nodes
        self.dialect = dialect
        self.bound: dict[str, Value] = {}

    def value(self, expr: Expr) -> Value:
        self.spend(1)
        match expr:
            case Literal(value):
                return value
            case Ident(name):
                return self.bound[name] if name in self.bound else self.names(name)
            case Select():
                return self.select(expr)
            case ListExpr(elements):
                return [self.value(element) for element in elements]
            case MapExpr(entries):
                return self.map(entries)
            case Comprehension():
                return self.comprehension(expr)
            case Call():
                return self.call(expr)

    def spend(self, nodes: int) -> None:
        self.left -= nodes
        if self.left < 0:
            raise EvaluationError("the expression takes too many steps")

    def select(self, expr: Select) -> Value:
        holder = self.value(expr.operand)
        if not isinstance(holder, Mapping):
            raise EvaluationError(f"a {values.kind(holder)} has no fields")
        if expr.test:
            return expr.field in holder and (holder[expr.field] != {} or not isinstance(holder, values.Message))
        if expr.field not in holder:
            raise EvaluationError(f"there is no {expr.field}")
        return holder[expr.field]

    def map(self, entries: tuple[tuple[Expr, Expr], ...]) -> Value:
        found = self.all_of(tuple(part for entry in entries for part in entry))
        out: dict[Value, Value] = {}
        for key, value in zip(found[::2], found[1::2], strict=True):
            if values.kind(key) not in ("int", "uint", "bool", "string"):
                raise self.final(f"a {values.kind(key)} is no key")
            if key in out:
                raise self.final("a key twice")
            out[key] = value
        return out

    def comprehension(self, expr: Comprehension) -> Value:
        over = self.value(expr.over)
        if not isinstance(over, list | tuple | Mapping):
            raise EvaluationError(f"a {values.kind(over)} has no elements")
        outer = {name: self.bound[name] for name in (expr.variable, expr.accu) if name in self.bound}
        accu: Value = self.value(expr.start)
        try:
            for element in over:
                self.bound[expr.accu] = accu
                self.bound[expr.variable] = element
                if self.value(expr.condition) is not True:
                    break
                accu = self.attempt(expr.step)
                if isinstance(accu, list):
                    self.spend(len(accu))
            self.bound[expr.accu] = accu
            return self.value(expr.result) if not isinstance(accu, EvaluationError) else _raise(accu)
        finally:
            for name in (expr.variable, expr.accu):
                self.bound.pop(name, None)
            self.bound.update(outer)

    def attempt(self, expr: Expr) -> Value:
        """The value, or the error itself: ``all`` and ``exists`` go on looking for an element that decides."""
        try:
            return self.value(expr)
        except FinalError:
            raise
        except EvaluationError as error:
            if self.left < 0:
                raise
            return error

    def all_of(self, args: tuple[Expr, ...]) -> list[Value]:
        """Every argument is worked out, for the sake of final errors, before an error of one counts."""
        return [_checked(value) for value in [self.attempt(arg) for arg in args]]

    def call(self, expr: Call) -> Value:
        args = expr.args if expr.target is None else (expr.target, *expr.args)
        match expr.function:
            case "_&&_" | "_||_":
                return self.logic(expr.function == "_||_", args)
            case "_?_:_":
                chosen = self.boolean(args[0])
                return self.value(args[1] if chosen else args[2])
            case "!_":
                return not self.boolean(args[0])
            case "-_":
                return values.negate(self.value(args[0]))
            case "@not_strictly_false":
                return self.attempt(args[0]) is not False
        if expr.function in OPERATORS:
            a, b = self.all_of(args)
            self.spend(_weight(a) + _weight(b))
            if expr.function == "_+_":
                self.concatenable(a)
            return OPERATORS[expr.function](a, b)
        if expr.function == "matches" and isinstance(args[1], Literal):
            return self.matches(args[0], args[1].value)
        counts, function = values.FUNCTIONS[expr.function]
        assert len(args) in counts
        found = self.all_of(args)
        self.spend(sum(map(_weight, found)))
        if expr.function == "matches":
            self.spend(_PATTERN_NODES)
        return function(*found)

    def matches(self, text: Expr, pattern: Value) -> bool:
        try:
            found = _checked(self.value(text))
            self.spend(_weight(found))
            return values.matches(found, pattern)
        except EvaluationError as error:
            raise self.final(str(error)) from None

    def final(self, why: str) -> EvaluationError:
        return values.FinalError(why) if self.dialect.final_errors else EvaluationError(why)

    def concatenable(self, value: Value) -> None:
        texts, lists = self.dialect.text_concatenation, self.dialect.list_concatenation
        if (not texts and isinstance(value, str | bytes)) or (not lists and isinstance(value, list | tuple)):
            raise EvaluationError("concatenation is switched off")

    def boolean(self, expr: Expr) -> bool:
        value = _checked(self.value(expr))
        if not isinstance(value, bool):
            raise EvaluationError(f"a bool is needed, not {values.kind(value)}")
        return value

    def logic(self, decisive: bool, args: tuple[Expr, ...]) -> bool:
        """AND (decisive False) or OR (decisive True), in either order about errors."""
        problem: EvaluationError | None = None
        for arg in args:
            try:
                if self.boolean(arg) is decisive:
                    return decisive
            except EvaluationError as error:
                if self.left < 0 or isinstance(error, FinalError):
                    raise
                problem = error
        if problem is not None:
            raise problem
        return not decisive


def _checked(value: Value) -> Value:
    """An error that a comprehension carries as its intermediate value counts when it is used."""
    return _raise(value) if isinstance(value, EvaluationError) else value


def _raise(error: EvaluationError) -> Value:
    raise error


def _weight(value: Value) -> int:
    """Extra cost of what walks its operands."""
    if isinstance(value, str | bytes):
        return len(value) >> 8
    if isinstance(value, list | tuple):
        return len(value) + sum(map(_weight, value))
    return len(value) + sum(map(_weight, value.values())) if isinstance(value, Mapping) else 0
