# cython: language_level=3
"""A look-up loop of another extension: no Python object a packet, no GIL."""

from libc.stdint cimport int32_t, uint32_t

from meshsieve._fast cimport Lookup, PacketKey, set_address, set_number
from meshsieve.model import FIELD_INDEX


def count_hits(Lookup lookup not None, uint32_t first, uint32_t last, uint32_t port):
    """How many of the addresses ``first`` to ``last`` some rule lets decide as TCP source towards ``port``."""
    cdef int src = FIELD_INDEX["src_ip"], dport = FIELD_INDEX["dport"]
    cdef int proto = FIELD_INDEX["proto"], ip_ver = FIELD_INDEX["ip_ver"]
    cdef PacketKey key
    cdef uint32_t address
    cdef long hits = 0
    set_number(key, ip_ver, 4)
    set_number(key, proto, 6)
    set_number(key, dport, port)
    with nogil:
        for address in range(first, last + 1):
            set_address(key, src, 0, address)
            hits += lookup.first_match(key) >= 0
    return hits
