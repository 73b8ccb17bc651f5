# cython: language_level=3, boundscheck=False, wraparound=False
"""Picks from frozen host tables and hashes of key columns (the calls that are made millions of times)."""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer

cimport numpy as cnp
import numpy as np

from meshsieve.errors import ColumnError

cnp.import_array()

cdef extern from "meshsieve/balance/hash.h" namespace "meshsieve::balance" nogil:
    void xxh64_column(const char* data, const int64_t* offsets, size_t n, uint64_t* out)
    void xxh64_fixed(const char* data, size_t width, size_t n, uint64_t* out)

# Rows between two looks for Ctrl-C: a few milliseconds of picks.
cdef size_t CHUNK = 1 << 17


cdef class Picker:
    """What every exact balancer inherits its picks from. Without a table it answers -1 to everything."""

    def __cinit__(self, *args, **kwargs):
        self.table = empty_table()

    cdef int32_t choose(self, uint64_t key_hash, uint32_t attempt) noexcept nogil:
        return self.table.get().pick(key_hash, attempt)

    cdef void choose_batch(self, const uint64_t* hashes, size_t n, uint32_t attempt, int32_t* out) noexcept nogil:
        self.table.get().pick_batch(hashes, n, attempt, out)

    def _use(self, object capsule not None):
        """Take over the table of ``capsule`` (``_core.HostTable.capsule``); only constructors call this."""
        self.table = (<shared_ptr[const HostTable]*>PyCapsule_GetPointer(capsule, b"meshsieve.HostTable/1"))[0]

    def pick(self, uint64_t key_hash, uint32_t attempt=0):
        """Index of the host for a 64-bit hash, -1 if there is none. ``attempt``: 0, and 1, 2, ... for retries."""
        return self.table.get().pick(key_hash, attempt)

    def pick_batch(self, hashes, *, uint32_t attempt=0, out=None):
        """int32 (n,): the host index of every hash; ``hashes`` is uint64 (n,). The GIL is released.

        out     int32 (n,), C-contiguous, to be filled instead of a new array
        raises  ColumnError for another dtype, negative values or an ``out`` that does not fit
        """
        cdef cnp.ndarray keys = hash_column(hashes)
        cdef size_t n = keys.shape[0]
        cdef cnp.ndarray answers = np.empty(n, np.int32) if out is None else _checked_out(out, n)
        cdef const uint64_t* h = <const uint64_t*>cnp.PyArray_DATA(keys)
        cdef int32_t* host = <int32_t*>cnp.PyArray_DATA(answers)
        cdef size_t start = 0
        cdef size_t rows
        while start < n:
            rows = min(CHUNK, n - start)
            with nogil:
                self.choose_batch(h + start, rows, attempt, host + start)
            PyErr_CheckSignals()
            start += rows
        return answers


def hash_column(values):
    """``values`` as contiguous uint64 (n,)."""
    array = np.asarray(values)
    if array.dtype == np.uint64 and array.ndim == 1:
        return np.ascontiguousarray(array)
    if array.ndim != 1 or array.dtype.kind not in "iu" and array.size:
        raise ColumnError(f"hashes must be unsigned integers in one dimension, not {array.dtype} {array.shape}")
    if array.size and array.dtype.kind == "i" and int(array.min()) < 0:
        raise ColumnError("hashes must be unsigned; the column holds negative values")
    return np.ascontiguousarray(array, np.uint64)


def _checked_out(out, n):
    if not isinstance(out, np.ndarray) or out.dtype != np.int32 or out.shape != (n,) or not out.flags.c_contiguous \
            or not out.flags.writeable:
        raise ColumnError(f"out must be a writable, contiguous int32 array of shape ({n},)")
    return out


def hash_fixed(cnp.ndarray keys not None):
    """uint64 (n,): xxh64 of every value of a contiguous 'S' array."""
    cdef size_t n = keys.shape[0]
    cdef size_t width = keys.itemsize
    cdef cnp.ndarray out = np.empty(n, np.uint64)
    cdef const char* data = <const char*>cnp.PyArray_DATA(keys)
    cdef uint64_t* hashes = <uint64_t*>cnp.PyArray_DATA(out)
    cdef size_t start = 0
    cdef size_t rows
    while start < n:
        rows = min(CHUNK, n - start)
        with nogil:
            xxh64_fixed(data + start * width, width, rows, hashes + start)
        PyErr_CheckSignals()
        start += rows
    return out


def hash_variable(cnp.ndarray data not None, cnp.ndarray offsets not None):
    """uint64 (n,): xxh64 of the values data[offsets[i]:offsets[i+1]]; data uint8, offsets int64 (n + 1,), ascending."""
    if data.dtype != np.uint8 or data.ndim != 1 or not data.flags.c_contiguous:
        raise ColumnError("data must be contiguous uint8")
    if offsets.dtype != np.int64 or offsets.ndim != 1 or offsets.shape[0] < 1 or not offsets.flags.c_contiguous:
        raise ColumnError("offsets must be contiguous int64 (n + 1,)")
    if int(offsets[0]) < 0 or int(offsets.max()) > data.shape[0] or (np.diff(offsets) < 0).any():
        raise ColumnError("offsets must ascend and stay inside the data")
    cdef size_t n = offsets.shape[0] - 1
    cdef cnp.ndarray out = np.empty(n, np.uint64)
    cdef const int64_t* ends = <const int64_t*>cnp.PyArray_DATA(offsets)
    cdef uint64_t* hashes = <uint64_t*>cnp.PyArray_DATA(out)
    cdef const char* text = <const char*>cnp.PyArray_DATA(data)
    cdef size_t start = 0
    cdef size_t rows
    while start < n:
        rows = min(CHUNK, n - start)
        with nogil:
            xxh64_column(text, ends + start, rows, hashes + start)
        PyErr_CheckSignals()
        start += rows
    return out
