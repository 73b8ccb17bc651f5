"""What iptables does, case by case, each with the sentence it comes from.

Sentences are from iptables(8), iptables-extensions(8) and the project's specification of the walk (docs/semantics.md,
docs/importers/iptables.md). They are the cases that no collected dump can decide.
"""

from __future__ import annotations

import pytest

from meshsieve import packets
from meshsieve.errors import PolicyError
from meshsieve.importers.iptables import IptablesImporter
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, SourceFile

STATE = {"NEW": 1, "ESTABLISHED": 2, "RELATED": 3, "INVALID": 4, "UNTRACKED": 5}
SYN, SYN_ACK, ACK, FIN_ACK, XMAS = 2, 18, 16, 17, 41
BASE = {"ip_ver": 4, "fragment": 0}


def tcp(dport=80, flags=SYN, **more):
    return {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 4242, "dport": dport, "proto": 6, "tcp_flags": flags} | more


def udp(dport=53, **more):
    return {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 4242, "dport": dport, "proto": 17} | more


def icmp(kind=8, code=0, proto=1, **more):
    return {"src": "10.0.0.1", "dst": "10.0.0.2", "proto": proto, "icmp_type": kind, "icmp_code": code} | more


def verdict(text: str, packet: dict, **options) -> str:
    """Of the chain FORWARD with policy DROP, or of ``chain``."""
    header = ":INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n"
    dump = text if "*" in text else f"*filter\n{header}{text}\nCOMMIT\n"
    layer = IptablesImporter().load([SourceFile("t", dump)], ImportOptions(**{"strict": False, **options})).layers[0]
    rules = layer.points[0].rules
    names = {n: v for n, v in packet.items() if n in ("iif", "oif")}
    fields = BASE | packet | {n: rules.names[n].code(v) for n, v in names.items()}
    result = packets.compile(rules).classify(**fields)
    return Action(int(rules.actions[result])).name if result >= 0 else "UNDECIDED"


CHAINS = ":A - [0:0]\n:B - [0:0]\n"

CASES = [
    # sentence, rules, packet, verdict
    (
        "-j user: no decision, go on after the rule",
        f"{CHAINS}-A FORWARD -j A\n-A FORWARD -j ACCEPT\n-A A -p udp -j DROP",
        tcp(),
        "ALLOW",
    ),
    (
        "-g user: no decision, return as the current chain would; in a built-in chain to its policy",
        f"{CHAINS}-A FORWARD -g A\n-A FORWARD -j ACCEPT\n-A A -p udp -j ACCEPT",
        tcp(),
        "DROP",
    ),
    (
        "-g from a user chain returns to the caller of that chain",
        f"{CHAINS}-A FORWARD -j A\n-A FORWARD -j ACCEPT\n-A A -g B\n-A A -j DROP\n-A B -p udp -j DROP",
        tcp(),
        "ALLOW",
    ),
    (
        "a goto whose match fails goes on in its own chain",
        f"{CHAINS}-A FORWARD -p udp -g A\n-A FORWARD -j ACCEPT\n-A A -j DROP",
        tcp(),
        "ALLOW",
    ),
    (
        "-j behind a -g comes back to the chain of the goto's caller, not to the goto",
        f"{CHAINS}-A FORWARD -g A\n-A FORWARD -j ACCEPT\n-A A -j B\n-A A -p tcp -j REJECT\n-A B -j RETURN",
        tcp(),
        "REJECT",
    ),
    (
        "RETURN goes back to the caller, after the jump",
        f"{CHAINS}-A FORWARD -j A\n-A FORWARD -j ACCEPT\n-A A -p tcp -j RETURN\n-A A -j REJECT",
        tcp(),
        "ALLOW",
    ),
    ("RETURN in a built-in chain goes to its policy", "-A FORWARD -j RETURN\n-A FORWARD -j ACCEPT", tcp(), "DROP"),
    ("the end of a built-in chain is its policy", "-A FORWARD -p udp -j ACCEPT", tcp(), "DROP"),
    ("no -j only counts", "-A FORWARD -p tcp\n-A FORWARD -j ACCEPT", tcp(), "ALLOW"),
    ("LOG has no verdict, the walk goes on", "-A FORWARD -j LOG --log-prefix x\n-A FORWARD -j ACCEPT", tcp(), "ALLOW"),
    ("REJECT denies", "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset", tcp(), "REJECT"),
    ("NFQUEUE is UNDECIDED", "-A FORWARD -j NFQUEUE --queue-num 3", tcp(), "UNDECIDED"),
    ("-I inserts at the head by default", "-A FORWARD -j DROP\n-I FORWARD -j ACCEPT", tcp(), "ALLOW"),
    (
        "-I n inserts before rule n",
        "-A FORWARD -p udp -j DROP\n-A FORWARD -j DROP\n-I FORWARD 2 -j ACCEPT",
        tcp(),
        "ALLOW",
    ),
    # TCP flags: (flags & MASK) == COMP
    ("--syn is --tcp-flags FIN,SYN,RST,ACK SYN: SYN", "-A FORWARD -p tcp -m tcp --syn -j ACCEPT", tcp(), "ALLOW"),
    ("... SYN+ACK is none", "-A FORWARD -p tcp -m tcp --syn -j ACCEPT", tcp(flags=SYN_ACK), "DROP"),
    (
        "... flags outside the mask do not count: SYN+ECE+CWR",
        "-A FORWARD -p tcp -m tcp --syn -j ACCEPT",
        tcp(flags=194),
        "ALLOW",
    ),
    ("! --syn: everything else", "-A FORWARD -p tcp -m tcp ! --syn -j ACCEPT", tcp(flags=ACK), "ALLOW"),
    ("--tcp-flags ALL NONE: no flag at all", "-A FORWARD -p tcp --tcp-flags ALL NONE -j ACCEPT", tcp(flags=0), "ALLOW"),
    ("... ALL leaves ECE and CWR out", "-A FORWARD -p tcp --tcp-flags ALL NONE -j ACCEPT", tcp(flags=0xC0), "ALLOW"),
    (
        "--tcp-flags ALL FIN,PSH,URG: exactly these",
        "-A FORWARD -p tcp --tcp-flags ALL FIN,PSH,URG -j ACCEPT",
        tcp(flags=XMAS),
        "ALLOW",
    ),
    ("... and no other", "-A FORWARD -p tcp --tcp-flags ALL FIN,PSH,URG -j ACCEPT", tcp(flags=XMAS | 2), "DROP"),
    ("... COMP outside MASK never matches", "-A FORWARD -p tcp --tcp-flags SYN ACK -j ACCEPT", tcp(flags=ACK), "DROP"),
    # ICMP
    ("--icmp-type 3: every code", "-A FORWARD -p icmp --icmp-type 3 -j ACCEPT", icmp(3, 13), "ALLOW"),
    ("--icmp-type 3/4: this code", "-A FORWARD -p icmp --icmp-type 3/4 -j ACCEPT", icmp(3, 4), "ALLOW"),
    ("... and no other code", "-A FORWARD -p icmp --icmp-type 3/4 -j ACCEPT", icmp(3, 3), "DROP"),
    (
        "fragmentation-needed is 3/4",
        "-A FORWARD -p icmp --icmp-type fragmentation-needed -j ACCEPT",
        icmp(3, 4),
        "ALLOW",
    ),
    ("! --icmp-type 3/4: another code matches", "-A FORWARD -p icmp ! --icmp-type 3/4 -j ACCEPT", icmp(3, 3), "ALLOW"),
    ("any: every ICMP packet", "-A FORWARD -p icmp --icmp-type any -j ACCEPT", icmp(200, 7), "ALLOW"),
    ("--icmp-type speaks of ICMP, not ICMPv6", "-A FORWARD -p icmp --icmp-type 8 -j ACCEPT", icmp(8, proto=58), "DROP"),
    # interfaces
    ("eth+ is every name that begins with eth", "-A FORWARD -i eth+ -j ACCEPT", tcp(iif="eth0.7"), "ALLOW"),
    ("... eth itself too", "-A FORWARD -i eth+ -j ACCEPT", tcp(iif="eth"), "ALLOW"),
    ("... not et", "-A FORWARD -i eth+ -j ACCEPT", tcp(iif="et"), "DROP"),
    ("a name without + is compared whole", "-A FORWARD -i eth1 -j ACCEPT", tcp(iif="eth10"), "DROP"),
    ("! -i eth+", "-A FORWARD ! -i eth+ -j ACCEPT", tcp(iif="wlan0"), "ALLOW"),
    ("+ alone is any interface, even an unseen one", "-A FORWARD -i + -j ACCEPT", tcp(), "ALLOW"),
    ("an interface that nobody saw is UNKNOWN", "-A FORWARD -i eth0 -j ACCEPT", tcp(), "UNDECIDED"),
    ("... and so is its negation", "-A FORWARD ! -i eth0 -j ACCEPT", tcp(), "UNDECIDED"),
    ("... but what fails otherwise is FALSE", "-A FORWARD -i eth0 -p udp -j ACCEPT", tcp(), "DROP"),
    # states
    (
        "a list of states is an OR",
        "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT",
        tcp(ct_state=3),
        "ALLOW",
    ),
    ("NEW is not ESTABLISHED", "-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT", tcp(ct_state=1), "DROP"),
    ("! --ctstate: every other state", "-A FORWARD -m conntrack ! --ctstate NEW -j ACCEPT", tcp(ct_state=5), "ALLOW"),
    ("old form, ! behind the option", "-A FORWARD -m state --state ! NEW -j ACCEPT", tcp(ct_state=4), "ALLOW"),
    ("a state that nobody computed is UNKNOWN", "-A FORWARD -m state --state NEW -j ACCEPT", tcp(), "UNDECIDED"),
    (
        "SNAT beside a state that holds: TRUE",
        "-A FORWARD -m conntrack --ctstate NEW,SNAT -j ACCEPT",
        tcp(ct_state=1),
        "ALLOW",
    ),
    (
        "... and beside one that fails: UNKNOWN",
        "-A FORWARD -m conntrack --ctstate NEW,SNAT -j ACCEPT",
        tcp(ct_state=2),
        "UNDECIDED",
    ),
    # addresses
    ("iprange: the first address", "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT", tcp(), "ALLOW"),
    ("... the last", "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT", tcp(src="10.0.0.9"), "ALLOW"),
    ("... one beyond", "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT", tcp(src="10.0.0.10"), "DROP"),
    ("... one before", "-A FORWARD -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT", tcp(src="10.0.0.0"), "DROP"),
    ("! --dst-range", "-A FORWARD -m iprange ! --dst-range 10.0.0.2-10.0.0.2 -j ACCEPT", tcp(), "DROP"),
    ("bits outside the mask do not count", "-A FORWARD -s 10.0.0.99/24 -j ACCEPT", tcp(), "ALLOW"),
    ("a comma list expands to several rules", "-A FORWARD -s 192.0.2.1,10.0.0.1 -j ACCEPT", tcp(), "ALLOW"),
    ("a mask with holes", "-A FORWARD -s 10.0.0.1/255.255.0.255 -j ACCEPT", tcp(src="10.0.8.1"), "ALLOW"),
    ("old form of a negation", "-A FORWARD -s ! 10.0.0.0/8 -j ACCEPT", tcp(), "DROP"),
    # ports
    ("an open end: 1024:", "-A FORWARD -p tcp --dport 1024: -j ACCEPT", tcp(65535), "ALLOW"),
    ("an open start: :80", "-A FORWARD -p tcp --dport :80 -j ACCEPT", tcp(0), "ALLOW"),
    ("reversed order is swapped", "-A FORWARD -p tcp --dport 90:80 -j ACCEPT", tcp(85), "ALLOW"),
    ("--ports is either side", "-A FORWARD -p tcp -m multiport --ports 4242 -j ACCEPT", tcp(80), "ALLOW"),
    ("! --ports is neither", "-A FORWARD -p tcp -m multiport ! --ports 4242 -j ACCEPT", tcp(80), "DROP"),
    ("sctp has ports", "-A FORWARD -p sctp --dport 80 -j ACCEPT", tcp(proto=132, tcp_flags=None), "ALLOW"),
    ("-p all and -p 0 are any", "-A FORWARD -p 0 -j ACCEPT", icmp(), "ALLOW"),
    # fragments
    ("-f: fragments that are not the first", "-A FORWARD -f -j ACCEPT", tcp(fragment=1), "ALLOW"),
    ("! -f: first fragments and whole packets", "-A FORWARD ! -f -j ACCEPT", tcp(), "ALLOW"),
    (
        "a later fragment's ports are UNKNOWN",
        "-A FORWARD -p tcp --dport 80 -j ACCEPT",
        {**tcp(fragment=1), "sport": None, "dport": None, "tcp_flags": None},
        "UNDECIDED",
    ),
    # header fields
    ("--ttl-gt", "-A FORWARD -m ttl --ttl-gt 64 -j ACCEPT", tcp(ttl=64), "DROP"),
    ("--ttl-lt", "-A FORWARD -m ttl --ttl-lt 64 -j ACCEPT", tcp(ttl=63), "ALLOW"),
    ("--length a:b, both included", "-A FORWARD -m length --length 40:60 -j ACCEPT", tcp(ip_length=60), "ALLOW"),
    ("--dscp-class AF11 is 10", "-A FORWARD -m dscp --dscp-class AF11 -j ACCEPT", tcp(dscp=10), "ALLOW"),
    ("--tos under a mask of the upper six bits", "-A FORWARD -m tos --tos 0x10/0xfc -j ACCEPT", tcp(dscp=4), "ALLOW"),
    (
        "--tos that asks for ECN bits is UNKNOWN there",
        "-A FORWARD -m tos --tos 0x10 -j ACCEPT",
        tcp(dscp=4),
        "UNDECIDED",
    ),
    ("... and FALSE if the rest differs", "-A FORWARD -m tos --tos 0x10 -j ACCEPT", tcp(dscp=5), "DROP"),
    # words
    ("words behind ACCEPT are matches", "-A FORWARD -j ACCEPT -s 192.0.2.0/24", tcp(), "DROP"),
    (
        "words behind a target with options are its own",
        '-A FORWARD -j LOG --log-prefix "-s 1.2.3.4"\n-A FORWARD -j ACCEPT',
        tcp(),
        "ALLOW",
    ),
    ("--comment is TRUE", '-A FORWARD -m comment --comment "a \\"b\\" -j DROP" -j ACCEPT', tcp(), "ALLOW"),
    ("unknown words up to the next known option are one match", "-A FORWARD --odd 1 2 -p udp -j ACCEPT", tcp(), "DROP"),
    (
        "without *table the text belongs to filter",
        "-P FORWARD ACCEPT\n-N x\n-A FORWARD -p udp -j x\n-A x -j DROP",
        udp(),
        "DROP",
    ),
]


@pytest.mark.parametrize(("sentence", "rules", "packet", "expected"), CASES, ids=[c[0][:60] for c in CASES])
def test_a_sentence_of_the_semantics(sentence, rules, packet, expected):
    assert verdict(rules, packet) == expected


CERTAINTY = [
    # sentence, rules, verdicts in strict, upper, lower
    (
        "a RETURN that matches for sure ends the chain even when here is UNKNOWN",
        f"{CHAINS}-A FORWARD -m x --u -j A\n-A FORWARD -j ACCEPT\n-A A -p tcp -j RETURN\n-A A -j DROP",
        ("ALLOW", "ALLOW", "ALLOW"),
    ),
    (
        "an UNKNOWN RETURN makes the rest of this chain UNKNOWN at best: a denial",
        f"{CHAINS}-A FORWARD -j A\n-A FORWARD -j ACCEPT\n-A A -m x --u -j RETURN\n-A A -j DROP",
        ("UNDECIDED", "ALLOW", "DROP"),
    ),
    (
        "... an accept",
        f"{CHAINS}-A FORWARD -j A\n-A FORWARD -j DROP\n-A A -m x --u -j RETURN\n-A A -j ACCEPT",
        ("UNDECIDED", "ALLOW", "DROP"),
    ),
    (
        "the called chain starts with here AND match",
        f"{CHAINS}-A FORWARD -m x --u -j A\n-A FORWARD -j DROP\n-A A -j B\n-A B -j ACCEPT",
        ("UNDECIDED", "ALLOW", "DROP"),
    ),
    (
        "if it decides nothing the caller goes on with its own here unchanged",
        f"{CHAINS}-A FORWARD -m x --u -j A\n-A FORWARD -j ACCEPT\n-A A -p udp -j DROP",
        ("ALLOW", "ALLOW", "ALLOW"),
    ),
    (
        "an UNKNOWN goto that decides nothing leaves the rest UNKNOWN, the policy certain",
        f"{CHAINS}-A FORWARD -m x --u -g A\n-A FORWARD -j ACCEPT\n-A A -p udp -j ACCEPT",
        ("UNDECIDED", "ALLOW", "DROP"),
    ),
    ("NFQUEUE may accept and may deny", "-A FORWARD -j NFQUEUE\n-A FORWARD -j ACCEPT", ("UNDECIDED", "ALLOW", "DROP")),
]


@pytest.mark.parametrize(("sentence", "rules", "expected"), CERTAINTY, ids=[c[0][:60] for c in CERTAINTY])
def test_uncertainty_travels_with_the_walk(sentence, rules, expected):
    assert tuple(verdict(rules, tcp(), mode=mode) for mode in ("strict", "upper", "lower")) == expected


def test_interfaces_that_a_chain_lacks_have_the_empty_name():
    rules = "-A INPUT ! -o eth0 -p tcp -j ACCEPT\n-A INPUT -o eth+ -j ACCEPT\n"
    rules += "-A OUTPUT -i lo -j ACCEPT\n-A OUTPUT ! -i lo -j REJECT"
    assert verdict(rules, tcp(), chain="INPUT") == "ALLOW"
    assert verdict(rules, udp(), chain="INPUT") == "DROP"
    assert verdict(rules, tcp(), chain="OUTPUT") == "REJECT"


LOCAL = "-A INPUT -p tcp -j ACCEPT\n-A OUTPUT -p tcp -j ACCEPT\n-A OUTPUT -p udp -j ACCEPT\n-A FORWARD -p udp -j REJECT"


@pytest.mark.parametrize(
    ("what", "packet", "expected"),
    [
        ("to the host: INPUT", tcp(src="192.0.2.1", dst="10.0.0.2"), "ALLOW"),
        ("to its broadcast address: INPUT", udp(src="192.0.2.1", dst="10.0.0.255"), "DROP"),
        ("from the host: OUTPUT", udp(src="10.0.0.2", dst="192.0.2.1"), "ALLOW"),
        ("through the host: FORWARD", udp(src="192.0.2.1", dst="192.0.2.9"), "REJECT"),
        ("from the host to itself: OUTPUT accepts, INPUT denies", udp(src="127.0.0.1", dst="127.0.0.1"), "DROP"),
        ("from the host to itself: both accept", tcp(src="127.0.0.1", dst="10.0.0.2"), "ALLOW"),
    ],
)
@pytest.mark.parametrize("mode", ["strict", "upper", "lower"])
def test_who_is_local_chooses_the_chain(what, packet, expected, mode):
    assert verdict(LOCAL, packet, local_addresses=("10.0.0.2/24",), mode=mode) == expected


@pytest.mark.parametrize(
    ("limits", "expected"), [("unknown", "UNDECIDED"), ("always_match", "ALLOW"), ("never_match", "DROP")]
)
def test_a_limit_is_what_the_option_says(limits, expected):
    assert verdict("-A FORWARD -m limit --limit 1/sec -j ACCEPT", tcp(), limits=limits) == expected


@pytest.mark.parametrize(
    ("kind", "address", "expected"),
    [
        ("LOCAL", "10.0.0.2", "ALLOW"),
        ("LOCAL", "127.1.2.3", "ALLOW"),
        ("LOCAL", "10.0.0.3", "DROP"),
        ("BROADCAST", "10.0.0.255", "ALLOW"),
        ("UNICAST", "192.0.2.1", "ALLOW"),
        ("UNICAST", "10.0.0.2", "DROP"),
        ("MULTICAST", "224.0.0.1", "ALLOW"),
    ],
)
def test_address_types_are_known_once_the_host_is(kind, address, expected):
    rules = f"-A FORWARD -m addrtype --dst-type {kind} -j ACCEPT"
    options = {"local_addresses": ("10.0.0.2/24",), "chain": "FORWARD"}
    assert verdict(rules, tcp(dst=address), **options) == expected
    unknown_host = expected if kind == "MULTICAST" else "UNDECIDED"
    assert verdict(rules, tcp(dst=address)) == unknown_host


def test_ip6tables():
    dump = """# Generated by ip6tables-save v1.8.9
*filter
:FORWARD DROP [0:0]
-A FORWARD -s 2001:db8::/32 -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type echo-request -j ACCEPT
COMMIT
"""
    six = {"ip_ver": 6, "src": "2001:db8::1", "dst": "2001:db9::1"}
    assert verdict(dump, tcp(22) | six) == "ALLOW"
    assert verdict(dump, tcp(22) | six | {"src": "2001:db9::1"}) == "DROP"
    assert verdict(dump, icmp(128, proto=58) | six) == "ALLOW"
    assert verdict(dump, icmp(8, proto=58) | six) == "DROP"
    layer = IptablesImporter().load([SourceFile("t", dump)], ImportOptions()).layers[0]
    assert layer.families == {6}


REFUSED = [
    ("a port beyond 65535", "-A FORWARD -p tcp --dport 65536 -j ACCEPT", "is not a port"),
    ("a prefix beyond 32", "-A FORWARD -s 10.0.0.0/33 -j ACCEPT", "beyond 32"),
    ("a leading zero", "-A FORWARD -s 10.0.0.010 -j ACCEPT", "is not an IPv4 address"),
    (
        "an address of the other family",
        "# Generated by iptables-save\n*filter\n-A FORWARD -s ::1 -j DROP\nCOMMIT",
        "IPv4",
    ),
    (
        "a falling address range",
        "-A FORWARD -m iprange --src-range 10.0.0.9-10.0.0.1 -j ACCEPT",
        "ends before it starts",
    ),
    ("16 ports", f"-A FORWARD -p tcp -m multiport --dports {','.join(map(str, range(16)))} -j DROP", "more than 15"),
    ("a falling multiport range", "-A FORWARD -p tcp -m multiport --dports 9:1 -j ACCEPT", "ends before it starts"),
    ("an unknown state", "-A FORWARD -m state --state FRESH -j ACCEPT", "not a connection state"),
    ("an unknown flag", "-A FORWARD -p tcp --tcp-flags SYN,FOO SYN -j ACCEPT", "not a TCP flag"),
    ("a protocol beyond 255", "-A FORWARD -p 256 -j ACCEPT", "is not a protocol"),
    ("a negated list", "-A FORWARD ! -s 10.0.0.1,10.0.0.2 -j ACCEPT", "cannot be negated"),
    ("a missing argument", "-A FORWARD -s", "takes 1 argument"),
    ("a stray word", "-A FORWARD tcp -j ACCEPT", "is no option"),
    ("a quote that does not end", '-A FORWARD -m comment --comment "x -j ACCEPT', "quote does not end"),
    ("two targets", "-A FORWARD -j ACCEPT -j DROP", "one target"),
    ("a goto to nowhere", "-A FORWARD -g NOWHERE", "no chain is called"),
    ("a jump to a built-in chain", "-A FORWARD -j INPUT", "cannot call the built-in chain"),
    ("a rule of an undeclared chain", "-A NOWHERE -j DROP", "no chain is called"),
    ("a policy of a user's chain", ":A DROP [0:0]", "only built-in chains"),
    ("an unknown policy", ":FORWARD REJECT [0:0]", "is not a policy"),
    ("a chain twice", ":A - [0:0]\n:A - [0:0]", "exists already"),
    ("an insert beyond the end", "-I FORWARD 3 -j DROP", "cannot insert at 3"),
    ("another command", "-D FORWARD 1", "is no line of iptables-save"),
    ("a chain that calls itself", ":A - [0:0]\n-A FORWARD -j A\n-A A -j A", "in a circle: A -> A"),
    ("a table without end", "*filter\n-A FORWARD -j DROP", "no COMMIT"),
    ("a table twice", "*filter\nCOMMIT\n*filter\nCOMMIT", "appears twice"),
    ("an unknown table", "*filters\nCOMMIT", "no table is called"),
]


@pytest.mark.parametrize(("what", "rules", "says"), REFUSED, ids=[c[0] for c in REFUSED])
def test_what_iptables_would_not_load_is_refused_with_its_place(what, rules, says):
    with pytest.raises(PolicyError, match=says) as error:
        verdict(rules, tcp(), strict=True)
    assert error.value.where.startswith("t:")


@pytest.mark.parametrize(("depth", "fits"), [(999, True), (1000, False)])
def test_calls_nest_at_most_a_thousand_deep(depth, fits):
    lines = [f":C{i} - [0:0]" for i in range(depth)] + ["-A FORWARD -j C0"]
    lines += [f"-A C{i} -j C{i + 1}" for i in range(depth - 1)] + [f"-A C{depth - 1} -j ACCEPT"]
    if fits:
        assert verdict("\n".join(lines), tcp()) == "ALLOW"
    else:
        with pytest.raises(PolicyError, match="deeper than 1000"):
            verdict("\n".join(lines), tcp())


def test_chains_that_double_are_refused_with_their_names_and_not_unfolded():
    lines = [f":C{i} - [0:0]" for i in range(40)] + ["-A FORWARD -j C0"]
    lines += [f"-A C{i} -s 10.{i}.0.0/16 -j ACCEPT\n-A C{i} -j C{i + 1}\n-A C{i} -j C{i + 1}" for i in range(39)]
    with pytest.raises(PolicyError, match=r"(unfolds to|visits) more than .* C\d+ \d+ times"):
        verdict("\n".join(lines), tcp(), max_rules=1000)


def test_unknown_targets_are_refused_or_undecided():
    rules = "-A FORWARD -j TARPIT"
    with pytest.raises(PolicyError, match="no chain and no known target"):
        verdict(rules, tcp(), strict=True)
    assert verdict(rules, tcp()) == "UNDECIDED"
