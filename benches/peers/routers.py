"""Routers under test: ``python -m benches.peers.routers LIBRARY WAY FOLDER``.

LIBRARY  ours, pymatchit, falcon, werkzeug, re2_set (google-re2), marisa, ahocorasick, dict (whole texts only: the
         floor), envoy (its CPU time for a whole HTTP request)
WAY      batch  ours by find_batch over columns; others have no such call and are asked once a request
         one    one Python call a request
A router without hosts gets the host as the first segment of the path.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benches import data, route_sets
from benches.peers.serve import Answers, headers_a_pass, peak_rss, reset_peak_rss, timed_passes
from benches.route_sets import HEADER, RouteSet, RouteSpec

Find = Callable[[int], Iterable[int]]  # the routes of the first n requests


def main() -> None:
    answers = Answers()
    library, way, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    facts = data.about(folder)
    made = route_sets.make(facts["kind"], facts["rules"], facts["seed"])
    if library == "envoy":
        return _envoy(answers, made)
    prepare = LIBRARIES[library]
    reset_peak_rss()
    before = peak_rss()
    try:
        build, finder = prepare(made, way)
        start = time.perf_counter()
        table = build()
        build_seconds = time.perf_counter() - start
        find = finder(table)
    except ImportError as error:
        answers.give_up(str(error))
    count = headers_a_pass(find, len(made.requests))

    def wrong(_: int) -> dict[str, Any]:
        found = np.array(list(find(count)), np.int64)
        return {"wrong": int((found != made.expected[:count]).sum()), "checked": count}

    answers.say({"build_s": round(build_seconds, 6), "peak_bytes": peak_rss() - before, "headers": count})
    answers.serve({"pass": lambda passes: timed_passes(lambda: find(count), passes, count), "wrong": wrong})


Made = tuple[Callable[[], Any], Callable[[Any], Find]]


def _ours(made: RouteSet, way: str) -> Made:
    routes = importlib.import_module("meshsieve.routes")
    columns = importlib.import_module("meshsieve.request_columns").RequestColumns
    read = importlib.import_module("meshsieve.routes.read_envoy").read_route_configuration
    config = read(route_sets.envoy_config(made.routes), "bench")
    hosts, paths, values = (list(column) for column in zip(*made.requests, strict=True))
    by_header = any(values)

    def finder(router: Any) -> Find:
        if way == "batch":
            given = {"method": "GET", "authority": hosts, "path": paths}
            batch = columns.of({**given, "headers": {HEADER: values}} if by_header else given)
            return lambda n: router.find_batch(batch)[:n]
        find = router.find
        if by_header:
            lines = [((HEADER, value),) for value in values]
            zipped = list(zip(hosts, paths, lines, strict=True))
            return lambda n: [find(h, p, "GET", line) for h, p, line in zipped[:n]]
        return lambda n: [find(h, p, "GET") for h, p in zip(hosts[:n], paths[:n], strict=True)]

    return lambda: routes.Router(config), finder


def _pattern(route: RouteSpec, parameter: str, rest: str) -> str:
    """The route in the syntax of a router with parameters, its host as the first segment."""
    if route.kind not in ("path", "prefix", "template"):
        raise ImportError(f"has no route by {route.kind}")
    host = f"/{route.host}" if route.host else ""
    return host + route.pattern.replace("{id}", parameter) + (rest if route.kind == "prefix" else "")


def _plain_paths(made: RouteSet) -> list[str]:
    hosted = any(route.host for route in made.routes)
    return [f"/{host}{path}" if hosted else path for host, path, _ in made.requests]


def _pymatchit(made: RouteSet, way: str) -> Made:
    library = importlib.import_module("pymatchit")
    patterns = [_pattern(route, "{id}", "{*rest}") for route in made.routes]
    paths = _plain_paths(made)

    def build() -> Any:
        router = library.PyRouter()
        for i, pattern in enumerate(patterns):
            router.insert(pattern, i)
        return router

    def finder(router: Any) -> Find:
        at = router.at
        return lambda n: [at(path)[0] for path in paths[:n]]

    return build, finder


def _falcon(made: RouteSet, way: str) -> Made:
    library = importlib.import_module("falcon.routing")
    patterns = [_pattern(route, "{id}", "{rest:path}") for route in made.routes]
    paths = _plain_paths(made)

    class Resource:
        def __init__(self, number: int) -> None:
            self.number = number

        def on_get(self, request: Any, response: Any) -> None: ...

    def build() -> Any:
        router = library.CompiledRouter()
        for i, pattern in enumerate(patterns):
            router.add_route(pattern, Resource(i))
        router.find(paths[0])  # compiles
        return router

    def finder(router: Any) -> Find:
        find = router.find
        return lambda n: [find(path)[0].number for path in paths[:n]]

    return build, finder


def _werkzeug(made: RouteSet, way: str) -> Made:
    library = importlib.import_module("werkzeug.routing")
    patterns = [_pattern(route, "<id>", "<path:rest>") for route in made.routes]
    paths = _plain_paths(made)

    def build() -> Any:
        rules = library.Map([library.Rule(pattern, endpoint=i) for i, pattern in enumerate(patterns)])
        adapter = rules.bind("h")
        adapter.match(paths[0])
        return adapter

    def finder(adapter: Any) -> Find:
        match = adapter.match
        return lambda n: [match(path)[0] for path in paths[:n]]

    return build, finder


def _re2_set(made: RouteSet, way: str) -> Made:
    library = importlib.import_module("re2")
    if any(route.kind != "regex" for route in made.routes):
        raise ImportError("is for regular expressions")
    paths = _plain_paths(made)

    def build() -> Any:
        options = library.Options()
        options.max_mem = 8 << 30
        found = library.Set.FullMatchSet(options)
        for route in made.routes:
            found.Add(route.pattern)
        found.Compile()
        return found

    def finder(found: Any) -> Find:
        match = found.Match
        return lambda n: [min(match(path)) for path in paths[:n]]

    return build, finder


def _prefixes_of(made: RouteSet) -> dict[str, int]:
    if any(route.kind != "prefix" for route in made.routes):
        raise ImportError("is for prefixes")
    return {route.pattern: i for i, route in enumerate(made.routes)}


def _marisa(made: RouteSet, way: str) -> Made:
    library = importlib.import_module("marisa_trie")
    numbers, paths = _prefixes_of(made), _plain_paths(made)

    def finder(trie: Any) -> Find:
        prefixes = trie.prefixes
        return lambda n: [numbers[prefixes(path)[-1]] for path in paths[:n]]

    return lambda: library.Trie(list(numbers)), finder


def _ahocorasick(made: RouteSet, way: str) -> Made:
    library = importlib.import_module("ahocorasick")
    numbers, paths = _prefixes_of(made), _plain_paths(made)

    def build() -> Any:
        automaton = library.Automaton()
        for prefix, number in numbers.items():
            automaton.add_word(prefix, number)
        return automaton

    def finder(automaton: Any) -> Find:
        longest = automaton.longest_prefix
        return lambda n: [numbers[path[: longest(path)]] for path in paths[:n]]

    return build, finder


def _dict(made: RouteSet, way: str) -> Made:
    if any(route.kind != "header" for route in made.routes):
        raise ImportError("knows whole texts only")
    values = [value for _, _, value in made.requests]

    def finder(table: dict[str, int]) -> Find:
        get = table.get
        return lambda n: [get(value, -1) for value in values[:n]]

    return lambda: {route.pattern: i for i, route in enumerate(made.routes)}, finder


def _envoy(answers: Answers, made: RouteSet) -> None:
    """CPU time of the Envoy process, a whole HTTP/1.1 request on a unix socket included."""
    from tests.differential.envoy_routes import asking

    ticks = os.sysconf("SC_CLK_TCK")
    wires = []
    for host, path, value in made.requests:
        header = f"{HEADER}: {value}\r\n" if value else ""
        wires.append(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{header}\r\n".encode())
    start = time.perf_counter()
    with asking(route_sets.envoy_config(made.routes)) as (ask, process):
        ready = time.perf_counter() - start

        def cpu_seconds() -> float:
            words = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(words[11]) + int(words[12])) / ticks

        def cpu_ns(count: int) -> float:
            before = cpu_seconds()
            ask(wires[:count])
            return (cpu_seconds() - before) / count * 1e9

        # The clock ticks every 10 ms, so a pass takes some 30 ticks.
        count = min(len(wires), max(64, int(0.3e9 / max(cpu_ns(256), 10_000))))

        def wrong(_: int) -> dict[str, Any]:
            found = [route for _, route in ask(wires[:count])]
            bad = sum(f != e for f, e in zip(found, made.expected[:count], strict=True))
            return {"wrong": bad, "checked": count}

        def passes(_: int) -> dict[str, Any]:
            return {"ns": [round(cpu_ns(count), 1)]}

        answers.say({"build_s": round(ready, 3), "headers": count, "note": "a whole HTTP request"})
        answers.serve({"pass": passes, "wrong": wrong})


LIBRARIES: dict[str, Callable[[RouteSet, str], Made]] = {
    "ours": _ours,
    "pymatchit": _pymatchit,
    "falcon": _falcon,
    "werkzeug": _werkzeug,
    "re2_set": _re2_set,
    "marisa": _marisa,
    "ahocorasick": _ahocorasick,
    "dict": _dict,
}

if __name__ == "__main__":
    main()
