"""Stub of _fast_routes.pyx."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

class RouteLookup:
    """The look-ups of ``meshsieve.routes.Router``, which is the class to make."""

    def _publish(self, capsule: object) -> None: ...
    def find(
        self,
        host: str | bytes,
        path: str | bytes,
        method: str | bytes = "GET",
        headers: Iterable[tuple[str | bytes, str | bytes]] = (),
    ) -> int:
        """Position in ``routes`` of what takes a request over http; below 0 where no route does: -1 none of the virtual
        host's, -2 no virtual host, -3 refused before routing, -4 redirected to https.

        headers  pairs of name and value
        raises   TypeError for what is not text
        """
    def _lookup(
        self,
        method: bytes,
        scheme: bytes,
        authority: bytes | None,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        random: int,
        tls: int,
        facts: npt.NDArray[np.int64],
    ) -> tuple[int, int]: ...
    def _lookup_batch(
        self,
        native: Any,
        facts: npt.NDArray[np.int64],
        routes: npt.NDArray[np.int32],
        hosts: npt.NDArray[np.int32] | None,
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None: ...
