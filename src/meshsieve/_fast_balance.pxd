# Scalar and batch picks, for Python and for other Cython extensions.
#
#     from meshsieve._fast_balance cimport Picker
#
# A `Picker` shares ownership of a frozen table (csrc/include/meshsieve/balance/host_table.h): any number of threads may
# use one. `choose` and `choose_batch` neither touch Python nor raise; they answer the host's index, -1 for no host.
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libcpp.memory cimport shared_ptr


cdef extern from "meshsieve/balance/host_table.h" namespace "meshsieve::balance" nogil:
    cdef cppclass HostTable:
        int32_t pick(uint64_t h, uint32_t attempt)
        void pick_batch(const uint64_t* h, size_t n, uint32_t attempt, int32_t* out)

    shared_ptr[const HostTable] empty_table()


cdef class Picker:
    cdef shared_ptr[const HostTable] table
    cdef int32_t choose(self, uint64_t key_hash, uint32_t attempt) noexcept nogil
    cdef void choose_batch(self, const uint64_t* hashes, size_t n, uint32_t attempt, int32_t* out) noexcept nogil
