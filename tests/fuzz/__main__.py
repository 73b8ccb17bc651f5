"""Fuzz the core with libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer: ``python -m tests.fuzz [TARGET...]``.

A target is a file of targets/. Needs clang++ and the development packages of the build. What is found stays in
build/fuzz/TARGET/; put the smallest input of a mistake into regressions/TARGET/, from where pytest replays it.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.seeds import SEEDS

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
OUT = ROOT / "build" / "fuzz"
ROOMS = ("packet", "flow", "http", "app", "l4", "model", "saved", "simd")
LIBRARIES = ("libcrypto", "liblz4", "libpcap", "libxxhash", "libzstd", "zlib")
HANG_SECONDS = 60  # of CPU time, for one input
STOP_SECONDS = 900  # on the clock, which also counts while a machine is kept quiet: then CPU time is looked at
TIMED_OUT = 70  # libFuzzer's exit code
FLAGS = [
    "-std=c++20", "-g", "-O1", "-fno-omit-frame-pointer", "-I", "csrc/include", "-I", "csrc/src",
    "-I", "tests/fuzz/targets", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
]  # fmt: skip
# Clang does not know the pragma by which GCC compiles a part of a file for another instruction set.
FLAGS_OF = {
    "backend_avx2": ["-mavx2", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"],
    "backend_avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"],
}


def targets() -> list[str]:
    return sorted(path.stem for path in (HERE / "targets").glob("*.cpp"))


def build(names: list[str], jobs: int) -> None:
    """Compile what is older than any source; one program a target."""
    compiler = shutil.which("clang++")
    if compiler is None:
        sys.exit("tests.fuzz: clang++ is missing; install it first: apt-get install clang")
    launcher = [found] if (found := shutil.which("ccache")) else []
    sources = [path for room in ROOMS for path in sorted((ROOT / "csrc/src" / room).glob("*.cpp"))]
    headers = [*ROOT.glob("csrc/**/*.h"), *ROOT.glob("csrc/**/*.def"), *HERE.glob("targets/*.h")]
    newest = max(path.stat().st_mtime for path in headers)

    def compiled(source: Path) -> str:
        target = OUT / "objects" / source.relative_to(ROOT).with_suffix(".o")
        if not target.exists() or target.stat().st_mtime < max(newest, source.stat().st_mtime):
            target.parent.mkdir(parents=True, exist_ok=True)
            fuzzer = "-fsanitize=fuzzer-no-link"
            flags = [*FLAGS, fuzzer, *FLAGS_OF.get(source.stem, ())]
            command = [*launcher, compiler, "-c", str(source), "-o", str(target), *flags]
            subprocess.run(command, cwd=ROOT, check=True)
        return str(target)

    libraries = subprocess.run(["pkg-config", "--libs", *LIBRARIES], check=True, capture_output=True, text=True)
    with ThreadPoolExecutor(jobs) as pool:
        core = list(pool.map(compiled, sources))
        mains = list(pool.map(compiled, [HERE / "targets" / f"{name}.cpp" for name in names]))
    for name, main in zip(names, mains, strict=True):
        command = [compiler, main, *core, "-o", str(OUT / name), "-fsanitize=fuzzer,address,undefined"]
        subprocess.run([*command, *libraries.stdout.split(), "-pthread"], cwd=ROOT, check=True)


def run(name: str, seconds: int) -> bool:
    """One target on its seeds and on what earlier runs have found; True if nothing broke."""
    folder = OUT / "corpus" / name
    folder.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(SEEDS.get(name, ())):
        (folder / f"seed-{i}").write_bytes(seed)
    for path in (HERE / "regressions" / name).glob("*"):
        (folder / path.name).write_bytes(path.read_bytes())
    (OUT / "found" / name).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1"}
    spent = 0.0  # of CPU time: libFuzzer counts the clock on the wall, which on a busy machine is mostly waiting
    while spent < seconds:
        command = [
            str(OUT / name), f"-max_total_time={math.ceil(seconds - spent)}", f"-timeout={STOP_SECONDS}",
            "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={OUT / 'found' / name}/", str(folder),
        ]  # fmt: skip
        before = _seconds_of_children()
        done = subprocess.run(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, errors="replace")
        spent += _seconds_of_children() - before
        if done.returncode == TIMED_OUT and not hangs(name):
            continue
        lines = done.stderr.splitlines()
        last = next((" ".join(line.split()) for line in reversed(lines) if " cov: " in line), "")
        print(f"{name}: {'ok' if done.returncode == 0 else 'BROKEN'} after {spent:.0f} s: {last}", flush=True)
        if done.returncode != 0:
            print("\n".join(lines[-60:]))
            return False
    return True


def hangs(name: str) -> bool:
    """Whether an input that was stopped takes too much CPU time: it counts the clock, also while all are paused."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (HANG_SECONDS, HANG_SECONDS))

    for path in (OUT / "found" / name).glob("timeout-*"):
        command = [str(OUT / name), "-timeout=0", str(path)]
        if subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, preexec_fn=limit).returncode != 0:
            return True
        path.unlink()
    return False


def _seconds_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(targets())}")
    parser.add_argument("--seconds", type=int, default=60, help="CPU time of each target (default 60)")
    options = parser.parse_args()
    names = options.targets or targets()
    build(names, int(os.environ.get("MESHSIEVE_JOBS", 0)) or os.cpu_count() or 1)
    results = [run(name, options.seconds) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
