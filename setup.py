"""Native build of meshsieve: every file of csrc/src is compiled once and linked into every extension.

setuptools' own ``libraries=`` breaks ``build_ext --inplace`` and recompiles everything serially when one header
changes, so ``BuildExt`` compiles csrc/ and the bindings itself: in a small thread pool, and only what a changed
source, header (from the compiler's own dependency files) or flag touches.

Switches, read here and nowhere else: MESHSIEVE_DEBUG, MESHSIEVE_SANITIZE, MESHSIEVE_COVERAGE, MESHSIEVE_JOBS.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CSRC = Path("csrc")
BINDINGS = Path("src/meshsieve/_bindings")

# pkg-config name -> Debian/Ubuntu package
NATIVE_LIBRARIES = {
    "libcrypto": "libssl-dev",
    "liblz4": "liblz4-dev",
    "libpcap": "libpcap-dev",
    "libxxhash": "libxxhash-dev",
    "libzstd": "libzstd-dev",
    "re2": "libre2-dev",
    "zlib": "zlib1g-dev",
}


def _flag(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def pkg_config(option: str) -> list[str]:
    """Flags for the native libraries, or one clear message that names what to install."""
    if shutil.which("pkg-config") is None:
        sys.exit("meshsieve: 'pkg-config' is missing; install it first: apt-get install pkg-config")
    missing = [
        package
        for library, package in NATIVE_LIBRARIES.items()
        if subprocess.run(["pkg-config", "--exists", library], check=False).returncode
    ]
    if missing:
        sys.exit(f"meshsieve: native libraries are missing; install them first: apt-get install {' '.join(missing)}")
    out = subprocess.run(["pkg-config", option, *NATIVE_LIBRARIES], check=True, capture_output=True, text=True)
    return out.stdout.split()


def compile_flags() -> list[str]:
    flags = ["-std=c++20", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-missing-field-initializers"]
    # A fused multiply-add rounds once where Envoy rounds twice, and a Maglev table differs.
    flags += ["-ffp-contract=off"]
    if _flag("MESHSIEVE_DEBUG") or _flag("MESHSIEVE_SANITIZE") or _flag("MESHSIEVE_COVERAGE"):
        flags += ["-O1", "-g", "-fno-omit-frame-pointer"]
    else:
        flags += ["-O3", "-DNDEBUG", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2"]
    if _flag("MESHSIEVE_SANITIZE"):
        flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    if _flag("MESHSIEVE_COVERAGE"):
        flags += ["--coverage"]
    return flags


def link_flags() -> list[str]:
    flags = ["-Wl,-z,relro,-z,now", "-Wl,-z,noexecstack", "-pthread"]
    if _flag("MESHSIEVE_SANITIZE"):
        flags += ["-fsanitize=address,undefined"]
    if _flag("MESHSIEVE_COVERAGE"):
        flags += ["--coverage"]
    return flags


class BuildExt(build_ext):
    def build_extensions(self) -> None:
        import numpy
        import pybind11

        includes = [f"-I{CSRC / 'include'}", f"-I{CSRC / 'src'}", *pkg_config("--cflags")]
        python = [f"-I{path}" for path in (*self.compiler.include_dirs, pybind11.get_include(), numpy.get_include())]
        core = self.compile_all(sorted(CSRC.glob("src/**/*.cpp")), includes)
        bindings = self.compile_all(sorted(BINDINGS.glob("*.cpp")), includes + python)
        for extension in self.extensions:
            extension.include_dirs += [str(CSRC / "include"), str(BINDINGS), numpy.get_include()]
            extension.extra_compile_args += compile_flags()
            extension.extra_link_args += link_flags() + pkg_config("--libs")
            extension.extra_objects += core
            if extension.name == "meshsieve._core":
                extension.extra_objects += bindings
                extension.sources = []
            # Objects are not among what setuptools compares, so relink exactly when one is newer.
            target = Path(self.get_ext_fullpath(extension.name))
            extension.depends += extension.extra_objects
            if target.exists() and any(os.path.getmtime(o) > target.stat().st_mtime for o in extension.extra_objects):
                target.unlink()
        # Cython reads numpy's own declarations: what it generates belongs to one numpy, not to the source folder, where
        # the next interpreter would take it for its own.
        self.cython_c_in_temp = True
        self.build_temp = str(Path(self.build_temp) / f"numpy-{numpy.__version__}")
        super().build_extensions()
        if not self.inplace:  # extensions that cimport meshsieve._fast compile against these
            shutil.copytree(CSRC / "include", Path(self.build_lib) / "meshsieve" / "include", dirs_exist_ok=True)

    def compile_all(self, sources: list[Path], includes: list[str]) -> list[str]:
        compiler = os.environ.get("CXX", "c++")
        flags = compile_flags() + includes
        key = hashlib.sha256(" ".join([compiler, sys.version, *flags]).encode()).hexdigest()[:12]
        folder = Path(self.build_temp) / "core" / key
        jobs = int(os.environ.get("MESHSIEVE_JOBS", 0)) or os.cpu_count() or 1

        def compile_one(source: Path) -> str:
            target = folder / source.with_suffix(".o")
            if not self.up_to_date(source, target):
                target.parent.mkdir(parents=True, exist_ok=True)
                command = [compiler, "-c", str(source), "-o", str(target), "-MMD", "-MF", f"{target}.d", *flags]
                if self.verbose:
                    print("compiling", source, flush=True)
                if subprocess.run(command, cwd=ROOT, check=False).returncode:
                    target.unlink(missing_ok=True)
                    raise SystemExit(f"meshsieve: {source} does not compile")
            return str(target)

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(compile_one, sources))

    @staticmethod
    def up_to_date(source: Path, target: Path) -> bool:
        depends = Path(f"{target}.d")
        if not (target.exists() and depends.exists()):
            return False
        built = target.stat().st_mtime
        names = depends.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        return all(os.path.exists(name) and os.path.getmtime(name) <= built for name in [*names, str(source)])


setup(
    ext_modules=[
        Extension("meshsieve._core", ["src/meshsieve/_bindings/module.cpp"], language="c++"),
        Extension("meshsieve._fast", ["src/meshsieve/_fast.pyx"], language="c++"),
        Extension("meshsieve._fast_authz", ["src/meshsieve/_fast_authz.pyx"], language="c++"),
        Extension("meshsieve._fast_balance", ["src/meshsieve/_fast_balance.pyx"], language="c++"),
        Extension("meshsieve._fast_routes", ["src/meshsieve/_fast_routes.pyx"], language="c++"),
    ],
    cmdclass={"build_ext": BuildExt},
)
