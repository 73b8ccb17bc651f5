"""The Linux kernel as judge of forwarded packets: run as ``unshare -n python -m tests.reference.kernel_forwarding``.

Reads from stdin a JSON list of {"tool": "iptables" or "nft", "rules": text, "packets": [[interface, hex], ...]} and
prints the IP ids of the packets that were forwarded. The interface is the incoming one.

The namespace has pairs of virtual cables. A frame written to the near end of an incoming cable arrives at its far end,
is forwarded, and leaves by an outgoing cable, at whose other end a raw socket sees it.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from pathlib import Path

INCOMING = ("eth0", "eth10", "lan0")
OUTGOING = {"eth1": "0.0.0.0/1", "wan0": "128.0.0.0/1"}
_ETH_P_IP = 0x0800
_QUIET_SECONDS = 0.1
_LOAD = {"iptables": ["iptables-restore"], "nft": ["nft", "-f", "-"]}
_FORGET = {"iptables": "", "nft": "flush ruleset\n"}
_MAC = "02:00:00:00:00:02"


def main() -> None:
    _lay_cables()
    senders = {name: _raw_socket(f"near-{name}") for name in INCOMING}
    receivers = [_raw_socket(f"near-{name}") for name in OUTGOING]
    head = bytes.fromhex(_MAC.replace(":", "") + "020000000001") + _ETH_P_IP.to_bytes(2, "big")
    forwarded: set[int] = set()
    for case in json.load(sys.stdin):
        text = _FORGET[case["tool"]] + case["rules"]
        subprocess.run(_LOAD[case["tool"]], input=text.encode(), check=True, stdout=subprocess.DEVNULL)
        for number, (interface, packet) in enumerate(case["packets"]):
            senders[interface].send(head + bytes.fromhex(packet))
            if number % 16 == 15:
                forwarded |= _seen(receivers, 0)
        forwarded |= _seen(receivers, _QUIET_SECONDS)
    json.dump(sorted(forwarded), sys.stdout)


def _lay_cables() -> None:
    for name in (*INCOMING, *OUTGOING):
        _ip(f"link add near-{name} type veth peer name {name}")
        for end in (name, f"near-{name}"):
            Path(f"/proc/sys/net/ipv6/conf/{end}/disable_ipv6").write_text("1")
            _ip(f"link set {end} {f'address {_MAC} ' if end == name else ''}up arp off")
    for key, value in (("ip_forward", "1"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")):
        Path(f"/proc/sys/net/ipv4/{key}").write_text(value)
    for name in (*INCOMING, *OUTGOING):
        Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")
    for name, prefix in OUTGOING.items():
        _ip(f"route add {prefix} dev {name}")
    _ip("link set lo up")


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True)


def _raw_socket(name: str) -> socket.socket:
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    raw.bind((name, _ETH_P_IP))
    return raw


def _seen(receivers: list[socket.socket], wait_seconds: float) -> set[int]:
    """The ids of the packets that came out, until none comes for ``wait_seconds``."""
    found: set[int] = set()
    while True:
        ready, _, _ = select.select(receivers, [], [], wait_seconds)
        if not ready:
            return found
        for receiver in ready:
            frame = receiver.recv(65535)
            found.add(int.from_bytes(frame[18:20], "big"))


if __name__ == "__main__":
    main()
