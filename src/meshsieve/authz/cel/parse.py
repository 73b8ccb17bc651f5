"""CEL text to its tree: a lexer and a parser by recursive descent, with cel-spec's precedence.

    expr: or ['?' or ':' expr]      or: and {'||' and}      and: relation {'&&' relation}
    relation: sum {relop sum}       sum: product {('+'|'-') product}      product: unary {('*'|'/'|'%') unary}
    unary: {'!'} | {'-'} member     member: primary {'.' name ['(' args ')'] | '[' expr ']'}

Limits  64 KiB of text, 64 levels of nesting.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from meshsieve.authz.cel.tree import (
    MAX_DEPTH,
    Call,
    Expr,
    Ident,
    ListExpr,
    Literal,
    MapExpr,
    Select,
    macro,
)
from meshsieve.authz.cel.values import UInt
from meshsieve.errors import ModelError

MAX_BYTES = 64 * 1024
RESERVED = frozenset({
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
})  # fmt: skip
MACROS = {"all": (2,), "exists": (2,), "exists_one": (2,), "filter": (2,), "map": (2, 3)}
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f]+|//[^\n]*)
    |(?P<text>(?:[rR][bB]?|[bB][rR]?)?(?:\"\"\"|'''|"|'))
    |(?P<double>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<int>0x[0-9a-fA-F]+[uU]?|[0-9]+[uU]?)
    |(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.ASCII,
)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|X([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))"
)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int
    value: str | bytes = ""


def parse(text: str) -> Expr:
    """raises  ModelError saying what is wrong and at which character"""
    if len(text.encode("utf-8", "surrogateescape")) > MAX_BYTES:
        raise ModelError(f"the expression is longer than {MAX_BYTES} bytes")
    return _Parser(_tokens(text)).whole()


def _error(message: str, at: int) -> ModelError:
    return ModelError(f"not an expression: {message} at character {at + 1}")


def _tokens(text: str) -> list[_Token]:
    out, at = [], 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _error(f"unexpected {text[at]!r}", at)
        kind = found.lastgroup or ""
        if kind == "text":
            value, end = _quoted(text, found.group(), at, found.end())
            out.append(_Token("text", text[at:end], at, value))
            at = end
            continue
        if kind != "space":
            out.append(_Token(kind, found.group(), at))
        at = found.end()
    return [*out, _Token("end", "the end", len(text))]


def _quoted(text: str, opening: str, at: int, begin: int) -> tuple[str | bytes, int]:
    quote = opening.lstrip("rRbB")
    prefix = opening.removesuffix(quote).lower()
    end = begin
    while not text.startswith(quote, end):
        if end >= len(text) or (len(quote) == 1 and text[end] == "\n"):
            raise _error("a text that is not closed", at)
        end += 2 if text[end] == "\\" and "r" not in prefix else 1
    body = text[begin:end]
    binary = "b" in prefix
    if "r" not in prefix:
        body = _ESCAPE.sub(lambda m: _unescaped(m, at + 1, binary), body)
    if not binary:
        return body, end + len(quote)
    # Escapes of bytes literals were mapped to surrogates, so that they stay bytes; other characters are UTF-8.
    return body.encode("utf-8", "surrogateescape"), end + len(quote)


def _unescaped(found: re.Match[str], at: int, binary: bool) -> str:
    *numbers, octal, plain = found.groups()
    code = next((int(n, 16) for n in numbers if n), None)
    code = int(octal, 8) if octal else code
    if code is None:
        if plain in _ESCAPES:
            return _ESCAPES[plain]
        if plain in "\\?\"'`":
            return str(plain)
        raise _error(f"the escape \\{plain} does not exist", at)
    is_byte = found.group(3) is None and found.group(4) is None
    if binary and not is_byte:
        raise _error("a bytes literal holds bytes, not code points", at)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise _error("an escape that is no character", at)
    return chr(0xDC00 + code) if binary and code >= 0x80 else chr(code)


Operand = Callable[[], Expr]


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    @property
    def here(self) -> _Token:
        return self.tokens[self.at]

    def takes(self, *texts: str) -> str | None:
        token = self.here
        if token.text in texts and (token.kind == "op" or (token.kind == "name" and token.text == "in")):
            self.at += 1
            return token.text
        return None

    def expect(self, text: str) -> None:
        if self.takes(text) is None:
            raise _error(f"expected {text!r}, found {self.here.text!r}", self.here.at)

    def whole(self) -> Expr:
        out = self.expression()
        if self.here.kind != "end":
            raise _error(f"unexpected {self.here.text!r}", self.here.at)
        return out

    def expression(self) -> Expr:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _error(f"nested deeper than {MAX_DEPTH}", self.here.at)
        out = self.disjunction()
        if self.takes("?"):
            then = self.disjunction()
            self.expect(":")
            out = Call("_?_:_", (out, then, self.expression()))
        self.depth -= 1
        return out

    def disjunction(self) -> Expr:
        terms = [self.conjunction()]
        while self.takes("||"):
            terms.append(self.conjunction())
        return _balanced("_||_", terms)

    def conjunction(self) -> Expr:
        terms = [self.relation()]
        while self.takes("&&"):
            terms.append(self.relation())
        return _balanced("_&&_", terms)

    def relation(self) -> Expr:
        return self.left("_{}_", self.sum, "<", "<=", ">", ">=", "==", "!=", "in")

    def sum(self) -> Expr:
        return self.left("_{}_", self.product, "+", "-")

    def product(self) -> Expr:
        return self.left("_{}_", self.unary, "*", "/", "%")

    def left(self, name: str, operand: Operand, *operators: str) -> Expr:
        out = operand()
        count = 0
        while operator := self.takes(*operators):
            count += 1
            if count > MAX_DEPTH:
                raise _error(f"a chain of more than {MAX_DEPTH} operators", self.here.at)
            function = "@in" if operator == "in" else name.format(operator)
            out = Call(function, (out, operand()))
        return out

    def unary(self) -> Expr:
        signs = []
        while sign := self.takes("!", "-"):
            signs.append(sign)
            if len(signs) > MAX_DEPTH or sign != signs[0]:
                raise _error("a mix or chain of signs", self.here.at)
        token = self.here
        if signs == ["-"] and token.kind in ("int", "double"):
            self.at += 1
            return self.member(Literal(_number(token, "-")))
        out = self.member(self.primary())
        for sign in signs:
            out = Call("!_" if sign == "!" else "-_", (out,))
        return out

    def member(self, out: Expr) -> Expr:
        count = 0
        while True:
            count += 1
            if count > MAX_DEPTH:
                raise _error(f"a chain of more than {MAX_DEPTH} selections", self.here.at)
            if self.takes("."):
                name = self.name()
                out = self.method(out, name) if self.takes("(") else Select(out, name)
            elif self.takes("["):
                out = Call("_[_]", (out, self.expression()))
                self.expect("]")
            else:
                return out

    def name(self) -> str:
        token = self.here
        if token.kind != "name" or token.text in ("in", "true", "false", "null"):
            raise _error(f"expected a name, found {token.text!r}", token.at)
        self.at += 1
        return token.text

    def method(self, target: Expr, name: str) -> Expr:
        at = self.here.at
        args = self.arguments(")")
        if name in MACROS and len(args) in MACROS[name]:
            variable = args[0]
            if not isinstance(variable, Ident):
                raise _error(f"{name} needs the name of a variable first", at)
            return macro(name, target, variable.name, *args[1:])
        return Call(name, args, target)

    def arguments(self, closing: str) -> tuple[Expr, ...]:
        out: list[Expr] = []
        while not self.takes(closing):
            out.append(self.expression())
            if not self.takes(","):
                self.expect(closing)
                break
        return tuple(out)

    def primary(self) -> Expr:
        token = self.here
        self.at += 1
        match token.kind:
            case "int" | "double":
                return Literal(_number(token, ""))
            case "text":
                return Literal(token.value)
            case "name":
                return self.named(token)
        match token.text:
            case "(":
                out = self.expression()
                self.expect(")")
                return out
            case "[":
                return ListExpr(self.arguments("]"))
            case "{":
                return self.map()
        raise _error(f"unexpected {token.text!r}", token.at)

    def named(self, token: _Token) -> Expr:
        if token.text in ("true", "false", "null"):
            return Literal({"true": True, "false": False, "null": None}[token.text])
        if token.text in RESERVED or token.text == "in":
            raise _error(f"{token.text!r} is a reserved word", token.at)
        if not self.takes("("):
            return Ident(token.text)
        args = self.arguments(")")
        if token.text != "has":
            return Call(token.text, args)
        selected = args[0] if len(args) == 1 else None
        if not isinstance(selected, Select):
            raise _error("has takes one field, such as has(a.b)", token.at)
        return Select(selected.operand, selected.field, test=True)

    def map(self) -> Expr:
        entries: list[tuple[Expr, Expr]] = []
        while not self.takes("}"):
            key = self.expression()
            self.expect(":")
            entries.append((key, self.expression()))
            if not self.takes(","):
                self.expect("}")
                break
        return MapExpr(tuple(entries))


def _balanced(function: str, terms: list[Expr]) -> Expr:
    """A long chain as a flat tree, so that its depth is the logarithm of its length."""
    while len(terms) > 1:
        pairs = [tuple(terms[i : i + 2]) for i in range(0, len(terms), 2)]
        terms = [Call(function, pair) if len(pair) == 2 else pair[0] for pair in pairs]
    return terms[0]


def _number(token: _Token, sign: str) -> int | float | UInt:
    text = token.text
    if token.kind == "double":
        return float(sign + text)
    unsigned = text[-1] in "uU"
    digits = text.rstrip("uU")
    if len(digits) > 20:
        raise _error("a number that needs more than 64 bits", token.at)
    value = int(sign + digits, 16 if digits.startswith("0x") else 10)
    if unsigned and sign:
        raise _error("a negative uint", token.at)
    if not (0 <= value < 2**64 if unsigned else -(2**63) <= value < 2**63):
        raise _error("a number that needs more than 64 bits", token.at)
    return UInt(value) if unsigned else value
