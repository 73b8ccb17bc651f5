"""The C++ core as Python sees it. Arrays are copied in unless a docstring says otherwise; n is a number of rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

class FieldInfo:
    """One matcher field of csrc/include/meshsieve/fields.def."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str:
        """address, number or name."""
    @property
    def bits(self) -> int: ...
    @property
    def doc(self) -> str: ...

FIELDS: tuple[FieldInfo, ...]

class RuleSet:
    """The compiled engines' input; see meshsieve.model.

    raises  ModelError if ids or offsets are out of range, a set is not canonical, or a skip does not go forward
    """

    def __init__(
        self,
        offsets: npt.NDArray[np.uint64],
        intervals: npt.NDArray[np.uint64],
        common: npt.NDArray[np.int32],
        alternative_begin: npt.NDArray[np.uint32],
        alternatives: npt.NDArray[np.int32],
        action: npt.NDArray[np.uint8],
        skip_to: npt.NDArray[np.int32],
        certain: npt.NDArray[np.uint8],
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def fields_used(self) -> int:
        """Bit mask, by position in FIELDS, of the fields that any rule constrains."""

class CompileStats:
    engine: str
    backend: str
    rules: int
    segments: int
    bytes: int
    build_seconds: float
    worst_case_steps: int

class Classifier:
    @property
    def stats(self) -> CompileStats: ...
    @property
    def capsule(self) -> Any:
        """Capsule "meshsieve.Classifier/1" for meshsieve._fast.Lookup."""

def compile(rules: RuleSet, engine: str = ..., backend: str = ..., budget_bytes: int = ...) -> Classifier: ...
def engines() -> Sequence[tuple[str, str]]: ...
def __getattr__(name: str) -> Any: ...
