"""Random route configurations asked of the real Envoy: ``python -m tests.differential.envoy_routes --worlds 5000``.

Each world (route_worlds.py) is a listener on a unix socket; every route answers by itself with a header that says which
it is. Compared are the compiled table and the linear reference.
5,000 worlds of 200 requests are a million; about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import copy
import select
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.request import Request
from meshsieve.routes import HttpOptions, Router, from_envoy
from meshsieve.routes.router import HTTPS_REDIRECT, NO_ROUTE, NO_VIRTUAL_HOST, REFUSED
from tests.differential.envoy import answering, free_ports, listener, running
from tests.differential.route_worlds import World, world
from tests.reference import routes as reference

CONNECTIONS = 16  # one request in flight each: Envoy closes HTTP/1 connections on which answers queue
WORLDS_A_PROCESS = 100
MARK = "x-route"
SEVERAL = frozenset({NO_ROUTE, NO_VIRTUAL_HOST, HTTPS_REDIRECT})  # a gRPC request gets status 200 for each


@dataclass
class Tally:
    """differences: (world, request, what was expected, what Envoy answered)."""

    requests: int = 0
    taken: int = 0
    differences: list[tuple[int, Request, int, Any]] = field(default_factory=list)


def compare(seeds: Iterator[int] | range, requests: int) -> Tally:
    """Worlds that we refuse to load are left out; one that only Envoy refuses is an error that names it."""
    tally = Tally()
    batch: list[tuple[World, Router]] = []
    for seed in seeds:
        made = world(seed, requests, live=True)
        try:
            batch.append((made, from_envoy(made.config)))
        except PolicyError:
            continue
        if len(batch) == WORLDS_A_PROCESS:
            _ask(batch, tally)
            batch = []
    if batch:
        _ask(batch, tally)
    return tally


def _ask(batch: list[tuple[World, Router]], tally: Tally) -> None:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, str(made.seed))) for made, _ in batch]
        listeners = [_listener(path, made) for path, (made, _) in zip(paths, batch, strict=True)]
        with running([*listeners, answering("ready", "127.0.0.1", port)], [], port):
            for path, (made, router) in zip(paths, batch, strict=True):
                answers = _Client(path).ask([_wire(request) for request in made.requests])
                found = router.find_batch(made.requests).tolist()
                for request, expected, answer in zip(made.requests, found, answers, strict=True):
                    linear = reference.find(router.config, HttpOptions(), request)
                    tally.requests += 1
                    tally.taken += expected >= 0
                    if expected != linear or not _agrees(expected, answer):
                        tally.differences.append(
                            (made.seed, request, expected, answer if expected == linear else linear)
                        )


@contextmanager
def asking(config: dict[str, Any]) -> Iterator[tuple[Callable[[list[bytes]], list[tuple[int, int | None]]], int]]:
    """Envoy with one configuration: what asks it requests as they go over the wire, and its process id."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "s"))
        listeners = [_listener(path, World(0, config)), answering("ready", "127.0.0.1", port)]
        with running(listeners, [], port) as process:
            yield _Client(path).ask, process


def _agrees(expected: int, answer: tuple[int, int | None]) -> bool:
    status, route = answer
    if expected >= 0 or route is not None:
        return route == expected
    if status == 200:
        return expected in SEVERAL
    return expected in {404: (NO_ROUTE, NO_VIRTUAL_HOST), 301: (HTTPS_REDIRECT,), 400: (REFUSED,)}.get(status, ())


def _listener(path: str, made: World) -> dict[str, Any]:
    config = copy.deepcopy(made.config)
    for number, route in enumerate(r for host in config["virtual_hosts"] for r in _routes(host)):
        route["response_headers_to_add"] = [{"header": {"key": MARK, "value": str(number)}}]
    out = listener(str(made.seed), "127.0.0.1", 1, [])
    out["address"] = {"pipe": {"path": path}}
    out["filter_chains"][0]["filters"][0]["typed_config"]["route_config"] = config
    return out


def _routes(host: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """In the order of ``Router.routes``."""
    yield from host.get("routes", ())
    if "matcher" in host:
        yield from _tree_routes(host["matcher"])


def _tree_routes(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    hits = [entry["on_match"] for entry in tree.get("matcher_list", {}).get("matchers", ())]
    for kind in ("exact_match_map", "prefix_match_map"):
        hits += tree.get("matcher_tree", {}).get(kind, {}).get("map", {}).values()
    hits += [tree["on_no_match"]] if "on_no_match" in tree else []
    for hit in hits:
        if "matcher" in hit:
            yield from _tree_routes(hit["matcher"])
            continue
        action = hit["action"]["typed_config"]
        yield from action.get("routes", [action])


def _wire(request: Request) -> bytes:
    lines = [f"{request.method} {request.path} HTTP/1.1", f"host: {request.authority}"]
    if request.scheme == "https":
        lines.append("x-forwarded-proto: https")
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.method == "POST":
        lines.append("content-length: 0")
    return "\r\n".join([*lines, "", ""]).encode()


class _Client:
    """Many requests to one listener over a few connections that stay open."""

    def __init__(self, path: str) -> None:
        self.path = path

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(self.path)
        return connection

    def ask(self, wires: list[bytes]) -> list[tuple[int, int | None]]:
        """(status, route that says it answered) of each."""
        answers: list[tuple[int, int | None]] = [(0, None)] * len(wires)
        waiting = iter(range(len(wires)))
        busy: dict[int, tuple[socket.socket, int, bytes]] = {}
        poll = select.poll()

        def send(connection: socket.socket) -> None:
            number = next(waiting, None)
            if number is None:
                connection.close()
                return
            connection.sendall(wires[number])
            busy[connection.fileno()] = (connection, number, b"")
            poll.register(connection, select.POLLIN)

        for _ in range(min(CONNECTIONS, len(wires))):
            send(self._connect())
        while busy:
            ready = poll.poll(20_000)
            if not ready:
                raise AssertionError(f"Envoy does not answer {[wires[n] for _, n, _ in busy.values()][:3]}")
            for descriptor, _ in ready:
                connection, number, before = busy.pop(descriptor)
                poll.unregister(descriptor)
                received = connection.recv(65536)
                answer = _answer(before + received)
                if answer is None and received:
                    busy[descriptor] = (connection, number, before + received)
                    poll.register(descriptor, select.POLLIN)
                    continue
                if answer is None:
                    raise AssertionError(f"Envoy closed the connection on {wires[number]!r}")
                answers[number] = answer[:2]
                if answer[2]:
                    connection.close()
                    connection = self._connect()
                send(connection)
        return answers


def _answer(received: bytes) -> tuple[int, int | None, bool] | None:
    """Status, route, and whether the connection ends; None while the answer is not complete."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    if len(body) < int(fields.get("content-length", 0)):
        return None
    route = fields.get(MARK)
    closes = fields.get("connection") == "close"
    return int(lines[0].split(" ")[1]), None if route is None else int(route), closes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worlds", type=int, default=100)
    parser.add_argument("--requests", type=int, default=200, help="a world (200)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    chosen = parser.parse_args()
    tally = compare(range(chosen.first, chosen.first + chosen.worlds), chosen.requests)
    for seed, request, expected, answer in tally.differences[:20]:
        print(f"world {seed}: expected {expected}, answered {answer}: {request}", file=sys.stderr)
    print(f"{tally.requests} requests, {tally.taken} taken by a route, {len(tally.differences)} differences")
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())
