# Route look-ups, for Python and for other Cython extensions: meshsieve/route_table.h says what they answer.
from libc.stdint cimport int32_t, int64_t
from libcpp cimport bool as cpp_bool
from libcpp.memory cimport shared_ptr


cdef extern from "<string_view>" namespace "std" nogil:
    cdef cppclass string_view:
        string_view()
        string_view(const char* data, size_t size)


cdef extern from "meshsieve/request_batch.h" namespace "meshsieve" nogil:
    cdef cppclass RequestBatch:
        size_t n


cdef extern from "meshsieve/request_view.h" namespace "meshsieve" nogil:
    cdef cppclass HeaderNames:
        int32_t find(string_view name)

    cdef cppclass HeaderLine:
        int32_t slot
        string_view value


cdef extern from "meshsieve/route_table.h" namespace "meshsieve" nogil:
    cdef cppclass RouteAnswer:
        int32_t route
        int32_t host

    cdef cppclass RouteTable:
        void lookup_batch(const RequestBatch& batch, const int64_t* facts, size_t contexts, const int64_t* rows, size_t begin,
                          size_t end, int32_t* routes, int32_t* hosts) except +
        const HeaderNames& names()
        size_t fact_count()


cdef class RouteLookup:
    cdef shared_ptr[const RouteTable] table
