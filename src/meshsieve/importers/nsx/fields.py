"""Reading the fields of one JSON object by name and type, and refusing those that nobody asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object

LENIENT_HINT = "correct it, or import with --lenient: what depends on it is then undecided"


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Fields that say who, when and how an object was stored, never what it does. Names that start with "_" are metadata of
# the NSX API too (_revision, _create_time, _links ...).
METADATA = words(
    "id display_name description path relative_path parent_path remote_path unique_id owner_id realization_id "
    "origin_site_id overridden mark_for_override marked_for_delete resource_type tags comments notes locked "
    "lock_modified_by lock_modified_time is_default children"
)


class Fields:
    """One object's fields. Every getter marks its field as known; ``finish`` refuses the rest.

    A field that is null counts as absent: exports write missing lists so. With ``problems`` (lenient import) an error
    is noted there and the getter returns its default; without, it is raised.
    """

    def __init__(self, obj: Object, kind: str, label: str, problems: list[PolicyError] | None = None) -> None:
        self.obj = obj
        self.kind = kind
        self.label = label
        self.problems = problems
        self._known: set[str] = set()

    def fail(self, message: str, key: str | None = None, index: int | None = None, hint: str = LENIENT_HINT) -> None:
        error = PolicyError(message, where=self.obj.where(key, index), obj=self.label, hint=hint)
        if self.problems is None:
            raise error
        self.problems.append(error)

    def _get(self, key: str) -> Any:
        self._known.add(key)
        return self.obj.get(key)

    def text(self, key: str, default: str = "") -> str:
        value = self._get(key)
        if value is None:
            return default
        if type(value) is not str:
            self.fail(f"{self.kind}.{key} must be text, not {_kind_of(value)}", key)
            return default
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key)
        if value is None:
            return default
        if type(value) is not bool:
            self.fail(f"{self.kind}.{key} must be true or false, not {_kind_of(value)}", key)
            return default
        return value

    def number(self, key: str, low: int, high: int) -> int | None:
        value = self._get(key)
        if value is None:
            return None
        if type(value) is not int or not low <= value <= high:
            self.fail(f"{self.kind}.{key} must be a whole number from {low} to {high}, not {value!r}", key)
            return None
        return value

    def choice(self, key: str, allowed: Sequence[str], default: str | None = None) -> str | None:
        value = self._get(key)
        if value is None:
            return default
        if value not in allowed or type(value) is not str:
            self.fail(f"{self.kind}.{key} is {value!r}; known are {', '.join(allowed)}", key)
            return default
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts; absent and null are the empty list."""
        return list(self._list(key, str, "text"))

    def objects(self, key: str) -> list[Object]:
        """A list of objects; absent and null are the empty list."""
        return list(self._list(key, Object, "an object"))

    def object(self, key: str) -> Object | None:
        value = self._get(key)
        if value is not None and type(value) is not Object:
            self.fail(f"{self.kind}.{key} must be an object, not {_kind_of(value)}", key)
            return None
        return value

    def _list(self, key: str, item: type, name: str) -> Iterable[Any]:
        value = self._get(key)
        if value is None:
            return []
        if type(value) is not list:
            self.fail(f"{self.kind}.{key} must be a list, not {_kind_of(value)}", key)
            return []
        for index, element in enumerate(value):
            if type(element) is not item:
                self.fail(f"{self.kind}.{key} must hold {name}, not {_kind_of(element)}", key, index)
                return []
        return value

    def ignore(self, *keys: str) -> None:
        """Fields that are known and change nothing here."""
        self._known.update(keys)

    def finish(self) -> None:
        for key in self.obj:
            if key not in self._known and key not in METADATA and not key.startswith("_"):
                self.fail(f"{self.kind} has a field '{key}' that is not known here; it could change the meaning", key)


def _kind_of(value: Any) -> str:
    names = {dict: "an object", Object: "an object", list: "a list", str: "text", bool: "true/false", int: "a number"}
    return "null" if value is None else names.get(type(value), "a number")
