"""Stub of _fast_authz.pyx."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from meshsieve.authz.model import Clause, Field, Rule
from meshsieve.request import Request
from meshsieve.routes.http_options import HttpOptions

STEP_KINDS: tuple[str, ...]

class TableBuilder:
    opaque: list[Clause]
    context_fields: dict[int, Field]
    def __init__(self) -> None: ...
    def look_at_header(self, name: str) -> None: ...
    def rule(self, rule: Rule, allows: bool) -> int: ...
    def chain(self, steps: list[tuple[str, list[int]]], tcp: bool) -> int: ...
    def build(self) -> Table: ...

class Contexts: ...

class Table:
    opaque: list[Clause]
    context_fields: dict[int, Field]
    rules: tuple[Rule, ...]
    @property
    def statistics(self) -> dict[str, int]: ...
    def set_options(self, http: HttpOptions, trusted_proxies: int) -> None: ...
    def steps(self, chain: int) -> int: ...
    def contexts(self, values: list[list[tuple[int, bytes]]]) -> Contexts: ...
    def rows(
        self,
        capsule: Any,
        chain: npt.NDArray[np.uint32],
        contexts: Contexts,
        begin: int,
        end: int,
        allowed: npt.NDArray[np.uint8],
        refused: npt.NDArray[np.uint8],
        step: npt.NDArray[np.int32],
        rule: npt.NDArray[np.int32],
        audit: npt.NDArray[np.int32],
        pending: npt.NDArray[np.int32],
        asked: npt.NDArray[np.int32],
    ) -> None: ...
    def one(
        self, chain: int, request: Request, answers: dict[int, bool], found: list[int] | None
    ) -> tuple[int, bool, int, int, int, int, int]: ...

class Checker:
    table: Table
    def check(
        self,
        method: str = "GET",
        path: str = "/",
        authority: str = "",
        principal: str | None = None,
        source_ip: str | None = None,
        destination_port: int | None = None,
        *,
        headers: Sequence[tuple[str, str]] = (),
        request: Request | None = None,
        chain: int = 0,
    ) -> tuple[bool, Rule | None]: ...
