#!/bin/sh
# Sees to system packages on Debian and Ubuntu: installs what is missing as root or through sudo, else says what to
# install. Prints nothing and takes no time when everything is there.
#
# tools/prerequisites.sh            what the build needs
# tools/prerequisites.sh oracles    the real programs that tests compare with; tests skip, by name, those that are missing
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
program() { command -v "$1" >/dev/null 2>&1 || need "$2"; }

build() {
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
}

oracles() {
  program chromium chromium
  program iptables-restore iptables
  program nfcapd nfdump
  program nft nftables
  program tshark tshark
  program zstd zstd
}

case ${1:-build} in
  build) build ;;
  oracles) oracles ;;
  *) fail "usage: $0 [build | oracles]" ;;
esac
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
