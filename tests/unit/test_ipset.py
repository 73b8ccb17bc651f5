"""Rules that match sets: what ``ipset save`` says of a packet, one case a sentence of ipset(8)."""

from __future__ import annotations

import pytest

from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.iptables.importer import IptablesImporter
from meshsieve.policy import ImportOptions, SourceFile

SETS = """create ips hash:ip family inet hashsize 1024 maxelem 65536
add ips 10.0.0.1
add ips 10.0.0.8 timeout 300
add ips 10.0.0.9 packets 3 bytes 180 comment "with words"
create nets hash:net family inet hashsize 1024 maxelem 65536
add nets 10.1.0.0/16
add nets 10.1.2.0/24 nomatch
add nets 10.1.2.3
create ports bitmap:port range 0-65535
add ports 80
add ports 8000-8080
create web hash:ip,port family inet hashsize 1024 maxelem 65536
add web 10.0.0.2,tcp:443
add web 10.0.0.3,udp:53
create pairs hash:ip,port,ip family inet hashsize 1024 maxelem 65536
add pairs 10.0.0.2,tcp:443,10.0.0.1
create between hash:net,net family inet hashsize 1024 maxelem 65536
add between 10.0.0.0/24,10.1.0.0/16
create both list:set size 8
add both ips
add both nets
create none hash:ip family inet hashsize 1024 maxelem 65536
create macs hash:mac hashsize 1024 maxelem 65536
add macs 00:11:22:33:44:55
"""
# (sentence, match, packet, in the set)
CASES = [
    ("hash:ip: an element", "ips src", "tcp 10.0.0.1:1 > 10.0.0.2:80", True),
    ("hash:ip: no element", "ips src", "tcp 10.0.0.4:1 > 10.0.0.2:80", False),
    ("dst looks at the destination", "ips dst", "tcp 10.0.0.1:1 > 10.0.0.2:80", False),
    ("an element with a timeout is there", "ips src", "tcp 10.0.0.8:1 > 10.0.0.2:80", True),
    ("counters and comments are no part of the element", "ips src", "tcp 10.0.0.9:1 > 10.0.0.2:80", True),
    ("hash:net: within", "nets src", "tcp 10.1.9.9:1 > 10.0.0.2:80", True),
    ("nomatch takes out", "nets src", "tcp 10.1.2.9:1 > 10.0.0.2:80", False),
    ("the longest network decides", "nets src", "tcp 10.1.2.3:1 > 10.0.0.2:80", True),
    ("bitmap:port: TCP", "ports dst", "tcp 10.0.0.1:1 > 10.0.0.2:80", True),
    ("bitmap:port: UDP", "ports dst", "udp 10.0.0.1:1 > 10.0.0.2:8001", True),
    ("bitmap:port: past its range", "ports dst", "tcp 10.0.0.1:1 > 10.0.0.2:8081", False),
    ("hash:ip,port: both", "web dst,dst", "tcp 10.0.0.1:1 > 10.0.0.2:443", True),
    ("hash:ip,port: another protocol", "web dst,dst", "udp 10.0.0.1:1 > 10.0.0.2:443", False),
    ("hash:ip,port: not crosswise", "web dst,dst", "udp 10.0.0.1:1 > 10.0.0.2:53", False),
    ("directions are one a dimension", "web src,dst", "tcp 10.0.0.2:1 > 10.0.0.1:443", True),
    ("three dimensions", "pairs dst,dst,src", "tcp 10.0.0.1:1 > 10.0.0.2:443", True),
    ("three dimensions: the third fails", "pairs dst,dst,src", "tcp 10.0.0.4:1 > 10.0.0.2:443", False),
    ("hash:net,net", "between src,dst", "tcp 10.0.0.7:1 > 10.1.0.2:443", True),
    ("hash:net,net: the other way round", "between src,dst", "tcp 10.1.0.7:1 > 10.0.0.2:443", False),
    ("list:set is in the first or the second", "both src", "tcp 10.1.9.9:1 > 10.0.0.2:80", True),
    ("list:set: in none", "both src", "tcp 10.2.9.9:1 > 10.0.0.2:80", False),
    ("an empty set holds nothing", "none src", "tcp 10.0.0.1:1 > 10.0.0.2:80", False),
]


def action(match: str, packet: str, sets: str = SETS, strict: bool = True) -> str:
    rules = f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set {match} -j DROP\nCOMMIT\n"
    sources = [SourceFile("rules", rules), SourceFile("sets", sets)]
    return Engine(IptablesImporter().load(sources, ImportOptions(strict=strict)).layers).explain(packet).action


@pytest.mark.parametrize(("sentence", "match", "packet", "inside"), CASES, ids=[c[0] for c in CASES])
def test_ipset(sentence: str, match: str, packet: str, inside: bool) -> None:
    assert action(f"--match-set {match}", packet) == ("DROP" if inside else "ALLOW")
    assert action(f"! --match-set {match}", packet) == ("ALLOW" if inside else "DROP")


REFUSED = [
    ("a set that is in no file", "--match-set nowhere src", SETS, "the content of set 'nowhere' is not known"),
    ("a set of MAC addresses", "--match-set macs src", SETS, "is of kind mac"),
    ("too few directions", "--match-set web dst", SETS, "has 2 dimensions, 1 are given"),
    ("a direction that is none", "--match-set ips up", SETS, "directions are src and dst"),
    ("an element of another shape", "--match-set ips src", SETS + "add ips 10.0.0.1,tcp:80\n", "has not 1 parts"),
    ("an element of no set", "--match-set ips src", "add ips 10.0.0.1\n" + SETS, "no set is called 'ips'"),
    ("an address that is none", "--match-set ips src", SETS + "add ips 10.0.0.300\n", "10.0.0.300"),
    ("a set twice", "--match-set ips src", SETS + "create ips hash:ip\n", "exists already"),
]


@pytest.mark.parametrize(("what", "match", "sets", "says"), REFUSED, ids=[c[0] for c in REFUSED])
def test_refused_with_its_place(what: str, match: str, sets: str, says: str) -> None:
    if sets.startswith("add"):  # the file must still be told as one of ipset
        sets = "create first hash:ip\n" + sets
    with pytest.raises(PolicyError, match=says) as error:
        action(match, "tcp 10.0.0.1:1 > 10.0.0.2:80", sets)
    assert error.value.where.startswith(("rules:", "sets:"))
