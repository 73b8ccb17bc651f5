"""The cases that a bench runs on: rules, headers and the expected verdict of each header, in a folder of files.

A case is made once and kept in a cache (``MESHSIEVE_BENCH_CACHE``, else the user's cache folder), named by the content
of the generating code, so that a change of it never meets old files. The expected verdicts come from a plain linear
scan over the rules as written, which no program under test shares code with.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benches import boxes, classbench, groups, hard_sets, traces
from benches.boxes import Boxes, Headers
from benches.process import compiled
from meshsieve.columns import PacketColumns
from meshsieve.model import RuleSet

HERE = Path(__file__).resolve().parent
GENERATORS = (
    "boxes",
    "families",
    "classbench",
    "traces",
    "hard_sets",
    "groups",
    "data",
    "prefixes",
    "traffic",
    "authz_policies",
    "route_sets",
    "meshes",
    "plain_walk",
    "engine",
)
SEED = 1

Verdicts = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Material:
    """What a case is made of.

    files  by name, whose suffix is the element type: rules.u32 (n, 10) and headers.u32 (m, 5) as in benches/boxes.py,
           expected.i32 (m,) unless the judge has to find the verdicts. A policy of groups has no rules.u32: it is
           generated anew where it is needed, from the facts.
    facts  recorded with the row
    """

    files: dict[str, npt.NDArray[Any]]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What one row of a table is about.

    name    unique in a run
    suite   which part of the bench it belongs to
    about   what is recorded with the row: family, seed, trace, ...
    make    generates or reads it
    folder  where it is kept in the cache, if not by its name
    """

    name: str
    suite: str
    about: dict[str, Any]
    make: Callable[[], Material] = field(repr=False, compare=False)
    folder: str = ""


def cache_folder() -> Path:
    """Where cases and compiled peers are kept; of older generators nothing is left."""
    chosen = os.environ.get("MESHSIEVE_BENCH_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "meshsieve-benches"
    digest = hashlib.sha256(b"".join((HERE / f"{name}.py").read_bytes() for name in GENERATORS)).hexdigest()[:12]
    folder = (Path(chosen) if chosen else home) / digest
    if not folder.exists():
        for stale in folder.parent.glob("?" * 12):
            shutil.rmtree(stale, ignore_errors=True)
        folder.mkdir(parents=True)
    return folder


def materialise(case: Case, cache: Path) -> Path:
    """The case's folder, made if it is not there: the files of its ``Material``, expected.i32, about.json."""
    folder = cache / "cases" / (case.folder or case.name)
    if (folder / "about.json").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    made = case.make()
    for name, array in made.files.items():
        np.ascontiguousarray(array).tofile(folder / name)
    facts = {**case.about, **made.facts}
    if {"rules.u32", "headers.u32"} <= made.files.keys() and "expected.i32" not in made.files:
        subprocess.run([compiled("linear_scan.c", (), cache), "--judge", folder], check=True)
    if (folder / "expected.i32").exists():
        facts["hits"] = round(float((load_expected(folder) >= 0).mean()), 4)
    (folder / "about.json").write_text(json.dumps(facts))
    return folder


def about(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "about.json").read_text())
    return facts


def load_rules(folder: Path) -> RuleSet:
    facts = about(folder)
    if facts.get("family") == "groups":
        return groups.Policy(facts["rules"], facts["seed"]).rule_set
    return boxes.to_rule_set(np.fromfile(folder / "rules.u32", np.uint32).reshape(-1, 10), facts.get("version", 4))


def load_headers(folder: Path) -> Headers:
    return np.fromfile(folder / "headers.u32", np.uint32).reshape(-1, 5)


def load_columns(folder: Path) -> PacketColumns:
    return boxes.to_columns(load_headers(folder), about(folder).get("version", 4))


def load_expected(folder: Path) -> Verdicts:
    return np.fromfile(folder / "expected.i32", np.int32)


# --- the catalogue ------------------------------------------------------------------------------------------------


def families(sizes: list[int], headers: int, names: list[str] | None = None) -> Iterator[Case]:
    for n in sizes:
        for family in names or list(classbench.FAMILIES):
            yield _generated("families", family, n, headers, "uniform")


def skewed(sizes: list[int], headers: int) -> Iterator[Case]:
    """Zipf traces and headers that miss, for one family of each kind."""
    for n in sizes:
        for family in ("acl1", "fw1", "ipc1"):
            for trace in ("zipf1.0", "zipf1.1", "mixed"):
                yield _generated("traces", family, n, headers, trace)


def ipv6(sizes: list[int], headers: int) -> Iterator[Case]:
    """The uniform cases of one family of each kind with their addresses embedded in IPv6: same verdicts, wider keys."""
    for n in sizes:
        for family in ("acl1", "fw1", "ipc1"):
            case = _generated("ipv6", family, n, headers, "uniform")
            yield replace(case, name=f"{case.name}_ipv6", about={**case.about, "version": 6})


def updates(sizes: list[int], headers: int) -> Iterator[Case]:
    """Lists of one family of each kind, which are changed while they are looked up in."""
    for n in sizes:
        for family in ("acl1", "fw1", "ipc1"):
            case = _generated("updates", family, n, headers, "uniform")
            yield replace(case, name=f"{case.name}_updates")


def growth(sizes: list[int], headers: int) -> Iterator[Case]:
    for family in ("acl1", "fw1", "ipc1"):
        for n in sizes:
            yield _generated("growth", family, n, headers, "uniform")


def hard(headers: int) -> Iterator[Case]:
    for make in (hard_sets.short_prefixes, hard_sets.port_ranges, hard_sets.length_pairs, hard_sets.identical):
        facts = {"family": make.__name__, "seed": 3, "trace": "uniform"}
        yield Case(make.__name__, "hard", facts, lambda make=make: _with_trace(make(), headers, "uniform"))


def group_policies(sizes: list[int], headers: int) -> Iterator[Case]:
    for n in sizes:
        for trace in ("uniform", "zipf1.1"):
            facts = {"family": "groups", "rules": n, "seed": 5, "trace": trace}
            yield Case(f"groups_{n}_{trace}", "groups", facts, lambda n=n, t=trace: _group_case(n, headers, t))


def given(folder: Path) -> Iterator[Case]:
    """The sets of a folder in the shared format: NAME.rules.gz and NAME.trace.gz with the expected verdicts.

    raises  FileNotFoundError if there is none
    """
    found = sorted(folder.glob("*.rules.gz"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no *.rules.gz")
    for path in found:
        name = path.name.removesuffix(".rules.gz")
        facts = {"family": name, "seed": None, "trace": "given"}
        stamp = hashlib.sha256(f"{path.resolve()} {path.stat().st_mtime_ns}".encode()).hexdigest()[:12]
        yield Case(name, "given", facts, lambda p=path: _read_given(p), folder=f"given_{stamp}")


def short(n: int) -> str:
    """1000 as 1k."""
    return f"{n // 1000}k" if n % 1000 == 0 else str(n)


def _generated(suite: str, family: str, n: int, headers: int, trace: str) -> Case:
    facts = {"family": family, "asked": n, "seed": SEED, "trace": trace}
    name = f"{family}_{short(n)}" + ("" if trace == "uniform" else f"_{trace}")
    return Case(name, suite, facts, lambda: _with_trace(classbench.rules(family, n, SEED), headers, trace))


def _with_trace(rules: Boxes, count: int, trace: str) -> Material:
    headers = traces.mixed(rules, count) if trace == "mixed" else traces.uniform(rules, count)
    if trace.startswith("zipf"):
        headers = headers[traces.zipf_order(count, float(trace[4:]))]
    return Material({"rules.u32": rules, "headers.u32": headers}, {"rules": len(rules), "headers": count})


def _group_case(n: int, count: int, trace: str) -> Material:
    policy = groups.Policy(n)
    headers = policy.headers(count)
    if trace.startswith("zipf"):
        headers = headers[traces.zipf_order(count, float(trace[4:]))]
    facts = {"headers": count, "five_tuples": policy.five_tuples}
    return Material({"headers.u32": headers, "expected.i32": policy.expected(headers)}, facts)


def _read_given(path: Path) -> Material:
    with gzip.open(path, "rt") as lines:
        rules = np.array([_classbench_line(line) for line in lines if line.strip()], np.uint32)
    trace = path.with_name(path.name.replace(".rules.gz", ".trace.gz"))
    columns = np.loadtxt(trace, dtype=np.int64, delimiter="\t", ndmin=2)
    files = {"rules.u32": rules, "headers.u32": columns[:, :5], "expected.i32": columns[:, 5]}
    types = {"u32": np.uint32, "i32": np.int32}
    return Material(
        {name: array.astype(types[name[-3:]]) for name, array in files.items()},
        {"rules": len(rules), "headers": len(columns)},
    )


def _classbench_line(line: str) -> list[int]:
    source, destination, sport, dport, proto = line.strip().lstrip("@").split("\t")[:5]
    box: list[int] = []
    for text in (source, destination):
        address, length = text.split("/")
        value = int.from_bytes(bytes(map(int, address.split("."))), "big")
        low_bits = (1 << (32 - int(length))) - 1
        box += [value & ~low_bits, value | low_bits]
    for text in (sport, dport):
        box += [int(end) for end in text.split(":")]
    value, mask = (int(part, 16) for part in proto.split("/"))
    return box + ([value, value] if mask else [0, 255])
