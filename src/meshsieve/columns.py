"""Headers of many packets as columns: what look-ups read and what captures deliver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve import _core, address_columns, tables
from meshsieve.address_columns import AddressRows
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
    Addresses may be given as text (or packed bytes in an object array), also of both families, None = the packet has
    none; ip_ver then follows from them unless it is given. Fields of kind "name" given as text (app, fqdn, ...) go
    to ``extra``, None = not known: their numbers depend on the rules.
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
        fields = {ALIASES.get(name, name): values for name, values in fields.items()}
        for name, values in fields.items():
            if isinstance(values, np.ma.MaskedArray):
                raise ColumnError(f"column {name} is masked; say with `present` which packets have it")
        texts = {name: _texts(v) for name, v in fields.items() if name in NAME_FIELDS and _is_text(v)}
        columns = {name: _as_column(name, v) for name, v in fields.items() if name not in texts}
        addresses, versions = address_columns.one_family({n: c for n, c in columns.items() if n in ADDRESS_FIELDS})
        self._fields: MutableMapping[str, Array] = {n: c for n, c in columns.items() if not isinstance(c, AddressRows)}
        self._fields |= addresses
        if versions is not None:
            self._fields.setdefault("ip_ver", versions)
        lengths = {len(c) for c in (*self._fields.values(), *texts.values())} - {1} or {1 if fields else 0}
        if length is not None:
            lengths = (lengths - {1}) | {length}
        if len(lengths) != 1:
            shown = ", ".join(f"{name} {len(c)}" for name, c in (self._fields | texts).items())
            raise ColumnError(f"columns differ in length: {shown}")
        self._length = lengths.pop()
        self.present = None if present is None else np.ascontiguousarray(present, np.uint32)
        if self.present is not None and self.present.shape != (self._length,):
            raise ColumnError(f"present has shape {self.present.shape}, expected ({self._length},)")
        lacking = {name: c.versions == 0 for name, c in columns.items() if isinstance(c, AddressRows)}
        if versions is not None and "ip_ver" not in columns:
            lacking["ip_ver"] = versions == 0
            if self.present is not None:  # given by whom does not know of this column
                self.present = self.present | np.uint32(1 << FIELD_INDEX["ip_ver"])
        lacking = {name: absent for name, absent in lacking.items() if absent.any()}
        if lacking:
            known = _present_but(self._fields, lacking, self._length)
            self.present = known if self.present is None else self.present & known
        self.extra: MutableMapping[str, Array] = dict(extra or {})
        for name, values in texts.items():
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

    def table_columns(self, *, addresses: tables.Addresses = "text") -> dict[str, Any]:
        """The columns of ``to_arrow``, by name: the fields, null where a packet lacks them, then the extra columns."""
        versions = self._ip_versions()
        columns: dict[str, Any] = {}
        for name, column in self._fields.items():
            column = np.broadcast_to(column, (self._length, *column.shape[1:]))
            known = self.has(name)
            if name not in ADDRESS_FIELDS or (column.ndim == 1 and addresses == "words"):
                columns[name] = tables.optional(column, known)
            else:
                words = column if column.ndim == 2 else address_columns.widened(column)
                columns[name] = tables.addresses(words, np.where(known, versions, np.uint8(0)), addresses)
        extra = {name: column for name, column in self.extra.items() if name not in columns}
        return columns | tables.packet_extras(extra, addresses)

    def _ip_versions(self) -> npt.NDArray[np.uint8]:
        """uint8 (n,): of the addresses of each packet. Without a column ip_ver 4 if they have 32 bits, else 6."""
        if "ip_ver" in self:
            return np.broadcast_to(self["ip_ver"], self._length)
        wide = any(self[name].ndim == 2 for name in ADDRESS_FIELDS if name in self)
        return np.full(self._length, 6 if wide else 4, np.uint8)

    def to_arrow(self, *, addresses: tables.Addresses = "text") -> Any:
        """A pyarrow.Table, which ``PacketColumns.of`` reads back. Numbers and times are not copied; ``addresses`` as
        text, as 16 bytes, or not copied either, as "words": fixed_size_list<uint64>[2], or uint32 where all are IPv4.

        raises  MissingExtraError without pyarrow
        """
        return tables.to_arrow(self.table_columns(addresses=addresses))

    def to_pandas(self) -> Any:
        """A pandas.DataFrame."""
        return tables.to_pandas(self.table_columns())

    def to_polars(self) -> Any:
        """A polars.DataFrame."""
        return tables.to_polars(self.table_columns())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """So that ``pyarrow.table(batch)``, polars, DuckDB and others take a batch as it is."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<PacketColumns of {self._length} packets: {', '.join(self._fields)}>"


def _as_column(name: str, values: Any) -> Array | AddressRows:
    if name not in FIELD_INDEX:
        raise ColumnError(f"no field is called '{name}'; fields: {', '.join(FIELD_INDEX)}")
    info = _core.FIELDS[FIELD_INDEX[name]]
    if info.kind == "address":
        return values if isinstance(values, AddressRows) else address_columns.as_addresses(name, values)
    array = np.atleast_1d(np.asarray(values))
    if not array.size and array.dtype.kind in "fO":  # an empty list
        array = array.astype(np.uint8)
    if array.dtype.kind not in "iub" or array.ndim != 1:
        raise ColumnError(f"column {name} must hold integers in one dimension, not {array.dtype} {array.shape}")
    dtype = np.dtype(np.uint8 if info.bits <= 8 else np.uint16 if info.bits <= 16 else np.uint32)
    if array.dtype != dtype:
        if len(array) and (int(array.min()) < 0 or int(array.max()) >= 2**info.bits):
            raise ColumnError(f"column {name} holds values outside 0..{2**info.bits - 1}")
        array = array.astype(dtype)
    return np.ascontiguousarray(array)


def _texts(given: Any) -> Array:
    return np.atleast_1d(np.asarray(given, object))


def _is_text(given: Any) -> bool:
    """Whether a column holds texts (or None where a text is not known)."""
    return all(value is None or isinstance(value, str) for value in _texts(given).ravel().tolist())


def _from_arrow(data: Any) -> PacketColumns:
    from meshsieve.extras import require

    pa = require("pyarrow", "arrow")
    table = pa.table(data)
    given = {ALIASES.get(name, name): table.column(name) for name in table.column_names}
    given = {name: column for name, column in given.items() if name in FIELD_INDEX}
    if not given:
        named = ", ".join(table.column_names) or "there are none"
        raise ColumnError(f"no column is named after a field of packets ({named}); fields: {', '.join(FIELD_INDEX)}")
    fields: dict[str, Any] = {}
    for name, column in given.items():
        if name in ADDRESS_FIELDS and not pa.types.is_integer(column.type):
            fields[name] = _arrow_addresses(pa, name, column, given.get("ip_ver"))
        else:
            fields[name] = _arrow_numbers(pa, name, column) if name not in NAME_FIELDS else column.to_numpy()
    lacking = {name: column.is_null().to_numpy() for name, column in given.items() if column.null_count}
    present = _present_but(fields, lacking, table.num_rows) if lacking else None
    return PacketColumns(fields, present=present, length=table.num_rows)


def _arrow_numbers(pa: Any, name: str, column: Any) -> Array:
    if pa.types.is_floating(column.type):  # what data frames make of integers with gaps
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise ColumnError(f"column {name} must hold integers: {error}") from None
    return (column.fill_null(0) if column.null_count else column).to_numpy()  # type: ignore[no-any-return]


def _arrow_addresses(pa: Any, name: str, column: Any, ip_ver: Any) -> Array | AddressRows:
    if pa.types.is_fixed_size_list(column.type):  # as PacketColumns.to_arrow writes words
        words = column.combine_chunks()
        values = words.values[2 * words.offset : 2 * (words.offset + len(words))]
        return values.to_numpy(zero_copy_only=False).reshape(-1, 2)  # type: ignore[no-any-return]
    versions = np.zeros(len(column), np.uint8) if ip_ver is None else _arrow_numbers(pa, "ip_ver", ip_ver)
    return address_columns.from_arrow(pa, name, column, versions)


def _present_but(
    fields: Iterable[str], lacking: Mapping[str, npt.NDArray[np.bool_]], length: int
) -> npt.NDArray[np.uint32]:
    """Which of ``fields`` each packet has: all, but where ``lacking``, bool (n,) or (1,), says."""
    present = np.full(length, sum(1 << FIELD_INDEX[name] for name in fields), np.uint32)
    for name, absent in lacking.items():
        present[np.broadcast_to(absent, length)] &= ~np.uint32(1 << FIELD_INDEX[name])
    return present
