"""Several tables of iptables in one answer: hooks in order, NAT, marks; each case with the sentence it comes from."""

from __future__ import annotations

from typing import Any

import pytest

from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.iptables import IptablesImporter
from meshsieve.policy import ImportOptions, SourceFile

FILTER = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{}\nCOMMIT\n"
NAT = (
    "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n{}\nCOMMIT\n"
)
MANGLE = (
    "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
    ":POSTROUTING ACCEPT [0:0]\n{}\nCOMMIT\n"
)
RAW = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n{}\nCOMMIT\n"
LOCAL = ("10.0.0.1/24",)


def engine(text: str, **options: Any) -> Engine:
    settings = {"table": "all", **options}
    return Engine(IptablesImporter().load([SourceFile("x.rules", text)], ImportOptions(**settings)).layers)


DNAT = NAT.format("-A PREROUTING -d 203.0.113.5 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.7:8080")
TO_VIP = "tcp 192.0.2.7:4000 > 203.0.113.5:80"
MARKED = MANGLE.format("-A PREROUTING -s 192.0.2.0/24 -j MARK --set-xmark 0x10/0xff")
# (sentence, dump, options, packet, expected)
CASES = [
    ("DNAT changes what later chains see", DNAT + FILTER.format("-A FORWARD -d 10.0.0.7 -p tcp --dport 8080 -j DROP"),
     {}, TO_VIP, "DROP"),
    ("and they do not see the address before", DNAT + FILTER.format("-A FORWARD -d 203.0.113.5 -j DROP"), {}, TO_VIP,
     "ALLOW"),
    ("only on NEW", DNAT + FILTER.format("-A FORWARD -d 10.0.0.7 -j DROP"), {}, TO_VIP + " ct_state 2", "ALLOW"),
    ("with_nat=True first applies nat/PREROUTING", DNAT + FILTER.format("-A FORWARD -d 10.0.0.7 -j DROP"),
     {"table": "filter", "with_nat": True}, TO_VIP, "DROP"),
    ("by default for table filter", DNAT + FILTER.format("-A FORWARD -d 10.0.0.7 -j DROP"), {"table": "filter"},
     TO_VIP, "ALLOW"),
    ("a range of addresses: all agree",
     NAT.format("-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.7-10.0.0.9")
     + FILTER.format("-A FORWARD -d 10.0.0.0/28 -j DROP"), {}, TO_VIP, "DROP"),
    ("a range of addresses: they differ",
     NAT.format("-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.7-10.0.0.9")
     + FILTER.format("-A FORWARD -d 10.0.0.8 -j DROP"), {}, TO_VIP, "UNDECIDED"),
    ("after DNAT the way is that of the new destination",
     NAT.format("-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.1")
     + FILTER.format("-A INPUT -j DROP"), {"local_addresses": LOCAL}, TO_VIP, "DROP"),
    ("REDIRECT leads to the host", NAT.format("-A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 3128")
     + FILTER.format("-A INPUT -p tcp --dport 3128 -j DROP"), {"local_addresses": LOCAL}, TO_VIP, "DROP"),
    ("NETMAP maps bit by bit", NAT.format("-A PREROUTING -d 203.0.113.0/24 -j NETMAP --to 10.9.0.0/24")
     + FILTER.format("-A FORWARD -d 10.9.0.5 -j DROP"), {}, TO_VIP, "DROP"),
    ("ACCEPT in nat ends the table", NAT.format("-A PREROUTING -s 192.0.2.7 -j ACCEPT\n"
     "-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.7")
     + FILTER.format("-A FORWARD -d 10.0.0.7 -j DROP"), {}, TO_VIP, "ALLOW"),
    ("raw/PREROUTING comes first", RAW.format("-A PREROUTING -j DROP") + FILTER.format(""), {}, TO_VIP, "DROP"),
    ("mangle/FORWARD before filter/FORWARD",
     MANGLE.format("-A FORWARD -j DROP") + FILTER.format("-A FORWARD -j ACCEPT"), {}, TO_VIP, "DROP"),
    ("ACCEPT ends this table only",
     MANGLE.format("-A FORWARD -j ACCEPT") + FILTER.format("-A FORWARD -j DROP"), {}, TO_VIP, "DROP"),
    ("mangle/POSTROUTING after FORWARD", MANGLE.format("-A POSTROUTING -j DROP") + FILTER.format(""), {}, TO_VIP,
     "DROP"),
    ("from the host: OUTPUT, not PREROUTING",
     MANGLE.format("-A PREROUTING -j DROP") + FILTER.format("-A OUTPUT -p tcp -j REJECT"), {"local_addresses": LOCAL},
     "tcp 10.0.0.1:4000 > 192.0.2.7:80", "REJECT"),
    ("to the host: INPUT, not FORWARD", FILTER.format("-A FORWARD -j DROP"), {"local_addresses": LOCAL},
     "tcp 192.0.2.7:4000 > 10.0.0.1:80", "ALLOW"),
    ("of the host to itself: OUTPUT and INPUT", FILTER.format("-A INPUT -j DROP"), {"local_addresses": LOCAL},
     "tcp 10.0.0.1:4000 > 10.0.0.1:80", "DROP"),
    ("a mark set in mangle is seen in filter", MARKED + FILTER.format("-A FORWARD -m mark --mark 0x10 -j DROP"), {},
     TO_VIP, "DROP"),
    ("a mark under a mask", MARKED + FILTER.format("-A FORWARD -m mark --mark 0x10/0x30 -j DROP"), {}, TO_VIP, "DROP"),
    ("an unmarked packet has mark 0", MARKED + FILTER.format("-A FORWARD -m mark ! --mark 0 -j DROP"), {},
     "tcp 198.51.100.1:1 > 203.0.113.5:80", "ALLOW"),
    ("the last mark counts", MANGLE.format("-A PREROUTING -j MARK --set-mark 1\n-A PREROUTING -j MARK --or-mark 2")
     + FILTER.format("-A FORWARD -m mark --mark 3 -j DROP"), {}, TO_VIP, "DROP"),
    ("a rule behind ACCEPT sets no mark",
     MANGLE.format("-A PREROUTING -j ACCEPT\n-A PREROUTING -j MARK --set-mark 1")
     + FILTER.format("-A FORWARD -m mark --mark 1 -j DROP"), {}, TO_VIP, "ALLOW"),
    ("the connection of a first packet has mark 0", MANGLE.format("-A PREROUTING -j CONNMARK --restore-mark")
     + FILTER.format("-A FORWARD -m mark --mark 1 -j DROP"), {}, TO_VIP, "ALLOW"),
    ("a restored mark of a later packet is not known", MANGLE.format("-A PREROUTING -j CONNMARK --restore-mark")
     + FILTER.format("-A FORWARD -m mark --mark 1 -j DROP"), {}, TO_VIP + " ct_state 2", "UNDECIDED"),
    ("a connection's mark that is given counts", FILTER.format("-A FORWARD -m connmark --mark 7 -j DROP"), {},
     TO_VIP + " ct_state 2 ct_mark 7", "DROP"),
    ("a saved mark is the connection's", MANGLE.format("-A PREROUTING -j MARK --set-mark 5\n"
     "-A PREROUTING -j CONNMARK --save-mark") + FILTER.format("-A FORWARD -m connmark --mark 5 -j DROP"), {}, TO_VIP,
     "DROP"),
    ("saved under masks", MANGLE.format("-A PREROUTING -j MARK --set-mark 0xff\n"
     "-A PREROUTING -j CONNMARK --save-mark --nfmask 0xf0 --ctmask 0xff")
     + FILTER.format("-A FORWARD -m connmark --mark 0xf0 -j DROP"), {}, TO_VIP, "DROP"),
    ("saved, cleared and restored", MANGLE.format("-A PREROUTING -j MARK --set-mark 5\n"
     "-A PREROUTING -j CONNMARK --save-mark\n-A PREROUTING -j MARK --set-mark 0\n"
     "-A FORWARD -j CONNMARK --restore-mark") + FILTER.format("-A FORWARD -m mark --mark 5 -j DROP"), {}, TO_VIP,
     "DROP"),
    ("connmark is another number than mark", MANGLE.format("-A PREROUTING -j MARK --set-mark 5")
     + FILTER.format("-A FORWARD -m connmark --mark 5 -j DROP"), {}, TO_VIP, "ALLOW"),
    ("a table sees the marks that it sets itself", FILTER.format("-A FORWARD -p tcp -j MARK --set-xmark 0x1/0x1\n"
     "-A FORWARD -m mark --mark 0x1/0x1 -j DROP"), {"table": "filter"}, TO_VIP, "DROP"),
    ("and only behind them", FILTER.format("-A FORWARD -m mark --mark 0x1/0x1 -j DROP\n"
     "-A FORWARD -p tcp -j MARK --set-xmark 0x1/0x1"), {}, TO_VIP, "ALLOW"),
    ("under its mask a mark keeps its other bits", FILTER.format("-A FORWARD -j MARK --set-xmark 0x1/0x1\n"
     "-A FORWARD -m mark --mark 0x5 -j DROP"), {"table": "filter"}, TO_VIP + " mark 4", "DROP"),
    ("xor", FILTER.format("-A FORWARD -j MARK --xor-mark 0x5\n-A FORWARD -m mark --mark 0x1 -j DROP"),
     {"table": "filter"}, TO_VIP + " mark 4", "DROP"),
    ("a mark of another packet's rule does not count", FILTER.format("-A FORWARD -p udp -j MARK --set-mark 1\n"
     "-A FORWARD -m mark --mark 1 -j DROP"), {}, TO_VIP, "ALLOW"),
    ("NOTRACK: the connection state is UNTRACKED", RAW.format("-A PREROUTING -j CT --notrack")
     + FILTER.format("-A FORWARD -m conntrack --ctstate UNTRACKED -j DROP"), {}, TO_VIP, "DROP"),
    ("--ctstate DNAT is a property beside the state: translated",
     NAT.format("-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.7")
     + FILTER.format("-A FORWARD -m conntrack --ctstate DNAT -j DROP"), {}, TO_VIP, "DROP"),
    ("--ctstate DNAT: not translated", NAT.format("-A PREROUTING -d 203.0.113.6 -j DNAT --to-destination 10.0.0.7")
     + FILTER.format("-A FORWARD -m conntrack --ctstate DNAT -j DROP"), {}, TO_VIP, "ALLOW"),
    ("--ctstate INVALID,DNAT: one of both", NAT.format("-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.7")
     + FILTER.format("-A FORWARD -m conntrack --ctstate INVALID,DNAT -j DROP"), {}, TO_VIP, "DROP"),
    ("! --ctstate RELATED,DNAT: neither", NAT.format("-A PREROUTING -d 203.0.113.5 -j DNAT --to-destination 10.0.0.7")
     + FILTER.format("-A FORWARD -m conntrack ! --ctstate RELATED,DNAT -j DROP"), {}, TO_VIP, "ALLOW"),
    ("--ctstate DNAT without NAT evaluated", FILTER.format("-A FORWARD -m conntrack --ctstate DNAT -j DROP"),
     {"table": "filter"}, TO_VIP, "UNDECIDED"),
    ("mac --mac-source", FILTER.format("-A FORWARD -m mac --mac-source 00:11:22:33:44:55 -j DROP"), {},
     TO_VIP + " src_mac 00:11:22:33:44:55", "DROP"),
    ("mac of another frame", FILTER.format("-A FORWARD -m mac --mac-source 00:11:22:33:44:55 -j DROP"), {},
     TO_VIP + " src_mac 00:11:22:33:44:56", "ALLOW"),
    ("pkttype multicast", FILTER.format("-A FORWARD -m pkttype --pkt-type multicast -j DROP"), {},
     TO_VIP + " dst_mac 01:00:5e:00:00:01", "DROP"),
    ("pkttype unicast", FILTER.format("-A FORWARD -m pkttype --pkt-type unicast -j DROP"), {},
     TO_VIP + " dst_mac 00:11:22:33:44:55", "DROP"),
    ("pkttype broadcast is no multicast", FILTER.format("-A FORWARD -m pkttype --pkt-type multicast -j DROP"), {},
     TO_VIP + " dst_mac ff:ff:ff:ff:ff:ff", "ALLOW"),
    ("recent --set matches every packet", FILTER.format("-A FORWARD -m recent --set --name a --rsource -j DROP"), {},
     TO_VIP, "DROP"),
    ("a mark given with the packet counts", FILTER.format("-A FORWARD -m mark --mark 7 -j DROP"), {"table": "filter"},
     TO_VIP + " mark 7", "DROP"),
    ("a mark that is not given is not known", FILTER.format("-A FORWARD -m mark --mark 7 -j DROP"),
     {"table": "filter"}, TO_VIP, "UNDECIDED"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "dump", "options", "packet", "expected"), CASES, ids=[c[0] for c in CASES])
def test_the_way_through_the_host(
    sentence: str, dump: str, options: dict[str, Any], packet: str, expected: str
) -> None:
    found = engine(dump, **options).explain(packet)
    assert found.action == expected, str(found)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("-A PREROUTING -j DNAT", "DNAT names no address"),
        ("-A PREROUTING -j DNAT --to-destination 10.0.0.9-10.0.0.1", "no address or range"),
        ("-A PREROUTING -j DNAT --to-destination 10.0.0.9:99999", "'99999' is no port"),
        ("-A PREROUTING -j DNAT --to-destination 10.0.0.300", "10.0.0.300"),
    ],
)
def test_malformed_targets_are_refused(rule: str, text: str) -> None:
    with pytest.raises(PolicyError, match=text) as caught:
        engine(NAT.format(rule) + FILTER.format(""))
    assert "x.rules:6" in str(caught.value)


def test_calico_decides_by_the_marks_that_it_sets() -> None:
    """Profiles set a mark, their callers return on it; the table is decided without any mark given."""
    rules = (
        "-A FORWARD -j cali-FORWARD\n-A FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT\n"
        "-A cali-FORWARD -j MARK --set-xmark 0x0/0x30000\n-A cali-FORWARD -o cali1 -g tw\n"
        "-A tw -m mark --mark 0x0/0x20000 -j pi\n-A tw -m mark --mark 0x10000/0x10000 -j RETURN\n-A tw -j DROP\n"
        "-A pi -p tcp -m multiport --dports 80,443 -j MARK --set-xmark 0x10000/0x10000\n"
        "-A pi -m mark --mark 0x10000/0x10000 -j RETURN"
    )
    chains = ":cali-FORWARD - [0:0]\n:tw - [0:0]\n:pi - [0:0]\n"
    of = engine(FILTER.format(chains + rules), table="filter")
    assert of.explain("tcp 10.0.0.1:1 > 10.0.0.2:80", oif="cali1").action == "ALLOW"
    assert of.explain("tcp 10.0.0.1:1 > 10.0.0.2:22", oif="cali1").action == "DROP"


@pytest.mark.parametrize("mode", ["upper", "lower"])
def test_bounds_take_a_mark_as_unknown(mode: str) -> None:
    found = engine(FILTER.format("-A FORWARD -m mark --mark 7 -j DROP"), table="filter", mode=mode).explain(TO_VIP)
    assert found.action == {"upper": "ALLOW", "lower": "DROP"}[mode]


def test_explain_names_what_the_winner_hides() -> None:
    rules = "-A FORWARD -s 10.0.0.0/8 -j DROP\n-A FORWARD -d 192.0.2.1 -j ACCEPT\n-A FORWARD -s 10.0.0.1 -j ACCEPT"
    (point,) = engine(FILTER.format(rules), table="filter").explain("tcp 10.0.0.1:1 > 10.0.0.2:2").points
    assert [name for name, _, _ in point.shadowed] == ["FORWARD:3", "FORWARD policy"]
