#!/bin/sh
# Sees to the system packages that the build needs, on Debian and Ubuntu: installs what is missing as root or through
# sudo, else says what to install. Prints nothing and takes no time when everything is there.
#
# PYTHON  the interpreter that will own .venv (default python3)
set -eu
python=${PYTHON:-python3}

fail() { printf 'meshsieve: %s\n' "$1" >&2; exit 1; }

command -v "$python" >/dev/null 2>&1 || fail "'$python' is not installed; Python 3.11 or later is needed"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old; Python 3.11 or later is needed (make PYTHON=python3.12 ...)"

missing=
need() { missing="$missing $1"; }

command -v c++ >/dev/null 2>&1 || command -v g++ >/dev/null 2>&1 || need g++
"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || need python3-venv
"$python" -c 'import pathlib, sysconfig, sys
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || need python3-dev
if command -v pkg-config >/dev/null 2>&1; then
  pkg-config --exists libcrypto || need libssl-dev
  pkg-config --exists liblz4 || need liblz4-dev
  pkg-config --exists libpcap || need libpcap-dev
  pkg-config --exists libxxhash || need libxxhash-dev
  pkg-config --exists libzstd || need libzstd-dev
  pkg-config --exists re2 || need libre2-dev
  pkg-config --exists zlib || need zlib1g-dev
else
  need 'pkg-config liblz4-dev libpcap-dev libre2-dev libssl-dev libxxhash-dev libzstd-dev zlib1g-dev'
fi
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null 2>&1 ||
  fail "install the equivalents of these Debian packages first:$missing"
if [ "$(id -u)" = 0 ]; then
  as_root=
elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
  as_root=sudo
else
  fail "system packages are missing; as root run: apt-get install$missing"
fi
echo "Installing system packages:$missing" >&2
# shellcheck disable=SC2086  # a list of names
install() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; }
install >/dev/null 2>&1 || { $as_root apt-get update -q >&2 && install >&2; } ||
  fail "apt-get could not install:$missing"
