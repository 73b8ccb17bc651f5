#!/bin/bash
# make-capture.sh FOLDER : rebuilds demo.pcap from the public captures that README.md names, which lie in FOLDER.
# Addresses and payloads are kept; only time stamps are shifted, so that the captures start 20 seconds after each other.
# Needs Debian's wireshark-common (capinfos, editcap, mergecap). Same input, same output.
set -euo pipefail
folder=${1:?usage: make-capture.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
start=1764000000 # 2025-11-24 16:00:00 UTC
i=0
while read -r name; do
  first=$(capinfos -T -r -S -a "$folder/$name" | cut -f2)
  editcap -F pcap -t "$(echo "$start + 20 * $i - $first" | bc)" "$folder/$name" "$work/$(printf %03d "$i").pcap"
  i=$((i + 1))
done < <(grep -v '^#' "$here/sources.txt" | cut -f1)
mergecap -F pcap -w "$here/demo.pcap" "$work"/*.pcap
