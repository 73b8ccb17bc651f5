# cython: language_level=3, boundscheck=False, wraparound=False
"""Route look-ups (the calls that are made millions of times); see meshsieve.routes.router."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint64_t, uint8_t
from libcpp.vector cimport vector

cimport numpy as cnp
import numpy as np

from meshsieve.errors import ColumnError

cnp.import_array()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from *:
    """
    #include "meshsieve/route_table.h"
    static inline meshsieve::RouteAnswer lookup_view(
        const meshsieve::RouteTable& table, std::string_view method, std::string_view scheme, bool has_authority,
        std::string_view authority, std::string_view target, const std::vector<meshsieve::HeaderLine>& lines,
        uint64_t random, uint8_t tls, const int64_t* facts) {
      meshsieve::RequestView view;
      view.method = method, view.scheme = scheme, view.authority = authority, view.has_authority = has_authority;
      view.target = target, view.random = random, view.tls = tls, view.headers = lines;
      const size_t end = target.find_first_of("?#");
      view.path_size = end == std::string_view::npos ? target.size() : end;
      return table.lookup(view, facts);
    }
    static inline int32_t find_route(const meshsieve::RouteTable& table, std::string_view authority,
                                     std::string_view target, std::string_view method,
                                     const std::vector<meshsieve::HeaderLine>& lines) {
      return table.find(authority, target, method, lines);
    }
    static inline std::string_view without_blanks(std::string_view text) {
      while (!text.empty() && (text.front() == ' ' || text.front() == '\\t')) text.remove_prefix(1);
      while (!text.empty() && (text.back() == ' ' || text.back() == '\\t')) text.remove_suffix(1);
      return text;
    }
    """
    int32_t find_route(const RouteTable& table, string_view authority, string_view target, string_view method,
                       const vector[HeaderLine]& lines) except +
    string_view without_blanks(string_view text) noexcept
    RouteAnswer lookup_view(const RouteTable& table, string_view method, string_view scheme, cpp_bool has_authority,
                            string_view authority, string_view target, const vector[HeaderLine]& lines,
                            uint64_t random, uint8_t tls, const int64_t* facts) except +

# Rows between two looks for Ctrl-C: some milliseconds.
cdef size_t CHUNK = 1 << 15


cdef inline string_view bytes_of(object text) except *:
    cdef Py_ssize_t size = 0
    cdef const char* data
    if PyUnicode_CheckExact(text):
        data = PyUnicode_AsUTF8AndSize(text, &size)
        return string_view(data, <size_t>size)
    if PyBytes_CheckExact(text):
        return string_view(PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text))
    raise TypeError(f"expected text, got {type(text).__name__}")


cdef bytes _raw(text):
    return text if PyBytes_CheckExact(text) else text.encode("utf-8", "surrogateescape")


cdef class RouteLookup:
    """The look-ups of ``meshsieve.routes.Router``, which is the class to make."""

    def _publish(self, object capsule not None):
        """Answer from the table of ``capsule`` (``_core.RouteTable.capsule``) from now on; a call that is under way
        ends with the table it began with."""
        self.table = (<shared_ptr[const RouteTable]*>PyCapsule_GetPointer(capsule, b"meshsieve.RouteTable/1"))[0]

    def find(self, host, path, method="GET", headers=()):
        """Position in ``routes`` of what takes a request over http; below 0 where no route does: -1 none of the virtual
        host's, -2 no virtual host, -3 refused before routing, -4 redirected to https.

        headers  pairs of name and value
        raises   TypeError for what is not text
        """
        cdef vector[HeaderLine] lines
        cdef HeaderLine line
        try:
            for name, value in headers:
                line.slot = self.table.get().names().find(bytes_of(name.lower()))
                if line.slot >= 0:
                    line.value = without_blanks(bytes_of(value))
                    lines.push_back(line)
            return find_route(self.table.get()[0], bytes_of(host), bytes_of(path), bytes_of(method), lines)
        except UnicodeEncodeError:  # bytes that were no UTF-8 where the text came from
            lowered = [(_raw(name), _raw(value)) for name, value in headers]
            return self.find(_raw(host), _raw(path), _raw(method), lowered)

    def _lookup(self, bytes method not None, bytes scheme not None, authority, bytes target not None,
                list headers not None, uint64_t random, uint8_t tls,
                cnp.ndarray[int64_t, ndim=1, mode="c"] facts not None):
        """(route, host) of a request that was read by ``http_options.view``."""
        cdef shared_ptr[const RouteTable] table = self.table
        cdef vector[HeaderLine] lines
        cdef HeaderLine line
        if <size_t>facts.shape[0] != table.get().fact_count():
            raise ColumnError("the facts are those of another table")
        for name, value in headers:
            line.slot = table.get().names().find(bytes_of(name))
            if line.slot >= 0:
                line.value = bytes_of(value)
                lines.push_back(line)
        cdef string_view host
        if authority is not None:
            host = bytes_of(authority)
        cdef RouteAnswer answer = lookup_view(
            table.get()[0], bytes_of(method), bytes_of(scheme), authority is not None, host, bytes_of(target), lines,
            random, tls, <const int64_t*>cnp.PyArray_DATA(facts))
        return answer.route, answer.host

    def _lookup_batch(self, object native not None, cnp.ndarray[int64_t, ndim=2, mode="c"] facts not None,
                      cnp.ndarray[int32_t, ndim=1, mode="c"] routes not None,
                      cnp.ndarray[int32_t, ndim=1, mode="c"] hosts, cnp.ndarray[int64_t, ndim=1, mode="c"] rows=None):
        """Fill ``routes`` (and ``hosts``) for the rows of a ``_core.RequestBatch``, all or those given. facts: a row a
        context."""
        capsule = native.capsule
        cdef const RequestBatch* batch = <const RequestBatch*>PyCapsule_GetPointer(capsule, b"meshsieve.RequestBatch/1")
        cdef shared_ptr[const RouteTable] table = self.table
        cdef size_t n = batch.n
        cdef size_t start = 0
        cdef size_t end
        if <size_t>routes.shape[0] != n or (hosts is not None and <size_t>hosts.shape[0] != n):
            raise ColumnError(f"out must have a row a request ({n})")
        if <size_t>facts.shape[1] != table.get().fact_count():
            raise ColumnError("the facts are those of another table")
        cdef const int64_t* chosen = NULL
        if rows is not None:
            if rows.shape[0] and (rows.min() < 0 or <size_t>rows.max() >= n):
                raise ColumnError(f"rows must lie below {n}")
            chosen = <const int64_t*>cnp.PyArray_DATA(rows)
            n = rows.shape[0]
        cdef size_t contexts = facts.shape[0]
        cdef const int64_t* values = <const int64_t*>cnp.PyArray_DATA(facts)
        cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(routes)
        cdef int32_t* out_hosts = NULL
        if hosts is not None:
            out_hosts = <int32_t*>cnp.PyArray_DATA(hosts)
        while start < n:
            end = min(start + CHUNK, n)
            with nogil:
                table.get().lookup_batch(batch[0], values, contexts, chosen, start, end, out, out_hosts)
            PyErr_CheckSignals()
            start = end
