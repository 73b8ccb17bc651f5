"""What becomes of a connection or request in a mesh: a route's answer, and how it got there."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from meshsieve.routes.router import Match


@dataclass(frozen=True, slots=True)
class MeshMatch(Match):
    """A ``Match`` with the listener, filter chain and route configuration that led to it.

    action   also "tcp" and "tls" (forwarded as it is), "no_listener", "no_filter_chain", "closed", "tls_error" (TLS is
             asked for and the connection is plain), "mtls_error" (no client certificate), "protocol_error" (TLS where
             plain HTTP is spoken)
    status   503 where the cluster does not exist; ``reason`` says why
    """

    listener: str = ""
    filter_chain: str = ""
    route_config: str = ""

    @staticmethod
    def of(found: Match, **changes: Any) -> MeshMatch:
        """The same answer with more facts."""
        return MeshMatch(**{f.name: getattr(found, f.name) for f in fields(found)} | changes)
