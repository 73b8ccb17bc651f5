"""Columns of addresses: in whatever form they are given, as the columns that look-ups read.

Numbers are taken as they are: uint32 (n,) is IPv4, uint64 (n, 2) is high and low word of either family, of which the
column ip_ver tells. Texts and packed bytes say their family themselves, row by row, and None is an address that the
packet lacks: ``AddressRows``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from meshsieve.errors import ColumnError

Array = npt.NDArray[Any]

_LOW = 2**64 - 1
_MAPPED = 0xFFFF  # of IPv4 in IPv6: the 32 bits above the address, under a high word of 0


class AddressRows(NamedTuple):
    """Addresses of both families.

    words     uint64 (n, 2): high and low word, IPv4 in the low 32 bits
    versions  uint8 (n,): 4, 6, or 0 where there is no address
    """

    words: Array
    versions: npt.NDArray[np.uint8]


def as_addresses(name: str, values: Any) -> Array | AddressRows:
    """Numbers as uint32 (n,) or uint64 (n, 2), texts and packed bytes as ``AddressRows``. ``name`` is for messages.

    raises  ColumnError for what is no address
    """
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind in "US" or (array.dtype.kind == "O" and not _all_numbers(array)):
        return rows(name, array.ravel().tolist(), packed=array.dtype.kind == "O")
    if not array.size and array.dtype.kind == "f":  # an empty list
        return np.empty(0, np.uint32)
    if array.dtype.kind not in "iuO" or array.ndim > 2:
        raise ColumnError(f"column {name} must hold addresses, not {array.dtype} {array.shape}")
    if array.ndim == 2:
        if array.shape[1] != 2:
            raise ColumnError(
                f"column {name} has shape {array.shape}; IPv6 columns have shape (n, 2): high and low word"
            )
        if array.dtype != np.uint64:
            _check_range(name, array, _LOW, "64 bits a word")
        return np.ascontiguousarray(array, np.uint64)
    if array.dtype != np.uint32:
        _check_range(name, array, 0xFFFFFFFF, "32 bits; give IPv6 as shape (n, 2), or as text")
        array = array.astype(np.uint32)
    return np.ascontiguousarray(array)


def rows(name: str, addresses: Iterable[Any], *, packed: bool = True) -> AddressRows:
    """Texts and, if ``packed``, bytes of length 4 or 16 (else bytes are text); None is no address."""
    values: list[int] = []
    versions: list[int] = []
    for given in addresses:
        if given is None:
            values.append(0)
            versions.append(0)
            continue
        try:
            address = ipaddress.ip_address(given if packed or isinstance(given, str) else given.decode())
        except ValueError as error:
            raise ColumnError(f"column {name}: {error}") from None
        values.append(int(address))
        versions.append(address.version)
    words = np.array([(value >> 64, value & _LOW) for value in values], np.uint64).reshape(-1, 2)
    return AddressRows(words, np.array(versions, np.uint8))


def from_arrow(pa: Any, name: str, column: Any, ip_ver: npt.NDArray[np.uint8]) -> AddressRows:
    """A pyarrow.ChunkedArray of texts, or of packed bytes: 4, or 16, of which IPv4-mapped ones are IPv4 (so does
    ``to_arrow`` write it) unless ``ip_ver``, uint8 (n,), is 6."""
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunk = coded.unify_dictionaries().combine_chunks()
    known = rows(name, [*chunk.dictionary.to_pylist(), None])
    at = chunk.indices.fill_null(len(chunk.dictionary)).to_numpy()
    words, versions = known.words[at], known.versions[at]
    if pa.types.is_binary(chunk.type.value_type) or pa.types.is_fixed_size_binary(chunk.type.value_type):
        mapped = (versions == 6) & (words[:, 0] == 0) & (words[:, 1] >> np.uint64(32) == _MAPPED) & (ip_ver != 6)
        words[mapped, 1] &= np.uint64(0xFFFFFFFF)
        versions[mapped] = 4
    return AddressRows(words, versions)


def one_family(columns: Mapping[str, Array | AddressRows]) -> tuple[dict[str, Array], npt.NDArray[np.uint8] | None]:
    """The address columns of a batch as look-ups read them, and the IP version of each row: None where the columns are
    numbers, and where all are IPv4, which uint32 says.

    raises  ColumnError for a row of two families
    """
    told: dict[str, AddressRows] = {}
    plain: dict[str, Array] = {}
    for name, column in columns.items():
        if isinstance(column, AddressRows):
            told[name] = column
        else:
            plain[name] = column
    if not told:
        return plain, None
    if all((column.versions == 4).all() for column in told.values()):
        return plain | {name: column.words[:, 1].astype(np.uint32) for name, column in told.items()}, None
    for name, numbers in plain.items():
        if numbers.ndim == 1:
            told[name] = AddressRows(widened(numbers), np.full(len(numbers), 4, np.uint8))
    versions = np.zeros(1, np.uint8)
    for name, given in told.items():
        if len({1, len(versions), len(given.versions)}) > 2:
            raise ColumnError(f"columns differ in length: {name} has {len(given.versions)} rows, not {len(versions)}")
        differ = np.flatnonzero((versions != 0) & (given.versions != 0) & (versions != given.versions))
        if len(differ):
            raise ColumnError(f"row {differ[0]}: {name} is not of the IP version of the other address")
        versions = np.maximum(versions, given.versions)
    return plain | {name: given.words for name, given in told.items()}, versions


def widened(column: Array) -> npt.NDArray[np.uint64]:
    """uint32 (n,) as words, uint64 (n, 2)."""
    words = np.zeros((len(column), 2), np.uint64)
    words[:, 1] = column
    return words


def _all_numbers(array: Array) -> bool:
    return all(isinstance(value, int | np.integer) for value in array.ravel().tolist())


def _check_range(name: str, array: Array, most: int, beyond: str) -> None:
    if array.size and int(array.min()) < 0:
        raise ColumnError(f"column {name} holds values below 0")
    if array.size and int(array.max()) > most:
        raise ColumnError(f"column {name} holds values beyond {beyond}")
