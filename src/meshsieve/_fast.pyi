"""Look-ups, called millions of times; docs in _fast.pyx."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt

class Lookup:
    """One immutable version of a compiled rule list. ``capsule``: ``_core.Classifier.capsule``."""

    def __new__(cls, capsule: Any) -> Self: ...
    def classify(
        self, src: Any = ..., dst: Any = ..., sport: Any = ..., dport: Any = ..., proto: Any = ..., **fields: Any
    ) -> int: ...
    def batch(
        self,
        columns: list[tuple[int, npt.NDArray[Any]]],
        present: npt.NDArray[np.uint32] | None,
        out: npt.NDArray[np.int32],
    ) -> None: ...

class PrefixLookup:
    """The look-ups of ``meshsieve.packets.PrefixTable``, which is the class to make."""

    native: Any
    def __new__(cls, prefixes: Any = ..., *, backend: str = ...) -> Self: ...
    @classmethod
    def of(cls, native: Any) -> Self: ...
    def __getitem__(self, ip: Any) -> int: ...
    def put(self, prefix: str, value: int) -> bool: ...
    def drop(self, prefix: str) -> bool: ...
    def lookup(self, ip: Any, missing: int = ...) -> int: ...
    def batch(
        self,
        addresses: npt.NDArray[Any],
        is_v6: npt.NDArray[np.uint8] | None,
        missing: int,
        out: npt.NDArray[np.int64],
    ) -> None: ...

def __getattr__(name: str) -> Any: ...
