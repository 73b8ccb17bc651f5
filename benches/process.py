"""Programs under test as processes: compiling those in C, starting, asking for passes, stopping.

The protocol is described in benches/peers/peer.h: one JSON line about itself, then one JSON line a command.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches import machine

PEERS = Path(__file__).resolve().parent / "peers"


class Unavailable(Exception):
    """This peer cannot run here, or did not finish; the message says why and stands in the row."""


@dataclass(frozen=True)
class Peer:
    """One program under test.

    name         as it stands in tables
    source       C file of benches/peers, compiled on demand; None for a Python module
    module       module run by this interpreter, for our own engines and Python libraries
    packages     pkg-config names that the C file needs
    arguments    after the program, before the case's folder
    environment  additional variables
    """

    name: str
    source: str | None = None
    module: str | None = None
    packages: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, cache: Path) -> list[str]:
        """raises  Unavailable if the program cannot be compiled"""
        if self.source is None:
            return [sys.executable, "-m", str(self.module), *self.arguments]
        return [str(compiled(self.source, self.packages, cache)), *self.arguments]


class Running:
    """A started peer that has built its table and waits for commands.

    about  what it said of itself: build_s, bytes, peak_bytes, headers (looked up a pass), note, ...

    raises  Unavailable if it says that it cannot run, ends, or takes longer than ``patience`` seconds to get ready
    """

    def __init__(self, peer: Peer, folder: Path, *, cache: Path, patience: float, environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        core = machine.bench_core()
        paths = [machine.REPOSITORY / "src", machine.REPOSITORY, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [*peer.command(cache), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=machine.REPOSITORY,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, paths)),
                "BENCH_CORE": str(core),
                **environment,
                **peer.environment,
            },
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            start_new_session=True,  # so that what the peer has started ends with it
        )
        self.about = self._answer(patience)

    def ask(self, command: str, patience: float = 300) -> dict[str, Any]:
        """The answer to one command line. raises Unavailable if none comes in ``patience`` seconds"""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{command}\n".encode())
            self._process.stdin.flush()
        except OSError:
            raise Unavailable(f"ended early{self._last_words()}") from None
        return self._answer(patience)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _answer(self, patience: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], patience)
        if not ready:
            self.close()
            raise Unavailable(f"not finished in {patience:.0f} s")
        line = self._process.stdout.readline()
        if not line.strip():
            words = self._last_words()
            self.close()
            raise Unavailable(f"ended early{words}")
        answer: dict[str, Any] = json.loads(line)
        if "unavailable" in answer:
            self.close()
            raise Unavailable(answer["unavailable"])
        return answer

    def _last_words(self) -> str:
        self._process.wait(timeout=5)
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return (
            f" (status {self._process.returncode}): {lines[-1]}" if lines else f" (status {self._process.returncode})"
        )


def compiled(source: str, packages: tuple[str, ...], cache: Path) -> Path:
    """The program made from a C file of benches/peers; compiled once a content.

    raises  Unavailable naming what is missing
    """
    flags = pkg_config(packages) if packages else []
    text = (PEERS / source).read_bytes() + (PEERS / "peer.h").read_bytes() + " ".join(flags).encode()
    program = cache / "peers" / f"{Path(source).stem}-{hashlib.sha256(text).hexdigest()[:12]}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(f".{os.getpid()}")
    command = ["gcc", "-O3", "-std=gnu11", "-Wall", "-o", str(unfinished), str(PEERS / source), *flags]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unavailable("gcc is not installed") from None
    if done.returncode:
        raise Unavailable(f"{source} does not compile: {done.stderr.strip().splitlines()[0]}")
    unfinished.rename(program)
    return program


def pkg_config(packages: tuple[str, ...]) -> list[str]:
    try:
        done = subprocess.run(
            ["pkg-config", "--cflags", "--libs", *packages], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise Unavailable(f"pkg-config is not installed, so {', '.join(packages)} cannot be found") from None
    if done.returncode:
        raise Unavailable(f"{', '.join(packages)} is not installed (Debian: apt-get install {packages[0]}-dev)")
    return shlex.split(done.stdout)
