"""Facts: what a route table wants to know of a request's structured values (metadata, filter state, runtime keys).

The compiled table reads numbers, so each matcher over such values is worked out here, once for each distinct set of
values and not once a request: 0 or 1 for a matcher, the percentage or ``UNSET`` for a runtime key.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from meshsieve.request import Request
from meshsieve.routes.http_options import RequestView
from meshsieve.routes.model import FilterStateMatch, MetadataMatch
from meshsieve.routes.reference import filter_state_holds, metadata_holds

UNSET = -(2**63)
Fact = MetadataMatch | FilterStateMatch | str  # str: a runtime key


class Facts:
    """The facts of one table, numbered in the order of their first use."""

    def __init__(self) -> None:
        self._facts: dict[Fact, int] = {}

    def number(self, fact: Fact) -> int:
        return self._facts.setdefault(fact, len(self._facts))

    def of(self, contexts: Iterable[Request]) -> npt.NDArray[np.int64]:
        """int64 (contexts, facts)."""
        rows = [[_value(fact, request) for fact in self._facts] for request in contexts]
        return np.array(rows, np.int64).reshape(len(rows), len(self._facts))


def _value(fact: Fact, request: Request) -> int:
    if isinstance(fact, str):
        override = request.runtime.get(fact)
        return UNSET if override is None else max(-(2**62), min(2**62, int(override)))
    seen = RequestView(request, b"", b"", None, b"", [])
    if isinstance(fact, MetadataMatch):
        return metadata_holds(fact, seen)
    return filter_state_holds(fact, seen)
