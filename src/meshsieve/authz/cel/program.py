"""An expression as rules use it: compiled once, checked for what it names, asked for each request."""

from __future__ import annotations

from dataclasses import dataclass

from meshsieve.authz.cel import tree, values
from meshsieve.authz.cel.attributes import ATTRIBUTES, root
from meshsieve.authz.cel.dialect import OWN, Dialect
from meshsieve.authz.cel.evaluate import MAX_NODES, OPERATORS, Evaluator
from meshsieve.authz.cel.parse import parse
from meshsieve.authz.cel.values import EvaluationError
from meshsieve.authz.facts import Facts
from meshsieve.errors import ModelError

# Operators and the number of their operands.
_ARITY = {**dict.fromkeys(OPERATORS, 2), "_&&_": 2, "_||_": 2, "_?_:_": 3, "!_": 1, "-_": 1, "@not_strictly_false": 1}


@dataclass(frozen=True, slots=True)
class CelProgram:
    """``text``: as written, or a short form of Envoy's tree."""

    text: str
    expr: tree.Expr
    max_nodes: int = MAX_NODES
    dialect: Dialect = OWN

    def holds(self, facts: Facts) -> bool | None:
        """Its value; None where it has none or is no bool."""
        try:
            value = Evaluator(lambda name: root(facts, name), self.max_nodes, self.dialect).value(self.expr)
        except (EvaluationError, RecursionError):
            return None
        return value if isinstance(value, bool) else None


def compile_expression(
    source: str | tree.Expr, *, text: str = "", max_nodes: int = MAX_NODES, dialect: Dialect = OWN
) -> CelProgram:
    """An expression from its text or its tree.

    raises  ModelError for what is no expression, for names and functions that do not exist or that the dialect lacks,
            and for a literal pattern of ``matches`` that RE2 refuses
    """
    expr = parse(source) if isinstance(source, str) else source
    try:
        _Check(dialect).expression(expr, frozenset())
    except RecursionError:
        raise ModelError("not an expression: nested too deep") from None
    return CelProgram(source if isinstance(source, str) else text or "(tree)", expr, max_nodes, dialect)


@dataclass(frozen=True, slots=True)
class _Check:
    """Whether every name and function of an expression exists."""

    dialect: Dialect

    def expression(self, expr: tree.Expr, bound: frozenset[str]) -> None:
        match expr:
            case tree.Ident(name):
                if name not in bound and name not in ATTRIBUTES and name not in values.TYPES:
                    raise ModelError(f"there is no attribute {name!r}; there are: {', '.join(ATTRIBUTES)}")
            case tree.Select(tree.Ident(name) as operand, field) if name not in bound:
                self.expression(operand, bound)
                fields = ATTRIBUTES.get(name)
                if fields is not None and field not in fields:
                    raise ModelError(f"{name}.{field} is not known here; {name} has: {', '.join(fields)}")
            case tree.Select(operand):
                self.expression(operand, bound)
            case tree.Call():
                self.call(expr)
                for part in (*expr.args, *([] if expr.target is None else [expr.target])):
                    self.expression(part, bound)
            case tree.ListExpr(elements):
                for element in elements:
                    self.expression(element, bound)
            case tree.MapExpr(entries):
                for key, value in entries:
                    self.expression(key, bound)
                    self.expression(value, bound)
            case tree.Comprehension():
                if not self.dialect.macros:
                    raise ModelError("macros such as all and exists are switched off: Envoy refuses this configuration")
                self.expression(expr.over, bound)
                self.expression(expr.start, bound)
                inner = bound | {expr.variable, expr.accu}
                for part in (expr.condition, expr.step, expr.result):
                    self.expression(part, inner)
            case tree.Literal():
                pass

    def call(self, call: tree.Call) -> None:
        count = len(call.args) + (call.target is not None)
        if call.function in _ARITY:
            wanted: tuple[int, ...] = (_ARITY[call.function],)
        elif call.function in values.FUNCTIONS:
            wanted = values.FUNCTIONS[call.function][0]
        else:
            raise ModelError(f"there is no function {call.function!r}; there are: {', '.join(values.FUNCTIONS)}")
        if count not in wanted:
            raise ModelError(f"{call.function} takes {' or '.join(map(str, wanted))} arguments, not {count}")
        if call.function == "string" and not self.dialect.string_conversion:
            raise ModelError("string() is switched off: Envoy wants cel_config.enable_string_conversion for it")
        pattern = (*call.args, None)[-2] if call.function == "matches" else None
        if isinstance(pattern, tree.Literal) and isinstance(pattern.value, str):
            try:
                values.compiled(pattern.value)
            except EvaluationError as error:
                raise ModelError(f"matches: {error}") from None
