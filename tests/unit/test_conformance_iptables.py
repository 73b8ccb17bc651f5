"""The iptables facts runner notices what is wrong, in every format that it reads."""

import json

import pytest

from meshsieve.model import NameCodes
from tests.conformance.policies import _flat_lists, iptables

DUMP = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:CALLED - [0:0]
-A FORWARD -i lan -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -m limit --limit 1/sec -j DROP
-A FORWARD -s 10.1.0.0/16 -j CALLED
-A CALLED -p udp -m udp --dport 53 -j ACCEPT
-A CALLED -d 10.9.0.0/16 -j RETURN
-A CALLED -m unknowable --x -j ACCEPT
COMMIT
"""
GOLDEN = """== unfolded FORWARD chain ==
(-i lan -p tcp -m tcp --dpts [22], -j ACCEPT)
(~~-m limit --limit 1/sec~~, -j DROP)
(-s 10.1.0.0/16 -p udp -m udp --dpts [53], -j ACCEPT)
(-s 10.1.0.0/16 ! -d 10.9.0.0/16 ~~-m unknowable --x~~, -j ACCEPT)
(, -j DROP)
== unfolded FORWARD chain (upper closure) ==
(-i lan -p tcp -m tcp --dpts [22], -j ACCEPT)
(-s 10.1.0.0/16 -p udp -m udp --dpts [53], -j ACCEPT)
(-s 10.1.0.0/16 ! -d 10.9.0.0/16, -j ACCEPT)
(, -j DROP)
== to simple firewall ==
"""
# Whoever comes from 10.1/16 comes from lan: so port 22 is open to it, and lan brings nothing else.
UPPER = """-s 10.1.0.0/16 -p tcp --dport 22 -j ACCEPT
-s 10.1.0.0/16 -d 10.9.0.0/16 -p udp --dport 53 -j ACCEPT
-s 10.1.0.0/16 -d 10.9.0.0/16 -j DROP
-s 10.1.0.0/16 -j ACCEPT
-j DROP
"""
LOWER = "ACCEPT     tcp  --  10.1.0.0/16          0.0.0.0/0    dports: 22\nDROP  all  --  0.0.0.0/0  0.0.0.0/0\n"
OWNERS = {"site": {"lan": ["10.1.0.0/16"], "wan": {"all_but": ["10.0.0.0/8"]}}}


def folder(tmp_path, golden=GOLDEN, upper=UPPER, lower=LOWER, owners=OWNERS):
    (tmp_path / "simplified").mkdir()
    (tmp_path / "site.rules").write_text(DUMP)
    (tmp_path / "site.golden.txt").write_text(golden)
    (tmp_path / "simplified/site.upper").write_text(upper)
    (tmp_path / "simplified/site.lower").write_text(lower)
    (tmp_path / "simplified/interfaces.json").write_text(json.dumps(owners))
    return iptables.run(tmp_path)


def test_all_facts_of_a_folder_hold(tmp_path):
    report = folder(tmp_path)
    assert report.cases == []
    assert report.counts["right"] == 6  # loads; upper, lower, closure; simplified upper, lower


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("an unfolded rule with another port", {"golden": GOLDEN.replace("[53]", "[54]", 1)}),
        (
            "an unfolded rule in another place",
            {"golden": GOLDEN.replace("(~~-m limit --limit 1/sec~~, -j DROP)\n", "")},
        ),
        ("a closure that accepts less", {"golden": GOLDEN.replace("! -d 10.9.0.0/16, -j", "! -d 10.8.0.0/15, -j")}),
        ("an upper list that denies what may pass", {"upper": UPPER.replace("-d 10.9.0.0/16 -j DROP", "-j DROP")}),
        ("a lower list that accepts too much", {"lower": LOWER.replace("22", "22:23")}),
        ("interfaces that bring other addresses", {"owners": {"site": {"lan": ["10.2.0.0/16"]}}}),
        ("a line that is no rule", {"upper": UPPER + "-s 10.0.0.0/8 --unheard 1 -j DROP\n"}),
    ],
)
def test_a_planted_error_is_found(tmp_path, what, change):
    report = folder(tmp_path, **change)
    assert report.counts["wrong"] >= 1
    assert not report.passed


def test_a_dump_that_does_not_load_is_wrong(tmp_path):
    (tmp_path / "bad.rules").write_text("*filter\n-A FORWARD -j\nCOMMIT\n")
    assert iptables.run(tmp_path).counts["wrong"] == 1


def test_negation_reaches_one_match_and_ports_keep_their_protocol():
    codes = NameCodes.of(exact=["eth0"])
    (line,) = _flat_lists.parse(["(-p udp ! -m udp --spts [67:68] -i eth0 ~~-m x~~, -j DROP)"], codes)
    assert not line.knows_all
    fields = line.condition[0].fields
    assert {name: repr(values) for name, values in fields.items()} == {
        "proto": "ValueSet(17)",
        "sport": "ValueSet(0-66, 69-65535)",
        "iif": repr(codes.exact("eth0")),
    }
