"""Protobuf JSON read strictly: the mapping that Envoy's configuration is written in.

Fields may be spelled in snake_case or lowerCamelCase, numbers and booleans may be quoted, wrapper types are plain
values. Unknown fields, wrong types and two members of a oneof are refused, as protobuf and protoc-gen-validate do.
Source: the proto3 JSON mapping.
"""

from __future__ import annotations

import re
from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.importers.typed import Node
from meshsieve.importers.yaml_source import Mapping, Sequence, load_documents, located

_INTEGER = re.compile(r"-?[0-9]{1,20}\Z", re.ASCII)
_UPPER = re.compile(r"[A-Z]")


def snake(name: str) -> str:
    return _UPPER.sub(lambda m: "_" + m.group().lower(), name)


def document(config: Any, file: str) -> Proto:
    """``config`` as one message: text (YAML or JSON) or what a YAML or JSON reader made of it."""
    if isinstance(config, str):
        documents = load_documents(config, file)
        if len(documents) != 1:
            raise PolicyError(f"expected one document, found {len(documents)}", where=file)
        config = documents[0]
    message = located(config, file)
    if not isinstance(message, Mapping):
        raise PolicyError("expected a mapping", where=file)
    return Proto(message, "")


def plain(value: Any) -> Any:
    """Mappings with their keys in snake_case, for readers that know one spelling."""
    if isinstance(value, Mapping):
        return {snake(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, Sequence) else value


class Proto(Node):
    """One message."""

    __slots__ = ()

    def only(self, *allowed: str) -> Proto:
        seen: dict[str, str] = {}
        for key in self.data:
            name = snake(key)
            if name not in allowed:
                raise self.error("no such field", key)
            if name in seen:
                raise self.error(f"is given twice, also as {seen[name]}", key)
            seen[name] = key
        return self

    def spelled(self, key: str) -> str:
        """The key as the document spells it."""
        if key in self.data:
            return key
        return next((k for k in self.data if snake(k) == key), key)

    def has(self, key: str) -> bool:
        return self.data.get(self.spelled(key)) is not None

    def value(self, key: str) -> Any:
        return self.data.get(self.spelled(key))

    def one_of(self, *keys: str, required: bool = False) -> str | None:
        """The member of a oneof that is set."""
        present = [key for key in keys if self.has(key)]
        if len(present) > 1:
            raise self.error(f"and {present[0]} exclude each other", present[1])
        if required and not present:
            raise self.error(f"needs one of {', '.join(keys)}")
        return present[0] if present else None

    def message(self, key: str) -> Proto | None:
        node = self.node(self.spelled(key))
        return None if node is None else Proto(node.data, node.obj, node.path)

    def messages(self, key: str) -> list[Proto]:
        return [Proto(n.data, n.obj, n.path) for n in self.nodes(self.spelled(key)) or []]

    def string(self, key: str, default: str = "") -> str:
        value = self.text(self.spelled(key))
        return default if value is None else value

    def strings(self, key: str) -> list[str]:
        return self.texts(self.spelled(key)) or []

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.value(key)
        if value is None:
            return default
        if value in ("true", "false"):
            return bool(value == "true")
        if not isinstance(value, bool):
            raise self.error(f"expected true or false, got {value!r}", self.spelled(key))
        return value

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int | None:
        """An integer, perhaps quoted or written as 1.0 or 1e2."""
        value = self.value(key)
        if value is None:
            return default
        number: int | None = None
        if (isinstance(value, str) and _INTEGER.match(value)) or (isinstance(value, float) and value.is_integer()):
            number = int(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            number = value
        if number is None or not low <= number <= high:
            raise self.error(f"expected a whole number in {low}..{high}, got {value!r}", self.spelled(key))
        return number

    def enum(self, key: str, names: tuple[str, ...], default: str) -> str:
        value = self.value(key)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
            return names[value]
        upper = value.upper() if isinstance(value, str) else value  # Envoy parses enum names without case
        if upper not in names:
            raise self.error(f"expected one of {', '.join(names)}, got {value!r}", self.spelled(key))
        return str(upper)
