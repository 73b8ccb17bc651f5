"""Typed access to strictly read YAML and JSON: a wrong type or an unknown field is an error at its place.

``null`` counts as absent everywhere, as in Kubernetes. ``path`` is the field's path as users write it
(``spec.ingress[0].from``); ``obj`` names the object in errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.importers.yaml_source import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Node:
    """One mapping of a document, with where it stands."""

    data: Mapping
    obj: str
    path: str = ""

    def error(self, message: str, key: str | None = None, hint: str = "") -> PolicyError:
        field = f"{self.path}.{key}".strip(".") if key else self.path
        text = f"{field}: {message}" if field else message
        return PolicyError(text, where=self.data.where(key), obj=self.obj, hint=hint)

    def only(self, *allowed: str) -> Node:
        """Refuse every field that is not among ``allowed``: ignoring one could widen what it says."""
        for key in self.data:
            if key not in allowed:
                raise self.error("unknown field", key, f"known here: {', '.join(allowed)}")
        return self

    def _get(self, key: str, kinds: type | tuple[type, ...], what: str) -> Any:
        value = self.data.get(key)
        if value is None:
            return None
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is int):
            raise self.error(f"expected {what}, got {_shown(value)}", key)
        return value

    def text(self, key: str) -> str | None:
        value: str | None = self._get(key, str, "text")
        return value

    def required_text(self, key: str) -> str:
        value = self.text(key)
        if value is None:
            raise self.error("is missing", key)
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self.text(key)
        if value is None and default is not None:
            return default
        if value not in allowed:
            shown = "nothing" if value is None else repr(value)
            raise self.error(f"expected one of {', '.join(allowed)}, got {shown}", key)
        return value

    def integer(self, key: str, low: int, high: int) -> int | None:
        value: int | None = self._get(key, int, "a number")
        if value is not None and not low <= value <= high:
            raise self.error(f"{value} is outside {low}..{high}", key)
        return value

    def boolean(self, key: str) -> bool:
        return bool(self._get(key, bool, "true or false"))

    def node(self, key: str) -> Node | None:
        value = self._get(key, Mapping, "a mapping")
        return None if value is None else Node(value, self.obj, f"{self.path}.{key}".strip("."))

    def sequence(self, key: str) -> Sequence | None:
        value: Sequence | None = self._get(key, Sequence, "a list")
        return value

    def nodes(self, key: str) -> list[Node] | None:
        """The mappings of a list; None where the field is absent."""
        items = self.sequence(key)
        if items is None:
            return None
        out = []
        for i, item in enumerate(items):
            path = f"{self.path}.{key}[{i}]".strip(".")
            if not isinstance(item, Mapping):
                raise PolicyError(f"{path}: expected a mapping, got {_shown(item)}", where=items.where(i), obj=self.obj)
            out.append(Node(item, self.obj, path))
        return out

    def texts(self, key: str) -> list[str] | None:
        """The texts of a list; None where the field is absent."""
        items = self.sequence(key)
        for i, item in enumerate(items or []):
            if not isinstance(item, str):
                path = f"{self.path}.{key}[{i}]".strip(".")
                raise PolicyError(f"{path}: expected text, got {_shown(item)}", where=items.where(i), obj=self.obj)  # type: ignore[union-attr]
        return None if items is None else list(items)

    def text_map(self, key: str) -> dict[str, str]:
        """A mapping of text to text, such as labels; {} where absent."""
        node = self.node(key)
        if node is None:
            return {}
        for name, value in node.data.items():
            if not isinstance(value, str):
                raise node.error(f"expected text, got {_shown(value)}", name, "quote the value")
        return dict(node.data)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    return f"{value!r}"
