"""The short way of common packets through the decoder: it must not show. The same datagram behind an Ethernet header,
where packets may take it, and behind a Linux cooked header of the same size, where none does, is decoded alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve import capture
from tests.capture.builder import Captured, Frame, eth, pcap

COOKED, ETHERNET = 113, 1
TUNNEL_PORTS = [4789, 8472, 4790, 6081, 6635, 2152, 3544]
ports = st.one_of(st.integers(0, 65535), st.sampled_from(TUNNEL_PORTS))


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    """IPv4 or IPv6 with TCP or UDP, any flags and payload; then perhaps some bytes of the headers changed, padding
    added, or the end cut off."""
    payload = draw(
        st.one_of(st.binary(max_size=40), st.just(b"\x08\0\0\0\0\0\x07\0" + bytes(eth().ipv4().tcp(1, 2).bytes())))
    )
    frame = Frame().ipv4("10.0.0.1", "10.0.0.2") if draw(st.booleans()) else Frame().ipv6("2001:db8::1", "2001:db8::2")
    sport, dport = draw(ports), draw(ports)
    frame = frame.tcp(sport, dport) if draw(st.booleans()) else frame.udp(sport, dport)
    data = bytearray(frame.payload(payload).bytes())
    for at, value in draw(st.lists(st.tuples(st.integers(0, 59), st.integers(0, 255)), max_size=3)):
        data[at % len(data)] = value
    return bytes(data) + bytes(draw(st.integers(0, 6)))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(datagrams(), st.booleans(), st.integers(0, 100), st.booleans()), min_size=1, max_size=40))
def test_short_way_and_long_way_agree(
    tmp_path_factory: pytest.TempPathFactory, packets: list[tuple[bytes, bool, int, bool]]
) -> None:
    folder = tmp_path_factory.mktemp("plain")
    found = {}
    for link_type in (ETHERNET, COOKED):
        frames = []
        for data, tagged, kept, is_cut in packets:
            ethertype = b"\x86\xdd" if data[0] >> 4 == 6 else b"\x08\0"
            tag = b"\x81\0\x20\x05" if tagged else b""
            # Both link headers end with the EtherType; two bytes of Ethernet's are missing to 16.
            header = bytes(14) if link_type == COOKED else bytes(12)
            whole = header + tag + ethertype + data
            shown = whole[: len(whole) - min(kept, len(data))]
            frames.append(Captured(shown, length=len(whole)) if is_cut else whole)
        path = folder / f"{link_type}.pcap"
        path.write_bytes(pcap(frames, link_type=link_type))
        (found[link_type],) = capture.read(path)
    plain, cooked = found[ETHERNET], found[COOKED]
    assert list(plain.present) == list(cooked.present)
    for name in plain:
        assert np.array_equal(plain[name], cooked[name]), name
    shifted = {"payload_offset", "captured_length", "length"}
    for name in plain.extra.keys() - shifted:
        assert np.array_equal(plain.extra[name], cooked.extra[name]), name
    with_payload = plain.extra["payload_offset"] != 0
    assert np.array_equal(plain.extra["payload_offset"] + 2 * with_payload, cooked.extra["payload_offset"])


@pytest.mark.parametrize("n", [1, 7, 15, 16, 17, 31, 32, 33, 100])
def test_every_row_has_its_own_values(tmp_path: Path, n: int) -> None:
    """Rows go into columns by blocks; wherever a run or a batch ends, each value stands in its row."""
    frames = [eth().vlan(i).ipv4("10.0.0.1", f"10.0.1.{i}", ttl=i).tcp(1000 + i, 2000 + i, seq=i) for i in range(n)]
    path = tmp_path / "many.pcap"
    path.write_bytes(pcap(frames))
    for size in (1, 5, 16, 64, 65536):
        parts = list(capture.read(path, batch_size=size))
        rows = np.arange(n)
        expected = {"vlan": rows, "ttl": rows, "sport": 1000 + rows, "dport": 2000 + rows, "proto": 0 * rows + 6}
        for name, values in expected.items():
            assert np.concatenate([part[name] for part in parts]).tolist() == values.tolist(), name
        for name, values in {"tcp_seq": rows, "number": rows + 1}.items():
            assert np.concatenate([part.extra[name] for part in parts]).tolist() == values.tolist(), name


def test_sparse_columns_of_batches_that_are_used_again(tmp_path: Path) -> None:
    """Tunnels are brought into their columns when asked for; a batch that is used again shows none of the last one."""
    tunnelled = eth().ipv4("10.0.0.1", "10.0.0.2").ipv4("10.1.0.1", "10.1.0.2").udp(1, 2)
    plain = eth().ipv4("10.0.0.1", "10.0.0.2").udp(1, 2)
    for pattern in ("tp" * 8, "tttttttttttttttp", "pppppppppppppppt", "t" * 16):
        path = tmp_path / f"{pattern}.pcap"
        path.write_bytes(pcap([tunnelled if kind == "t" else plain for kind in pattern * 8 + "p" * 64]))
        for looks in (lambda i: True, lambda i: i % 2 == 0, lambda i: False):
            seen = []
            for i, batch in enumerate(capture.read(path, batch_size=16)):
                if looks(i) or i >= 8:
                    seen.append((i, batch.extra["tunnel_depth"].tolist()))
            for i, depths in seen:
                assert depths == [int(kind == "t") for kind in (pattern if i < 8 else "p" * 16)]
