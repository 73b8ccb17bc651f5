"""Headers of many packets as columns: what look-ups read and what captures deliver."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.errors import ColumnError
from meshsieve.model import FIELD_INDEX

Array = npt.NDArray[Any]

ALIASES = {"src": "src_ip", "dst": "dst_ip"}
ADDRESS_FIELDS = tuple(info.name for info in _core.FIELDS if info.kind == "address")
NAME_FIELDS = tuple(info.name for info in _core.FIELDS if info.kind == "name")


class ColumnsOnDemand(MutableMapping[str, Array]):
    """Columns of a batch of the core. An array is made when it is asked for: columns nobody looks at cost nothing."""

    def __init__(self, native: Any, names: Sequence[str]) -> None:
        self._native = native
        self._arrays: dict[str, Array | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Array:
        array = self._arrays[name]
        if array is None:
            array = self._arrays[name] = self._native.column(name)
        return array

    def __setitem__(self, name: str, column: Array) -> None:
        self._arrays[name] = column

    def __delitem__(self, name: str) -> None:
        del self._arrays[name]

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return f"<columns {', '.join(self)}>"


# Names of fields and of other columns in batches of the core: without flows, and with them.
_BATCH_NAMES: dict[bool, tuple[tuple[str, ...], tuple[str, ...]]] = {}


class PacketColumns(Mapping[str, Array]):
    """An immutable batch of n packets: one numpy array a matcher field, and further columns of the source.

    Field columns carry the names of ``meshsieve._core.FIELDS``:
      src_ip, dst_ip   uint64 (n, 2): high and low word, IPv4 in the low 32 bits; or uint32 (n,): all IPv4
      every other      uint8, uint16 or uint32 (n,), host order
    ``present``        uint32 (n,) or None: bit i set where the packet has field i; None = every column given is present
                       on every packet. A field without a column is missing on every packet.
    Addresses may be given as text, all of one family; ip_ver is then 6 for IPv6 unless given. Fields of kind "name"
    given as text (app, fqdn, src_mac, ...) go to ``extra``, None = not known: their numbers depend on the rules.
    ``extra``          other columns by name, such as time_ns, length, flow_id (docs/capture.md)

    A column may have one row that stands for all n. ``src`` and ``dst`` are accepted for src_ip and dst_ip, any integer
    dtype is accepted and narrowed if its values fit.

    raises  ColumnError for unknown names, unequal lengths, or values that do not fit
    """

    native: Any = None

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        present: Array | None = None,
        extra: Mapping[str, Array] | None = None,
        length: int | None = None,
    ) -> None:
        texts = {name: _texts(v) for name, v in fields.items() if name in NAME_FIELDS and _is_text(v)}
        fields = {name: v for name, v in fields.items() if name not in texts}
        self._fields: MutableMapping[str, Array]
        self._fields = {ALIASES.get(name, name): _as_column(ALIASES.get(name, name), v) for name, v in fields.items()}
        if "ip_ver" not in self._fields and any(_is_text_v6(v, self[name]) for name, v in fields.items()):
            self._fields["ip_ver"] = np.array([6], np.uint8)
        lengths = {len(c) for c in self._fields.values()} - {1} or {1 if self._fields else 0}
        if length is not None:
            lengths = (lengths - {1}) | {length}
        if len(lengths) != 1:
            shown = ", ".join(f"{name} {len(c)}" for name, c in self._fields.items())
            raise ColumnError(f"columns differ in length: {shown}")
        self._length = lengths.pop()
        self.present = None if present is None else np.ascontiguousarray(present, np.uint32)
        if self.present is not None and self.present.shape != (self._length,):
            raise ColumnError(f"present has shape {self.present.shape}, expected ({self._length},)")
        self.extra: MutableMapping[str, Array] = dict(extra or {})
        for name, values in texts.items():
            if len(values) not in (1, self._length):
                raise ColumnError(f"column {name} has {len(values)} rows, expected {self._length}")
            self.extra[name] = np.broadcast_to(values, (self._length,))

    @staticmethod
    def _of_batch(native: Any) -> PacketColumns:
        """The packets of a batch of the core."""
        has_flows = bool(native.has_flows)
        if has_flows not in _BATCH_NAMES:
            _BATCH_NAMES[has_flows] = native.names()
        fields, extra = (ColumnsOnDemand(native, names) for names in _BATCH_NAMES[has_flows])
        return PacketColumns._of_checked(fields, native.present(), extra, len(native), native)

    @classmethod
    def _of_checked(
        cls,
        fields: MutableMapping[str, Array],
        present: Array,
        extra: MutableMapping[str, Array],
        length: int,
        native: Any,
    ) -> PacketColumns:
        """Columns whose shapes and dtypes the C++ core made: taken as they are. ``native`` is the core's own batch."""
        columns = cls.__new__(cls)
        columns._fields, columns.present, columns.extra = fields, present, extra
        columns._length, columns.native = length, native
        return columns

    @staticmethod
    def of(headers: Any) -> PacketColumns:
        """``headers`` as columns: a PacketColumns, a mapping of arrays, or an Arrow table/record batch/data frame whose
        columns carry field names (through the Arrow PyCapsule protocol; needs the ``arrow`` extra). A null is a field
        that the packet lacks; columns in one chunk, without nulls and of the field's own type, are not copied."""
        if isinstance(headers, PacketColumns):
            return headers
        if isinstance(headers, Mapping):
            return PacketColumns(headers)
        if hasattr(headers, "__arrow_c_stream__") or hasattr(headers, "__arrow_c_array__"):
            return _from_arrow(headers)
        raise ColumnError(
            f"cannot read packet headers from {type(headers).__name__}; give a dict of arrays or Arrow data"
        )

    def __len__(self) -> int:
        """Number of packets."""
        return self._length

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __getitem__(self, name: str) -> Array:
        return self._fields[ALIASES.get(name, name)]

    def has(self, name: str) -> npt.NDArray[np.bool_]:
        """bool (n,): which packets have the field."""
        name = ALIASES.get(name, name)
        if name not in self._fields:
            return np.zeros(self._length, np.bool_)
        if self.present is None:
            return np.ones(self._length, np.bool_)
        return (self.present >> np.uint32(FIELD_INDEX[name]) & np.uint32(1)).astype(np.bool_)

    def field_texts(self, name: str) -> Array | None:
        """Object (n,): the texts of a field of kind "name", None where it is not known; None without such a column."""
        column = self.extra.get(name)
        return column if column is not None and column.dtype == object else None

    def with_fields(
        self, fields: Mapping[str, Any], where: Mapping[str, npt.NDArray[np.bool_]] | None = None
    ) -> PacketColumns:
        """The same packets with the given fields set: on every packet, or where ``where[name]``, bool (n,), holds; the
        others then lack the field."""
        present = self.present
        if present is None and where:
            mine = sum(1 << FIELD_INDEX[name] for name in self._fields)
            present = np.full(self._length, mine, np.uint32)
        if present is not None:
            present = present | np.uint32(sum(1 << FIELD_INDEX[ALIASES.get(name, name)] for name in fields))
            for name, has in (where or {}).items():
                present[~has] &= ~np.uint32(1 << FIELD_INDEX[name])
        return PacketColumns({**self._fields, **fields}, present=present, extra=self.extra, length=self._length)

    def take(self, indices: Array) -> PacketColumns:
        """The packets at ``indices`` (integers or a boolean mask), in that order."""
        rows = np.flatnonzero(indices) if indices.dtype == np.bool_ else indices

        def pick(column: Array) -> Array:
            return column if len(column) == 1 and self._length != 1 else np.take(column, rows, axis=0)

        return PacketColumns(
            {name: pick(c) for name, c in self._fields.items()},
            present=None if self.present is None else self.present[rows],
            extra={name: np.take(c, rows, axis=0) for name, c in self.extra.items()},
            length=len(rows),
        )

    @staticmethod
    def joined(parts: Sequence[PacketColumns]) -> PacketColumns:
        """The packets of all parts, one after another; each has the fields and extra columns of the first."""
        first = parts[0]
        masks = [part.present for part in parts if part.present is not None]
        if len(masks) not in (0, len(parts)):
            raise ColumnError("columns to be joined say of all their fields which packets have them, or none does")
        return PacketColumns(
            {
                name: np.concatenate([np.broadcast_to(p[name], (len(p), *p[name].shape[1:])) for p in parts])
                for name in first
            },
            present=np.concatenate(masks) if masks else None,
            extra={name: np.concatenate([part.extra[name] for part in parts]) for name in first.extra},
            length=sum(map(len, parts)),
        )

    def pairs(self) -> list[tuple[int, Array]]:
        """(field index, array) of every field column, as meshsieve._fast wants them."""
        return [(FIELD_INDEX[name], column) for name, column in self._fields.items()]

    def __repr__(self) -> str:
        return f"<PacketColumns of {self._length} packets: {', '.join(self._fields)}>"


def _as_column(name: str, values: Any) -> Array:
    if name not in FIELD_INDEX:
        raise ColumnError(f"no field is called '{name}'; fields: {', '.join(FIELD_INDEX)}")
    info = _core.FIELDS[FIELD_INDEX[name]]
    if info.kind == "address":
        return as_addresses(name, values)
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind not in "iub" or array.ndim != 1:
        raise ColumnError(f"column {name} must hold integers in one dimension, not {array.dtype} {array.shape}")
    dtype = np.dtype(np.uint8 if info.bits <= 8 else np.uint16 if info.bits <= 16 else np.uint32)
    if array.dtype != dtype:
        if len(array) and (int(array.min()) < 0 or int(array.max()) >= 2**info.bits):
            raise ColumnError(f"column {name} holds values outside 0..{2**info.bits - 1}")
        array = array.astype(dtype)
    return np.ascontiguousarray(array)


def as_addresses(name: str, values: Any) -> Array:
    """Addresses as the column that look-ups read: uint32 (n,) or uint64 (n, 2). ``name`` is for messages."""
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind in "OUS":
        return _parse_addresses(name, array)
    if array.dtype.kind not in "iu" or array.ndim > 2:
        raise ColumnError(f"column {name} must hold addresses, not {array.dtype} {array.shape}")
    if array.ndim == 2:
        if array.shape[1] != 2:
            raise ColumnError(
                f"column {name} has shape {array.shape}; IPv6 columns have shape (n, 2): high and low word"
            )
        return np.ascontiguousarray(array, np.uint64)
    if array.dtype != np.uint32:
        if len(array) and (int(array.min()) < 0 or int(array.max()) > 0xFFFFFFFF):
            raise ColumnError(f"column {name} holds values beyond 32 bits; give IPv6 as shape (n, 2)")
        array = array.astype(np.uint32)
    return np.ascontiguousarray(array)


def _texts(given: Any) -> Array:
    return np.atleast_1d(np.asarray(given, object))


def _is_text(given: Any) -> bool:
    """Whether a column holds texts (or None where a text is not known)."""
    return all(value is None or isinstance(value, str) for value in _texts(given).ravel().tolist())


def _is_text_v6(given: Any, column: Array) -> bool:
    return column.ndim == 2 and np.asarray(given).dtype.kind in "OUS"


def _parse_addresses(name: str, texts: Array) -> Array:
    try:
        parsed = [ipaddress.ip_address(t.decode() if isinstance(t, bytes) else t) for t in texts.ravel()]
    except ValueError as error:
        raise ColumnError(f"column {name}: {error}") from None
    if all(a.version == 4 for a in parsed):
        return np.array([int(a) for a in parsed], np.uint32)
    if all(a.version == 6 for a in parsed):
        return np.array([(int(a) >> 64, int(a) & (2**64 - 1)) for a in parsed], np.uint64).reshape(-1, 2)
    raise ColumnError(f"column {name} mixes IPv4 and IPv6 text; give (n, 2) words and an ip_ver column instead")


def _from_arrow(data: Any) -> PacketColumns:
    from meshsieve.extras import require

    pa = require("pyarrow", "arrow")
    table = pa.table(data)
    fields: dict[str, Array] = {}
    missing: dict[str, npt.NDArray[np.bool_]] = {}
    for given in table.column_names:
        name = ALIASES.get(given, given)
        if name not in FIELD_INDEX:
            continue
        column = table.column(given)
        if column.null_count and pa.types.is_integer(column.type):
            missing[name] = column.is_null().to_numpy()
            column = column.fill_null(0)
        fields[name] = column.to_numpy()
    if not missing:
        return PacketColumns(fields, length=table.num_rows)
    present = np.full(table.num_rows, sum(1 << FIELD_INDEX[name] for name in fields), np.uint32)
    for name, lacks in missing.items():
        present[lacks] &= ~np.uint32(1 << FIELD_INDEX[name])
    return PacketColumns(fields, present=present, length=table.num_rows)
