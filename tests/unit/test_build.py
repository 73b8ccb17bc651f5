"""Building: a missing native library is one clear error, and both places that name libraries agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETUP = (ROOT / "setup.py").read_text()
PACKAGES = dict(re.findall(r'^    "([\w.+-]+)": "([\w.+-]+-dev)",', SETUP, re.MULTILINE))


def build(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("pybind11", reason="the build tools are not installed")
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "--build-lib",
        str(tmp_path),
        "--build-temp",
        str(tmp_path),
    ]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_package_holds_its_data_and_no_sources_of_extensions(tmp_path: Path) -> None:
    pytest.importorskip("pybind11", reason="the build tools are not installed")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    package, source = tmp_path / "meshsieve", ROOT / "src" / "meshsieve"
    packed = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert not {name for name in packed if name.endswith((".cpp", ".pyx")) or name.startswith("_bindings")}
    listed = subprocess.run(["git", "ls-files"], cwd=source, capture_output=True, text=True, check=False).stdout.split()
    wanted = {name for name in listed if not name.endswith((".cpp", ".pyx")) and not name.startswith("_bindings")}
    assert wanted <= packed


def test_missing_libraries_are_named_with_their_packages(tmp_path: Path) -> None:
    done = build(tmp_path, PKG_CONFIG_LIBDIR=str(tmp_path), PKG_CONFIG_PATH="")
    assert done.returncode != 0
    assert "native libraries are missing; install them first: apt-get install " in done.stderr
    assert all(package in done.stderr for package in PACKAGES.values())
    assert "Traceback" not in done.stderr


def test_a_missing_pkg_config_is_named(tmp_path: Path) -> None:
    done = build(tmp_path, PATH=str(tmp_path))
    assert done.returncode != 0
    assert "'pkg-config' is missing; install it first: apt-get install pkg-config" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_prerequisites_are_those_of_the_build() -> None:
    script = (ROOT / "tools" / "prerequisites.sh").read_text()
    assert len(PACKAGES) >= 3
    for library, package in PACKAGES.items():
        assert f"pkg-config --exists {library} || need {package}\n" in script
    everything = re.search(r"need '(pkg-config [^']*)'", script)
    assert everything is not None
    assert set(everything[1].split()) == {"pkg-config", *PACKAGES.values()}


def test_prerequisites_ask_for_nothing_where_all_is_there() -> None:
    done = subprocess.run(
        ["tools/prerequisites.sh"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_old_python_is_refused_by_name(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\ncase $1 in --version) echo Python 3.9.2;; *) exit 1;; esac\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["tools/prerequisites.sh"],
        cwd=ROOT,
        env={**os.environ, "PYTHON": str(old)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Python 3.9.2 is too old; Python 3.11 or later is needed" in done.stderr


def test_the_source_distribution_holds_the_core() -> None:
    manifest = (ROOT / "MANIFEST.in").read_text().split("\n")
    assert "graft csrc" in manifest
    assert "graft src/meshsieve/_bindings" in manifest
