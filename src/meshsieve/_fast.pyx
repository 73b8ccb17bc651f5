# cython: language_level=3, boundscheck=False, wraparound=False
"""Scalar and batch look-ups in compiled tables (the calls that are made millions of times)."""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, uintptr_t

cimport numpy as cnp
import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #include "meshsieve/classifier.h"
    static inline void set_number(meshsieve::PacketKey& key, int field, uint32_t value) {
      key.value[field] = value;
      key.present |= uint32_t{1} << field;
    }
    static inline void set_address(meshsieve::PacketKey& key, int field, uint64_t hi, uint64_t lo) {
      key.address[field] = {hi, lo};
      key.present |= uint32_t{1} << field;
    }
    static inline void set_column(meshsieve::KeyColumns& keys, int field, const void* data, uint32_t width,
                                  ptrdiff_t stride) {
      keys.column[field] = {data, width, stride};
    }
    """
    void set_number(PacketKey& key, int field, uint32_t value) noexcept nogil
    void set_address(PacketKey& key, int field, uint64_t hi, uint64_t lo) noexcept nogil
    void set_column(KeyColumns& keys, int field, const void* data, uint32_t width, ptrdiff_t stride) noexcept nogil


cdef class Lookup:
    """Look-ups in the table of ``capsule`` (``_core.Classifier.capsule``)."""

    def __cinit__(self, object capsule not None):
        cdef void* pointer = PyCapsule_GetPointer(capsule, b"meshsieve.Classifier/1")
        self.table = (<shared_ptr[const Classifier]*>pointer)[0]

    cdef int32_t first_match(self, const PacketKey& key) noexcept nogil:
        return self.table.get().lookup(key)

    cdef void first_match_batch(self, const KeyColumns& keys, int32_t* out) noexcept nogil:
        self.table.get().lookup_batch(keys, out)

    def batch(self, list columns not None, object present, cnp.ndarray[int32_t, ndim=1, mode="c"] out not None):
        """Fill ``out`` (int32 (n,)) for n packets. ``columns``: (field index, array) pairs; an array has n rows or one
        row that stands for all. The facade (meshsieve.packets) has checked lengths and dtypes."""
        cdef KeyColumns keys
        cdef cnp.ndarray array
        cdef Py_ssize_t n = out.shape[0]
        keys.n = n
        for field, array in columns:
            width = array.itemsize * (array.shape[1] if array.ndim == 2 else 1)
            stride = 0 if array.shape[0] == 1 and n != 1 else array.strides[0]
            set_column(keys, field, cnp.PyArray_DATA(array), width, stride)
        if present is not None:
            keys.present = <const uint32_t*>cnp.PyArray_DATA(<cnp.ndarray>present)
        cdef int32_t* results = <int32_t*>cnp.PyArray_DATA(out)
        with nogil:
            self.first_match_batch(keys, results)
