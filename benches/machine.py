"""Facts about this machine without which a figure means nothing, and what a bench sets on it: core and pages."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
OVERCOMMIT = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages")
FREE_PAGES = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
PAGE_BYTES = 2 << 20


def describe() -> dict[str, Any]:
    """Processor, memory, kernel, compiler, versions and load of this machine, and the commit that is measured."""
    cpu = _cpu_info()
    flags = cpu.get("flags", "").split()
    return {
        "cpu": cpu.get("model name", platform.processor() or "unknown"),
        "cpu_family_model": f"{cpu.get('cpu family', '?')}/{cpu.get('model', '?')}",
        "isa": [name for name in ("sse4_2", "avx2", "avx512f", "avx512bw", "avx512vbmi") if name in flags],
        "caches": _caches(),
        "cores": len(os.sched_getaffinity(0)),
        "pinned_core": bench_core(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "compiler": _first_line(["gcc", "--version"]),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "commit": _first_line(["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12"]),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def bench_core() -> int:
    """The core that programs under test are pinned to: the last we may use, as interrupts tend to the first."""
    return max(os.sched_getaffinity(0))


@contextlib.contextmanager
def huge_pages(wanted_bytes: int) -> Iterator[bool]:
    """Lets programs take up to ``wanted_bytes`` in 2 MiB pages, on demand; yields whether they can. What was set is put
    back afterwards. Without the right to change it, pages that are already free are used."""
    before = None
    try:
        current = int(OVERCOMMIT.read_text())
        if current * PAGE_BYTES < wanted_bytes:
            OVERCOMMIT.write_text(str(wanted_bytes // PAGE_BYTES))
            before = current
    except (OSError, ValueError):
        pass
    try:
        yield _pages_to_be_had() * PAGE_BYTES >= min(wanted_bytes, 64 << 20)
    finally:
        if before is not None:
            OVERCOMMIT.write_text(str(before))


def _pages_to_be_had() -> int:
    try:
        return int(FREE_PAGES.read_text()) + int(OVERCOMMIT.read_text())
    except (OSError, ValueError):
        return 0


def _cpu_info() -> dict[str, str]:
    info: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            info.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return info


def _caches() -> list[str]:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        with contextlib.suppress(OSError):
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
            found.append(f"L{level} {kind} {size}")
    return found


def _first_line(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return "unknown"
