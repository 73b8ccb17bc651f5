"""The command line that every subject shares."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    subject: str
    data: Path | None
    quick: bool
    json: bool
    suites: list[str]
    only: list[str]
    sizes: list[int]
    peers: list[str]
    patience: float
    chart: bool
    save: Path | None

    def wants(self, suite: str, case: str) -> bool:
        return (not self.suites or suite in self.suites) and (
            not self.only or any(fnmatch(case, pattern) for pattern in self.only)
        )

    @contextlib.contextmanager
    def until_interrupted(self, facts: dict[str, Any]) -> Iterator[None]:
        """Ends a run at Ctrl-C or SIGTERM and lets what was measured so far be reported; ``facts`` say so."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        except KeyboardInterrupt:
            facts["interrupted"] = True
            print("interrupted; the rows so far follow", file=sys.stderr)
        finally:
            signal.signal(signal.SIGTERM, before)


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _sizes(text: str) -> list[int]:
    return [int(float(word.rstrip("k")) * (1000 if word.endswith("k") else 1)) for word in _words(text)]


def parse(subjects: list[str], arguments: list[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m benches", description="Benchmarks with peers; see benches/README.md."
    )
    parser.add_argument("subject", choices=subjects)
    parser.add_argument("--data", type=Path, help="folder with the sets to use instead of the generated ones")
    parser.add_argument("--quick", action="store_true", help="a small part, in less than a minute")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--suite", type=_words, default=[], dest="suites", help="only these parts, separated by commas")
    parser.add_argument(
        "--only", type=_words, default=[], help="only cases of these names (wildcards), separated by commas"
    )
    parser.add_argument("--sizes", type=_sizes, default=[], help="numbers of rules, such as 1k,10k,100k")
    parser.add_argument("--peers", type=_words, default=[], help="only these peers, separated by commas")
    parser.add_argument("--patience", type=float, default=120, help="seconds that a peer may take to get ready (120)")
    parser.add_argument("--chart", action="store_true", help="also draw the charts of benches/results (matplotlib)")
    parser.add_argument("--save", type=Path, help="folder for the result file (benches/results, except with --quick)")
    return Options(**vars(parser.parse_args(arguments)))
