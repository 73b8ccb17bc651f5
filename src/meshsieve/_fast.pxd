# Scalar and batch look-ups, for Python and for other Cython extensions (examples/cython_lookup).
#
#     from meshsieve._fast cimport Lookup, PacketKey, set_address, set_number
#
# `Lookup` shares ownership of a compiled, immutable table: it stays valid after the PacketClassifier it came from is
# gone, and any number of threads may use one. The cdef methods neither touch Python nor raise; validate before.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp.memory cimport shared_ptr


cdef extern from "meshsieve/classifier.h" namespace "meshsieve" nogil:
    cdef cppclass U128:
        uint64_t hi
        uint64_t lo

    cdef cppclass PacketKey:
        U128 address[2]
        uint32_t present

    cdef cppclass Column:
        const void* data
        uint32_t width
        ptrdiff_t stride

    cdef cppclass KeyColumns:
        size_t n
        const uint32_t* present

    cdef cppclass Classifier:
        int32_t lookup(const PacketKey& key)
        void lookup_batch(const KeyColumns& keys, int32_t* out)


# A key is made field by field; `field` is a position in meshsieve._core.FIELDS. What is not set, the packet lacks.
# Addresses need ip_ver (4 or 6) beside them. A column of width 1, 2, 4 or 16 bytes has `stride` bytes from row to row.
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
    cdef shared_ptr[const Classifier] table
    # Rule index, -1 for no rule, -(r+2) where rule r cannot be decided (csrc/include/meshsieve/types.h).
    cdef int32_t first_match(self, const PacketKey& key) noexcept nogil
    cdef void first_match_batch(self, const KeyColumns& keys, int32_t* out) noexcept nogil


cdef extern from "meshsieve/prefix_table.h" namespace "meshsieve" nogil:
    cdef cppclass PrefixHeld "meshsieve::PrefixTable::Held":
        pass

    cdef cppclass Prefix "meshsieve::PrefixTable::Prefix":
        bint is_v6
        U128 address
        int bits

    cdef cppclass PrefixTable:
        int64_t lookup(uint32_t ipv4, int64_t missing) except +
        int64_t lookup(U128 ipv6, int64_t missing) except +
        int64_t lookup(PrefixHeld& held, uint32_t ipv4, int64_t missing) except +
        int64_t lookup(PrefixHeld& held, U128 ipv6, int64_t missing) except +
        void put(const Prefix& prefix, int64_t value) except +
        bint drop(const Prefix& prefix) except +
        void lookup_batch(const void* addresses, uint32_t width, const uint8_t* is_v6, size_t n, int64_t missing,
                          int64_t* out) except +


cdef class PrefixLookup:
    cdef shared_ptr[PrefixTable] table
    cdef PrefixHeld held  # by whoever has the GIL
    cdef readonly object native
    cdef void hold(self, object native) except *
    # Value of the longest prefix, else `missing`.
    cdef int64_t longest_match4(self, uint32_t address, int64_t missing) noexcept nogil
    cdef int64_t longest_match6(self, U128 address, int64_t missing) noexcept nogil
    cdef int64_t value_of(self, object ip, int64_t missing) except? -1
    cdef int64_t value_of_other(self, object ip, int64_t missing) except? -1
    cdef int64_t value_of_any(self, object ip, int64_t missing) except? -1
    cdef int put(self, object prefix, object value) except -1
    cdef int drop(self, object prefix) except -1
