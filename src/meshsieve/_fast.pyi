"""Look-ups, called millions of times; docs in _fast.pyx."""

from typing import Any

import numpy as np
import numpy.typing as npt

class Lookup:
    """One immutable version of a compiled rule list. ``capsule``: ``_core.Classifier.capsule``."""

    def __init__(self, capsule: Any) -> None: ...
    def classify(
        self, src: Any = ..., dst: Any = ..., sport: Any = ..., dport: Any = ..., proto: Any = ..., **fields: Any
    ) -> int: ...
    def batch(
        self,
        columns: list[tuple[int, npt.NDArray[Any]]],
        present: npt.NDArray[np.uint32] | None,
        out: npt.NDArray[np.int32],
    ) -> None: ...

def __getattr__(name: str) -> Any: ...
