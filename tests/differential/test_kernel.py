"""iptables and nft importers against the Linux kernel: generated rules, real packets, forwarded or not.

Runs in a network namespace of its own (tests/reference/kernel_forwarding.py). Left out: what needs a connection
(states), and REJECT, whose answers would travel the same cables.
"""

from __future__ import annotations

import ipaddress
import json
import random
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meshsieve import packets
from meshsieve.importers import IMPORTERS
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, SourceFile
from tests.reference.iptables_packets import columns
from tests.reference.iptables_walk import Packet
from tests.reference.kernel_forwarding import INCOMING

ROOT = Path(__file__).parents[2]
PROGRAMS, PACKETS = 60, 120
CHAINS = ("FORWARD", "A", "B", "C")
ADDRESSES = ("10.0.0.5", "10.3.0.9", "10.3.0.10", "10.200.1.1", "11.0.0.1", "150.1.1.1", "192.168.3.4")
PORTS = (0, 1, 53, 79, 80, 90, 91, 1000, 2000, 65535)
MATCHES = (
    (
        "-s 10.0.0.0/9",
        "! -s 10.3.0.0/255.255.0.0",
        "-m iprange --src-range 10.0.0.5-10.3.0.9",
        "-s 10.0.0.5/255.248.0.255",
    ),
    (
        "-d 192.168.0.0/16",
        "! -d 10.0.0.0/8",
        "-m iprange ! --dst-range 10.3.0.9-150.1.1.1",
        "-d 10.0.0.9/255.248.0.255",
    ),
    ("-i eth+", "-i eth1", "! -i lan0", "-i eth10"),
    ("-o eth1", "! -o eth+", "-o wan0"),
    (
        "-p tcp -m tcp --dport 80:90",
        "-p tcp -m tcp ! --sport 1000:",
        "-p tcp -m tcp --tcp-flags SYN,ACK SYN",
        "-p tcp -m tcp ! --syn",
        "-p tcp -m tcp --tcp-flags ALL NONE",
        "-p udp -m udp ! --dport 53",
        "-p udp -m multiport --ports 53,79:90",
        "-p tcp -m multiport ! --dports 80,1000:2000",
        "-p icmp -m icmp --icmp-type 8",
        "-p icmp -m icmp ! --icmp-type 3/1",
        "-p icmp -m icmp --icmp-type any",
        "! -p udp",
        "-p 47",
    ),
    (
        "-m ttl --ttl-gt 63",
        "-m ttl ! --ttl-eq 5",
        "-m length --length 20:40",
        "-m length ! --length 50",
        "-m dscp --dscp 0x0a",
        "-m tos --tos 0x10/0xfc",
        "-m addrtype --dst-type MULTICAST",
        "-f",
        "! -f",
    ),
    ("-m mark --mark 0x1/0x1", "-m mark ! --mark 0x2/0x3", "-m mark --mark 0x3", "-m mark ! --mark 0x0"),
)
MARKS = (
    "-j MARK --set-xmark 0x1/0x1", "-j MARK --set-mark 0x2", "-j MARK --or-mark 0x3", "-j MARK --and-mark 0xfffffffe",
    "-j MARK --xor-mark 0x3", "-j MARK --set-xmark 0x0/0x2",
)  # fmt: skip


NFT_MATCHES = (
    ("ip saddr 10.0.0.0/9", "ip saddr != 10.3.0.0/16", "ip saddr 10.0.0.5-10.3.0.9", "ip saddr { 10.0.0.5, 11.0.0.1 }"),
    ("ip daddr @some", "ip daddr != @some", "ip daddr . meta l4proto { 150.1.1.1 . udp, 11.0.0.1 . tcp }"),
    ('iifname "eth*"', 'iifname "eth1"', 'iifname != "lan0"', 'iifname { "eth10", "lan0" }'),
    ('oifname "eth1"', 'oifname != "eth*"', 'oif "wan0"'),
    (
        "tcp dport 80-90",
        "tcp sport < 1000",
        "tcp flags & (syn | ack) == syn",
        "tcp flags syn",
        "tcp flags syn,ack",
        "tcp flags ! fin,ack",
        "tcp flags != syn",
        "tcp flags == syn | ack",
        "tcp flags syn / fin,syn,rst,ack",
        "tcp flags { syn, syn | ack }",
        "tcp flags & syn != 0",
        "udp dport != 53",
        "udp dport { 53, 79-90 }",
        "th dport >= 90",
        "icmp type echo-request",
        "icmp type != { 0, 3 }",
        "icmp code 1",
        "meta l4proto { tcp, 47 }",
        "ip protocol != udp",
        "meta nfproto ipv4",
        "ip saddr . tcp dport { 10.0.0.5 . 80, 10.3.0.9 . 80, 11.0.0.1 . 90-1000 }",
    ),
    ("ip ttl > 63", "ip ttl != 5", "ip length 20-48", "meta length < 49", "ip dscp af11", "ip dscp & 0x8 == 0x8"),
    (
        "meta mark & 0x1 == 0x1",
        "meta mark 0x3",
        "meta mark != { 0x0, 0x2 }",
        "meta mark & 0x3 != 0x2",
        "meta mark 0x1-0x2",
    ),
)
NFT_MARKS = (
    "meta mark set 0x2", "meta mark set meta mark | 0x1", "meta mark set meta mark & 0xfffffffe",
    "meta mark set meta mark ^ 0x3", "meta mark set 0x3 return", "meta mark set 0x1 accept",
)  # fmt: skip

NFT_MAPS = (
    "tcp dport vmap { 80 : accept, 90-91 : drop, 1000 : jump C }",
    "ip protocol vmap { icmp : accept, udp : goto C, 47 : drop }",
    "tcp dport vmap { 80 : accept, * : drop }",
    "udp dport vmap @ports",
    "meta mark vmap { 0x0 : return, 0x1 : accept, 0x3 : drop }",
)
TOOLS = {"iptables": "iptables-restore", "nft": "nft"}


@pytest.fixture(scope="module", params=TOOLS)
def judged(request: pytest.FixtureRequest) -> list[tuple[str, str, list[Packet], set[int]]]:
    """(tool, rules, packets, numbers of those that the kernel forwarded)"""
    tool = request.param
    draw = random.Random(20)
    program = {"iptables": iptables_program, "nft": nft_program}[tool]
    cases = [(program(draw), [packet(draw) for _ in range(PACKETS)]) for _ in range(PROGRAMS)]
    asked = [
        {
            "tool": tool,
            "rules": rules,
            "packets": [(p["iif"], as_bytes(p, case * PACKETS + n).hex()) for n, p in enumerate(some)],
        }
        for case, (rules, some) in enumerate(cases)
    ]
    if not shutil.which("unshare") or not shutil.which(TOOLS[tool]):
        pytest.skip(f"needs unshare and {TOOLS[tool]}")
    command = ["unshare", "-n", sys.executable, "-m", "tests.reference.kernel_forwarding"]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, cwd=ROOT, timeout=120)
    if done.returncode != 0:
        assert "Operation not permitted" in done.stderr or "not supported" in done.stderr, done.stderr
        pytest.skip(f"the kernel cannot judge here: {done.stderr.strip().splitlines()[-1:]}")
    forwarded = set(json.loads(done.stdout))
    return [
        (tool, rules, some, {n for n in range(PACKETS) if case * PACKETS + n in forwarded})
        for case, (rules, some) in enumerate(cases)
    ]


def accepted(tool: str, rules: str, some: list[Packet], mode: str) -> list[bool | None]:
    """None where undecided. A packet passes if every point accepts it."""
    options = ImportOptions(strict=False, mode=mode, chain="FORWARD")
    answers: list[bool | None] = [True] * len(some)
    for layer in IMPORTERS[tool].load([SourceFile("generated", rules)], options).layers:
        rule_set = layer.points[0].rules
        asked = columns(some, rule_set.names, 4)
        if rule_set.marks is not None:  # every packet comes with mark 0
            asked = asked.with_fields({"mark": [rule_set.marks.code({"mark": 0})]})
        results = packets.compile(rule_set).classify_batch(asked)
        here = [None if r < 0 else bool(rule_set.actions[r] == Action.ALLOW) for r in results]
        answers = [_both(a, b) for a, b in zip(answers, here, strict=True)]
    return answers


def _both(a: bool | None, b: bool | None) -> bool | None:
    return False if a is False or b is False else None if a is None or b is None else True


def test_the_kernel_forwards_what_we_say(judged: list[tuple[str, str, list[Packet], set[int]]]) -> None:
    decided = forwarded = 0
    for tool, rules, some, passed in judged:
        forwarded += len(passed)
        for number, verdict in enumerate(accepted(tool, rules, some, "strict")):
            if verdict is not None:
                decided += 1
                assert verdict == (number in passed), f"{rules}\n{number}: {some[number]}"
    # The comparison means something: most packets are decided, and both verdicts are frequent.
    assert decided > 0.9 * PROGRAMS * PACKETS
    assert 0.1 < forwarded / (PROGRAMS * PACKETS) < 0.9


def test_the_kernel_is_between_the_bounds(judged: list[tuple[str, str, list[Packet], set[int]]]) -> None:
    for tool, rules, some, passed in judged:
        bounds = zip(accepted(tool, rules, some, "lower"), accepted(tool, rules, some, "upper"), strict=True)
        for number, (at_least, at_most) in enumerate(bounds):
            assert at_least is not None
            assert at_most is not None
            assert at_least <= (number in passed) <= at_most, f"{rules}\n{number}: {some[number]}"


def nft_program(draw: random.Random) -> str:
    """Two base chains: one of table inet, with chains to call, and one of table ip that runs after it."""
    lines = ["table inet t {", "set some { type ipv4_addr; flags interval; elements = { 192.168.0.0/16, 10.0.0.9 } }"]
    lines.append("map ports { type inet_service : verdict; elements = { 53 : drop, 79 : jump C } }")
    for name in ("C", "B", "A", "forward"):
        base = f"type filter hook forward priority 0; policy {draw.choice(['accept', 'drop'])};"
        lines.append(f"chain {name} {{ {base if name == 'forward' else ''}")
        lines += _nft_rules(draw, [c for c in ("A", "B", "C") if c > name or name == "forward"])
        lines.append("}")
    lines.append("}\ntable ip after {\nset some { type ipv4_addr; elements = { 10.3.0.9, 150.1.1.1 } }")
    lines.append("chain last { type filter hook forward priority 10; policy accept;")
    lines += [rule for rule in _nft_rules(draw, [], at_most=3) if "nfproto" not in rule and "mark" not in rule]
    return "\n".join([*lines, "}", "}", ""])


def _nft_rules(draw: random.Random, callees: list[str], at_most: int = 6) -> list[str]:
    rules = []
    for _ in range(draw.randint(1, at_most)):
        if "C" in callees and draw.random() < 0.15:
            rules.append(f"{draw.choice(NFT_MATCHES[draw.randrange(4)])} {draw.choice(NFT_MAPS)}")
            continue
        matches = " ".join(draw.choice(group) for group in draw.sample(NFT_MATCHES, draw.randint(0, 2)))
        verdicts = ["accept", "drop", "return", "counter", "counter accept", "continue", *draw.sample(NFT_MARKS, 3)]
        verdicts += [f"{kind} {callee}" for callee in callees for kind in ("jump", "jump", "goto")]
        rules.append(f"{matches} {draw.choice(verdicts)}")
    return rules


def iptables_program(draw: random.Random) -> str:
    lines = ["*filter", f":FORWARD {draw.choice(['ACCEPT', 'DROP'])} [0:0]", ":A - [0:0]", ":B - [0:0]", ":C - [0:0]"]
    for index, chain in enumerate(CHAINS):
        targets = ["-j ACCEPT", "-j DROP", "-j RETURN", "", *draw.sample(MARKS, 2)]
        targets += [f"-{kind} {callee}" for callee in CHAINS[index + 1 :] for kind in "jjg"]
        for _ in range(draw.randint(1, 6)):
            groups = draw.sample(MATCHES, draw.randint(0, 2))
            if len(groups) == 2 and MATCHES[4] in groups and MATCHES[5] in groups:
                groups = groups[:1]  # -f goes with no port
            matches = " ".join(draw.choice(group) for group in groups)
            lines.append(f"-A {chain} {matches} {draw.choice(targets)}")
    return "\n".join([*lines, "COMMIT", ""])


def packet(draw: random.Random) -> Packet:
    destination = ipaddress.IPv4Address(draw.choice(ADDRESSES))
    made: Packet = {
        "src_ip": ipaddress.IPv4Address(draw.choice(ADDRESSES)),
        "dst_ip": destination,
        "proto": draw.choice([6, 6, 17, 17, 1, 47]),
        "fragment": draw.random() < 0.05,
        "iif": draw.choice(INCOMING),
        "oif": "eth1" if int(destination) < 2**31 else "wan0",
        # As the chain sees it: the kernel counts the hop before the hook forward.
        "ttl": draw.choice([1, 4, 5, 6, 63, 64, 254]),
        "dscp": draw.choice([0, 4, 10, 46]),
    }
    if not made["fragment"] and made["proto"] in (6, 17):
        made |= {"sport": draw.choice(PORTS), "dport": draw.choice(PORTS)}
    if not made["fragment"] and made["proto"] == 6:
        made["tcp_flags"] = draw.choice([0, 2, 18, 16, 17, 194])
    if not made["fragment"] and made["proto"] == 1:
        made |= {"icmp_type": draw.choice([0, 3, 8]), "icmp_code": draw.choice([0, 1, 4])}
    made["ip_length"] = 20 + {6: 20, 17: 8, 1: 8, 47: 4}[made["proto"]] + draw.choice([0, 1, 10, 20])
    return made


def as_bytes(p: Packet, number: int) -> bytes:
    size = p["ip_length"] - 20
    if p["fragment"]:
        payload: Any = b"\xff" * size
    elif p["proto"] == 6:
        payload = struct.pack("!HHIIBBHHH", p["sport"], p["dport"], 1, 1, 5 << 4, p["tcp_flags"], 1024, 0, 0)
    elif p["proto"] == 17:
        payload = struct.pack("!HHHH", p["sport"], p["dport"], size, 0)
    elif p["proto"] == 1:
        payload = struct.pack("!BBHI", p["icmp_type"], p["icmp_code"], 0, 0)
    else:
        payload = b"\0\0\x08\0"
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        p["dscp"] << 2,
        p["ip_length"],
        number,
        100 if p["fragment"] else 0,
        p["ttl"] + 1,
        p["proto"],
        0,
        p["src_ip"].packed,
        p["dst_ip"].packed,
    )
    total = sum(struct.unpack("!10H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:10] + struct.pack("!H", total ^ 0xFFFF) + header[12:] + payload.ljust(size, b"\0")
