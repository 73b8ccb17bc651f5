# cython: language_level=3, boundscheck=False, wraparound=False, binding=False
"""Scalar and batch look-ups in compiled tables (the calls that are made millions of times)."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_GET_SIZE
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cimport numpy as cnp
import numpy as np

import ipaddress
import operator

from meshsieve import _core
from meshsieve._core import FIELDS
from meshsieve.errors import ColumnError, ModelError

cnp.import_array()

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef extern from *:
    """
    #include "meshsieve/classifier.h"
    using meshsieve::Field;
    static constexpr int kSrc = meshsieve::index_of(Field::src_ip), kDst = meshsieve::index_of(Field::dst_ip);
    static constexpr int kSport = meshsieve::index_of(Field::sport), kDport = meshsieve::index_of(Field::dport);
    static constexpr int kProto = meshsieve::index_of(Field::proto), kIpVer = meshsieve::index_of(Field::ip_ver);

    static inline uint64_t load_network_order(const char* bytes, int size) {
      uint64_t word = 0;
      for (int i = 0; i < size; ++i) word = word << 8 | static_cast<uint8_t>(bytes[i]);
      return word;
    }
    """
    uint64_t load_network_order(const char* bytes, int size) noexcept nogil
    int kSrc, kDst, kSport, kDport, kProto, kIpVer

cdef extern from "python_addresses.h":
    long long parse_dotted(const char* text, Py_ssize_t size) noexcept nogil
    bint parse_v6(const char* text, Py_ssize_t size, U128& address) noexcept nogil
    bint parse_prefix(const char* text, Py_ssize_t size, Prefix& prefix) noexcept nogil
    const char* ascii_text(object text, Py_ssize_t* size) noexcept
    long long usual_v4(object address) noexcept
    bint words_of(object number, U128& words) noexcept

cdef dict _FIELD_INDEX = {info.name: i for i, info in enumerate(FIELDS)}
cdef list _LARGEST = [2**128 - 1 if info.kind == "address" else 2**info.bits - 1 for info in FIELDS]


cdef object as_int(int field, object value):
    try:
        return int(operator.index(value))
    except TypeError:
        raise ColumnError(f"{FIELDS[field].name} is {value!r}; expected {'an address' if field < 2 else 'a number'}") \
            from None


cdef int put_number(PacketKey& key, int field, object value) except -1:
    cdef int overflow = 0
    if not PyLong_CheckExact(value):
        value = as_int(field, value)
    cdef long long number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < 0 or number > <long long>_LARGEST[field]:
        raise ColumnError(f"{FIELDS[field].name} is {value}; the field holds 0..{_LARGEST[field]}")
    set_number(key, field, <uint32_t>number)
    return 0


cdef int put_address(PacketKey& key, int field, object value, int version) except -1:
    """Sets one address and returns its IP version. ``version`` is what is known before: 0 if nothing is."""
    cdef int overflow = 0
    cdef long long number
    cdef Py_ssize_t size = 0
    cdef const char* text
    cdef U128 words
    if PyLong_CheckExact(value):
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow == 0 and 0 <= number <= 0xFFFFFFFF:
            set_address(key, field, 0, <uint64_t>number)
            return version if version else 4
        if value < 0 or value > _LARGEST[field] or version == 4:
            raise ColumnError(f"{FIELDS[field].name} is {value}, beyond an IPv{version or 6} address")
        set_address(key, field, <uint64_t>(value >> 64), <uint64_t>(value & 0xFFFFFFFFFFFFFFFF))
        return 6
    if PyUnicode_CheckExact(value):
        text = PyUnicode_AsUTF8AndSize(value, &size)
        number = parse_dotted(text, size)
        if number >= 0:
            set_address(key, field, 0, <uint64_t>number)
            return 4
        if parse_v6(text, size, words):
            set_address(key, field, words.hi, words.lo)
            return 6
        try:
            value = ipaddress.ip_address(value)
        except ValueError as error:
            raise ColumnError(f"{FIELDS[field].name}: {error}") from None
    if PyBytes_CheckExact(value):
        size = PyBytes_GET_SIZE(value)
        text = PyBytes_AS_STRING(value)
        if size == 4:
            set_address(key, field, 0, load_network_order(text, 4))
            return 4
        if size == 16:
            set_address(key, field, load_network_order(text, 8), load_network_order(text + 8, 8))
            return 6
        raise ColumnError(f"{FIELDS[field].name} has {size} bytes; a packed address has 4 or 16")
    if isinstance(value, (ipaddress.IPv4Address, ipaddress.IPv6Address)):
        return put_address(key, field, value.packed, 0)
    return put_address(key, field, as_int(field, value), version)


cdef class Lookup:
    """Look-ups in the table of ``capsule`` (``_core.Classifier.capsule``): one immutable version of a rule list."""

    def __cinit__(self, object capsule not None):
        cdef void* pointer = PyCapsule_GetPointer(capsule, b"meshsieve.Classifier/1")
        self.table = (<shared_ptr[const Classifier]*>pointer)[0]

    cdef int32_t first_match(self, const PacketKey& key) noexcept nogil:
        return self.table.get().lookup(key)

    cdef void first_match_batch(self, const KeyColumns& keys, int32_t* out) noexcept nogil:
        self.table.get().lookup_batch(keys, out)

    def classify(self, src=None, dst=None, sport=None, dport=None, proto=None, **fields):
        """The result for one packet; None or left out = the packet lacks the field. See ``PacketClassifier``."""
        cdef PacketKey key
        cdef int version = 0
        cdef int other = 0
        if fields:
            if "ip_ver" in fields and fields["ip_ver"] is not None:
                version = fields["ip_ver"]
            for name, value in fields.items():
                field = _FIELD_INDEX.get(name)
                if field is None or field == kSrc or field == kDst:
                    raise ColumnError(f"no field is called '{name}'; fields: {', '.join(_FIELD_INDEX)}")
                if value is not None:
                    put_number(key, field, value)
        if src is not None:
            other = put_address(key, kSrc, src, version)
        if dst is not None:
            seen = put_address(key, kDst, dst, version)
            if other and other != seen:
                raise ColumnError(f"src is an IPv{other} address and dst an IPv{seen} address")
            other = seen
        if other:
            if version and version != other:
                raise ColumnError(f"ip_ver is {version}, but the address given is IPv{other}")
            set_number(key, kIpVer, other)
        if sport is not None:
            put_number(key, kSport, sport)
        if dport is not None:
            put_number(key, kDport, dport)
        if proto is not None:
            put_number(key, kProto, proto)
        return self.table.get().lookup(key)

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


cdef object _IPv4Address = ipaddress.IPv4Address
cdef object _IPv6Address = ipaddress.IPv6Address

cdef extern from *:
    """
    struct PrefixChanges {
      std::vector<meshsieve::PrefixTable::Change> list;
      void remove(const meshsieve::PrefixTable::Prefix& prefix) { list.push_back({prefix, std::nullopt}); }
      void put(const meshsieve::PrefixTable::Prefix& prefix, int64_t value) { list.push_back({prefix, value}); }
      bool apply(meshsieve::PrefixTable& table) const { return table.apply(list); }
    };
    """
    cdef cppclass PrefixChanges:
        void remove(const Prefix& prefix) except +
        void put(const Prefix& prefix, int64_t value) except +
        bint apply(PrefixTable& table) except + nogil


def prefix_key(prefix):
    """(IP version, high word, low word, prefix length) of a prefix as text; ModelError where it is none."""
    cdef Prefix key
    read_prefix(prefix, key)
    return 6 if key.is_v6 else 4, key.address.hi, key.address.lo, key.bits


cdef int read_prefix(object prefix, Prefix& key) except -1:
    cdef Py_ssize_t size = 0
    cdef const char* text = ascii_text(prefix, &size)
    if text != NULL and parse_prefix(text, size, key):
        return 0
    try:
        net = ipaddress.ip_network(prefix)
    except ValueError as error:
        raise ModelError(f"'{prefix}' is not a prefix: {error}") from None
    address = int(net.network_address)
    key.is_v6 = net.version == 6
    key.address.hi = <uint64_t>(address >> 64)
    key.address.lo = <uint64_t>(address & 0xFFFFFFFFFFFFFFFF)
    key.bits = net.prefixlen
    return 0


cdef int64_t as_value(object prefix, object value) except? -1:
    cdef int overflow = 0
    cdef long long number = 0
    if not PyLong_CheckExact(value):
        if not isinstance(value, (int, np.integer)):
            raise ModelError(f"prefix {prefix}: the value {value!r} is not a 64-bit integer")
        value = int(value)
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow:
        raise ModelError(f"prefix {prefix}: the value {value!r} is not a 64-bit integer")
    return number


# Stands for "no prefix" until a second look-up tells whether it is a value after all.
cdef int64_t _UNLIKELY = -0x5DEECE66D0B1A2C3


cdef class PrefixLookup:
    """The look-ups of ``meshsieve.packets.PrefixTable``, which is the class to make; ``native``: its changes."""

    def __cinit__(self, *prefixes, **options):
        self.hold(_core.PrefixTable(options.get("backend", "auto")))

    cdef void hold(self, object native) except *:
        self.native = native
        capsule = native.capsule  # owns what the pointer points to
        cdef void* pointer = PyCapsule_GetPointer(capsule, b"meshsieve.PrefixTable/1")
        self.table = (<shared_ptr[PrefixTable]*>pointer)[0]

    @classmethod
    def of(cls, native):
        """The look-ups of a ``_core.PrefixTable``."""
        cdef PrefixLookup lookup = cls.__new__(cls)
        lookup.hold(native)
        return lookup

    def __getitem__(self, ip):
        """The value of the longest prefix that holds ``ip``; KeyError if there is none."""
        cdef int64_t value = self.value_of(ip, _UNLIKELY)
        if value == _UNLIKELY and self.value_of(ip, 0) == 0:
            raise KeyError(ip)
        return value

    def get(self, ip, default=None):
        """The value of the longest prefix that holds ``ip``, else ``default``."""
        cdef int64_t value = self.value_of(ip, _UNLIKELY)
        if value == _UNLIKELY and self.value_of(ip, 0) == 0:
            return default
        return value

    def __contains__(self, item):
        """Whether any prefix holds an address; of text with a length, whether the table has that prefix."""
        if PyUnicode_CheckExact(item) and "/" in item:
            return self.exact(item) is not None
        return self.value_of(item, 0) != 0 or self.value_of(item, 1) != 1

    def insert(self, prefix, value):
        """Adds a prefix, or gives it a new value."""
        self.put(prefix, value)

    def remove(self, prefix):
        """Removes a prefix; KeyError if it is not there."""
        self.drop(prefix)

    def __setitem__(self, prefix, value):
        self.put(prefix, value)

    def __delitem__(self, prefix):
        self.drop(prefix)

    cdef int put(self, object prefix, object value) except -1:
        cdef Prefix key
        cdef int64_t number = as_value(prefix, value)
        read_prefix(prefix, key)
        self.table.get().put(key, number)
        return 0

    cdef int drop(self, object prefix) except -1:
        cdef Prefix key
        read_prefix(prefix, key)
        if not self.table.get().drop(key):
            raise KeyError(f"not in the table: {prefix}; nothing was changed")
        return 0

    def change(self, remove, insert):
        """All in one publication. False, and nothing is done, if a prefix to remove is not there.

        remove  prefixes as text; insert  (prefix, value) pairs
        """
        cdef PrefixChanges changes
        cdef Prefix key
        cdef int64_t number
        for prefix in remove:
            read_prefix(prefix, key)
            changes.remove(key)
        for prefix, value in insert:
            number = as_value(prefix, value)
            read_prefix(prefix, key)
            changes.put(key, number)
        cdef bint done
        with nogil:
            done = changes.apply(self.table.get()[0])
        return done

    cdef int64_t longest_match4(self, uint32_t address, int64_t missing) noexcept nogil:
        return self.table.get().lookup(address, missing)

    cdef int64_t longest_match6(self, U128 address, int64_t missing) noexcept nogil:
        return self.table.get().lookup(address, missing)

    def lookup(self, ip, int64_t missing=-1):
        """The value of the longest prefix that holds ``ip``, else ``missing``."""
        return self.value_of(ip, missing)

    cdef inline int64_t value_of(self, object ip, int64_t missing) except? -1:
        cdef long long number = usual_v4(ip)
        if number >= 0:
            return self.table.get().lookup(self.held, <uint32_t>number, missing)
        return self.value_of_other(ip, missing)

    cdef int64_t value_of_other(self, object ip, int64_t missing) except? -1:
        """Of IPv6 addresses, and of what is neither a number, dotted text nor four bytes."""
        cdef U128 words
        cdef Py_ssize_t size = 0
        cdef const char* text
        if type(ip) is _IPv4Address:
            return self.value_of(ip._ip, missing)
        if type(ip) is _IPv6Address and words_of(ip._ip, words):
            return self.table.get().lookup(self.held, words, missing)
        if PyUnicode_CheckExact(ip):
            text = ascii_text(ip, &size)
            if text != NULL and parse_v6(text, size, words):
                return self.table.get().lookup(self.held, words, missing)
        elif PyBytes_CheckExact(ip) and PyBytes_GET_SIZE(ip) == 16:
            words.hi = load_network_order(PyBytes_AS_STRING(ip), 8)
            words.lo = load_network_order(PyBytes_AS_STRING(ip) + 8, 8)
            return self.table.get().lookup(self.held, words, missing)
        elif PyLong_CheckExact(ip) and words_of(ip, words):  # beyond 32 bits
            return self.table.get().lookup(self.held, words, missing)
        return self.value_of_any(ip, missing)

    cdef int64_t value_of_any(self, object ip, int64_t missing) except? -1:
        cdef PacketKey key
        try:
            if put_address(key, kSrc, ip, 0) == 6:
                return self.table.get().lookup(self.held, key.address[0], missing)
        except ColumnError as error:
            raise ColumnError(str(error).replace("src_ip", "the address", 1)) from None
        return self.table.get().lookup(self.held, <uint32_t>key.address[0].lo, missing)

    def batch(self, cnp.ndarray addresses not None, object is_v6, int64_t missing,
              cnp.ndarray[int64_t, ndim=1, mode="c"] out not None):
        """Fill ``out`` (int64 (n,)). ``addresses``: uint32 (n,), or uint64 (n, 2) with ``is_v6`` uint8 (n,) or None."""
        cdef size_t n = out.shape[0]
        cdef uint32_t width = addresses.itemsize * (addresses.shape[1] if addresses.ndim == 2 else 1)
        cdef const void* data = cnp.PyArray_DATA(addresses)
        cdef const uint8_t* families = NULL
        if is_v6 is not None:
            families = <const uint8_t*>cnp.PyArray_DATA(<cnp.ndarray>is_v6)
        cdef int64_t* results = <int64_t*>cnp.PyArray_DATA(out)
        with nogil:
            self.table.get().lookup_batch(data, width, families, n, missing, results)
