"""Workloads by number, for columns of requests: who has an address, and what is known of whom.

Number ``nobody``, the last, stands where nobody known is; its facts are those of no workload.
"""

from __future__ import annotations

import ipaddress

import numpy as np
import numpy.typing as npt

from meshsieve import _core
from meshsieve.walk.topology import Place, Topology

Numbers = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]
Versions = npt.NDArray[np.uint8]
_WORD = 2**64 - 1


class Places:
    """The workloads of a topology.

    places      by number
    is_gateway  bool, has_proxy bool, words uint64 (, 2) and version uint8 (its own address; 0: it has none), by number,
                with one more for nobody
    """

    def __init__(self, topology: Topology | None) -> None:
        self.places: list[Place] = topology.all() if topology is not None else []
        self._numbers = {id(place): i for i, place in enumerate(self.places)}
        everyone = [*self.places, None]
        self.is_gateway = np.array([p is not None and p.is_gateway for p in everyone], np.bool_)
        self.has_proxy = np.array([p is not None and p.proxy is not None for p in everyone], np.bool_)
        own = [p.workload.addresses[0] if p is not None and p.workload.addresses else None for p in everyone]
        self.words, self.version = _addresses(own)
        known = topology.addresses if topology is not None else {}
        single = {text: place for text, place in known.items() if "/" not in text}
        self._index = _core.RowIndex()
        self._index.codes(_columns(*_addresses(list(single))))
        self._owners = np.array([*(self.number(place) for place in single.values()), self.nobody], np.int32)

    @property
    def nobody(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Place | None:
        return self.places[number] if number < self.nobody else None

    def number(self, place: Place | None) -> int:
        return self.nobody if place is None else self._numbers[id(place)]

    def at(self, words: Words, version: Versions) -> Numbers:
        """int32 (n,): who has each address; version 0 is nobody's."""
        codes = self._index.find(_columns(words, version))
        return np.where(version > 0, self._owners[codes], self.nobody).astype(np.int32)


def _columns(words: Words, version: Versions) -> list[npt.NDArray[np.int64]]:
    return [
        np.ascontiguousarray(words[:, 0]).view(np.int64),
        np.ascontiguousarray(words[:, 1]).view(np.int64),
        version.astype(np.int64),
    ]


def _addresses(texts: list[str | None] | list[str]) -> tuple[Words, Versions]:
    words, version = np.zeros((len(texts), 2), np.uint64), np.zeros(len(texts), np.uint8)
    for i, text in enumerate(texts):
        if text is not None:
            address = ipaddress.ip_address(text)
            words[i] = int(address) >> 64, int(address) & _WORD
            version[i] = address.version
    return words, version
