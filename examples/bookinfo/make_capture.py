"""Writes bookinfo.pcap: what happens between the pods and machines of this example, packet by packet.

The conversations are made up, and the same each time; addresses are those of policy/.

    python examples/bookinfo/make_capture.py
"""

from __future__ import annotations

import ipaddress
import random
import struct
from pathlib import Path

START = 1_764_000_000.0  # 2025-11-24 16:00:00 UTC
CLIENT, INGRESS, PRODUCTPAGE, DETAILS = "203.0.113.7", "10.10.1.2", "10.10.0.11", "10.10.0.21"
REVIEWS = {"v1": "10.10.0.31", "v2": "10.10.0.32", "v3": "10.10.0.33"}
RATINGS, CURL, MYSQL, JUMP, DNS = "10.10.0.41", "10.10.2.7", "10.20.0.5", "10.20.0.9", "10.10.1.53"
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


class Capture:
    """Packets by time; ``write`` sorts them into one pcap file (LINKTYPE_RAW, microseconds)."""

    def __init__(self) -> None:
        self.packets: list[tuple[float, bytes]] = []
        self.random = random.Random(9080)

    def ip(self, time: float, src: str, dst: str, proto: int, payload: bytes) -> None:
        ends = ipaddress.ip_address(src).packed + ipaddress.ip_address(dst).packed
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), len(self.packets) & 0xFFFF, 0x4000, 64, proto, 0)
        checksum = _checksum(head + ends)
        self.packets.append((time, head[:10] + struct.pack(">H", checksum) + ends + payload))

    def udp(self, time: float, src: str, sport: int, dst: str, dport: int, payload: bytes) -> None:
        self.ip(time, src, dst, 17, struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload)

    def tcp(self, time: float, ends: Ends, seq: int, ack: int, flags: int, payload: bytes = b"") -> None:
        (src, sport), (dst, dport) = ends
        head = struct.pack(">HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 65535, 0, 0)
        self.ip(time, src, dst, 6, head + payload)

    def conversation(
        self, time: float, src: str, dst: str, port: int, turns: list[tuple[bytes, bytes, float]]
    ) -> float:
        """A TCP connection: handshake, then (request, response, seconds between) for each turn, then FIN. Returns its
        end."""
        forward = ((src, self.random.randrange(32768, 61000)), (dst, port))
        backward = (forward[1], forward[0])
        a, b = self.random.randrange(2**32), self.random.randrange(2**32)
        self.tcp(time, forward, a, 0, SYN)
        self.tcp(time + 0.0004, backward, b, a + 1, SYN | ACK)
        a, b, time = a + 1, b + 1, time + 0.0007
        self.tcp(time, forward, a, b, ACK)
        for request, response, wait in turns:
            if request:
                self.tcp(time, forward, a, b, PSH | ACK, request)
                a += len(request)
            time += wait
            for start in range(0, len(response), 1400):
                self.tcp(time, backward, b, a, PSH | ACK, response[start : start + 1400])
                b += len(response[start : start + 1400])
                time += 0.0001
            self.tcp(time, forward, a, b, ACK)
            time += 0.001
        self.tcp(time, forward, a, b, FIN | ACK)
        self.tcp(time + 0.0002, backward, b, a + 1, FIN | ACK)
        self.tcp(time + 0.0004, forward, a + 1, b + 1, ACK)
        return time + 0.0004

    def unanswered(self, time: float, src: str, dst: str, port: int) -> None:
        """SYNs that nobody answers, as when a firewall drops them."""
        ends = ((src, self.random.randrange(32768, 61000)), (dst, port))
        seq = self.random.randrange(2**32)
        for wait in (0, 1, 3, 7):
            self.tcp(time + wait, ends, seq, 0, SYN)

    def write(self, path: Path) -> None:
        out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
        for time, data in sorted(self.packets, key=lambda packet: packet[0]):
            stamp = round(time * 1e6)
            out += struct.pack("<IIII", stamp // 10**6, stamp % 10**6, len(data), len(data)) + data
        path.write_bytes(out)


Ends = tuple[tuple[str, int], tuple[str, int]]


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def request(method: str, host: str, path: str, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "User-Agent: bookinfo"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def response(status: int, body: str) -> bytes:
    reason = {200: "OK", 302: "Found", 403: "Forbidden", 503: "Service Unavailable"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nServer: istio-envoy\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


DENIED = (0.002, response(403, "RBAC: access denied"))


def page_view(capture: Capture, time: float, user: str | None) -> None:
    """One reader opens the product page: ingress, page, details, reviews (by user), ratings, the database."""
    mark = {"end_user": user} if user else {}
    version = "v2" if user == "jason" else "v3"
    body = '{"id": 0, "title": "The Comedy of Errors"}'
    shop = request("GET", "bookinfo.example", "/productpage?u=normal", **mark)
    capture.conversation(time, CLIENT, INGRESS, 80, [(shop, response(200, "<html>" + "x" * 4000), 0.06)])
    inner = request("GET", "bookinfo.example", "/productpage?u=normal", x_forwarded_for=CLIENT, **mark)
    capture.conversation(
        time + 0.002, INGRESS, PRODUCTPAGE, 9080, [(inner, response(200, "<html>" + "x" * 4000), 0.05)]
    )
    details = [(request("GET", "details:9080", "/details/0", **mark), response(200, body), 0.004)]
    capture.conversation(time + 0.006, PRODUCTPAGE, DETAILS, 9080, details)
    reviews = [(request("GET", "reviews:9080", "/reviews/0", **mark), response(200, body), 0.02)]
    capture.conversation(time + 0.014, PRODUCTPAGE, REVIEWS[version], 9080, reviews)
    ratings = [(request("GET", "ratings:9080", "/ratings/0", **mark), response(200, '{"ratings": {"0": 5}}'), 0.008)]
    capture.conversation(time + 0.018, REVIEWS[version], RATINGS, 9080, ratings)
    greeting = b"\x4a\0\0\0\x0a8.0.36\0" + bytes(range(1, 20)) + b"\0" + b"\0" * 40
    login = b"\x20\0\0\x01" + b"\x85\xa6\xff\x01" + b"\0" * 28
    capture.conversation(
        time + 0.02, RATINGS, MYSQL, 3306, [(b"", greeting, 0.001), (login, b"\x07\0\0\x02\0\0\0\x02\0\0\0", 0.002)]
    )


def main() -> None:
    capture = Capture()
    for i in range(40):
        time = START + i * 3 + capture.random.random()
        name = b"\x07details\x08bookinfo\x03svc\x07cluster\x05local\0\0\x01\0\x01"
        query = struct.pack(">HHHHHH", i + 1, 0x0100, 1, 0, 0, 0) + name
        answer = struct.pack(">HHHHHH", i + 1, 0x8180, 1, 1, 0, 0) + name
        answer += b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04" + ipaddress.ip_address(DETAILS).packed
        capture.udp(time - 0.01, PRODUCTPAGE, 40000 + i, DNS, 53, query)
        capture.udp(time - 0.009, DNS, 53, PRODUCTPAGE, 40000 + i, answer)
        page_view(capture, time, "jason" if i % 4 == 0 else None)
    # The page tries what only reviews may do: layers 2-4 let it through, layer 7 does not.
    for i in range(6):
        wipe = request("DELETE", "ratings:9080", "/ratings/0")
        capture.conversation(START + 20 + 9 * i, PRODUCTPAGE, RATINGS, 9080, [(wipe, DENIED[1], DENIED[0])])
    # A pod outside the mesh has no identity.
    for i in range(4):
        look = request("GET", "reviews.bookinfo:9080", "/reviews/0")
        capture.conversation(START + 33 + 20 * i, CURL, REVIEWS["v1"], 9080, [(look, b"", 0.001)])
    # It also tries the database, which the NSX firewall drops, and a machine tries a pod.
    for i in range(3):
        capture.unanswered(START + 40 + 25 * i, CURL, MYSQL, 3306)
        capture.unanswered(START + 52 + 25 * i, JUMP, DETAILS, 9080)
    banner = b"SSH-2.0-OpenSSH_9.6\r\n"
    capture.conversation(START + 60, JUMP, MYSQL, 22, [(b"", banner, 0.01), (banner, b"\0" * 800, 0.02)])
    capture.write(Path(__file__).with_name("bookinfo.pcap"))


if __name__ == "__main__":
    main()
