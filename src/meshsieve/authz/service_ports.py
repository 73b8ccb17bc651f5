"""Which ports a workload has, and which of them are not read as HTTP: what the services in front of it say.

A port is TCP where its service says so (``tcp-...``, ``mongo``, ``tls``, ``appProtocol``, a port whose server speaks
first). A port that says nothing is detected from its bytes and counts as HTTP here, as the request is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshsieve.mesh.services import TCP_PROTOCOLS, TLS_PROTOCOLS, Service


def service_ports(
    services: Iterable[Service], namespace: str, labels: Mapping[str, str], named: Mapping[str, int]
) -> dict[int, bool] | None:
    """Whether each port of a workload is TCP; None where a service names a port that nobody knows.

    named  numbers of the workload's named ports
    """
    out: dict[int, bool] = {}
    for service in services:
        mine = service.namespace == namespace and service.selector
        if not mine or any(labels.get(key) != value for key, value in service.selector.items()):
            continue
        for port in service.ports:
            target = port.target if port.target is not None else port.number
            number = named.get(target) if isinstance(target, str) else target
            if number is None:
                return None
            tcp = port.protocol in TCP_PROTOCOLS or port.protocol in TLS_PROTOCOLS
            out[number] = out.get(number, True) and tcp
    return out
