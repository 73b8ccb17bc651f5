"""What nft does, case by case, each with its sentence from nft(8) or from the specification of the project."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from meshsieve import packets
from meshsieve.engine import Engine
from meshsieve.errors import PolicyError
from meshsieve.importers.nft import NftImporter
from meshsieve.model import Action
from meshsieve.policy import ImportOptions, SourceFile
from tests.unit.test_iptables_semantics import ACK, BASE, SYN, SYN_ACK, icmp, tcp, udp


def verdict(rules: str, packet: dict, table: str = "inet", **options) -> str:
    """Of the hook forward with policy drop: the first layer that does not allow, else ALLOW."""
    text = rules
    if "table" not in rules:
        text = (
            f"table {table} t {{\n{rules}\n}}\n" if "chain f" in rules else f"table {table} t {{\n{base(rules)}\n}}\n"
        )
    layers = NftImporter().load([SourceFile("t", text)], ImportOptions(**{"strict": False, **options})).layers
    for layer in layers:
        rule_set = layer.points[0].rules
        fields = {n: rule_set.names[n].code(v) if n in ("iif", "oif") else v for n, v in (BASE | packet).items()}
        result = packets.compile(rule_set).classify(**fields)
        found = Action(int(rule_set.actions[result])).name if result >= 0 else "UNDECIDED"
        if found != "ALLOW":
            return found
    return "ALLOW"


def base(rules: str, policy: str = "drop") -> str:
    return f"chain f {{ type filter hook forward priority 0; policy {policy};\n{rules}\n}}"


TWO_TABLES = (
    "table inet a {\n" + base("tcp dport 80 accept", "accept") + "\n}\ntable inet b {\n"
    "chain g { type filter hook forward priority 10; policy accept;\ntcp dport 80 drop\n}\n}"
)

CASES = [
    ("accept ends this base chain only; the packet goes on to the next one", TWO_TABLES, tcp(80), "DROP"),
    ("accepted iff no chain drops", TWO_TABLES, tcp(81), "ALLOW"),
    ("policy default accept", "chain f { type filter hook forward priority 0;\n}", tcp(), "ALLOW"),
    ("return in a base chain leads to its policy", "return\naccept", tcp(), "DROP"),
    ("continue goes on", "tcp dport 80 continue\naccept", tcp(), "ALLOW"),
    ("a rule without verdict decides nothing", "tcp dport 80 counter\naccept", tcp(), "ALLOW"),
    ("jump comes back", "chain c { return; }\n" + base("jump c\naccept"), tcp(), "ALLOW"),
    ("goto does not", "chain c { return; }\n" + base("goto c\naccept"), tcp(), "DROP"),
    ("reject denies", "reject with tcp reset", tcp(), "REJECT"),
    ("queue is UNDECIDED", "queue num 1", tcp(), "UNDECIDED"),
    ("tcp dport != 22 is TCP to another port", "tcp dport != 22 accept", tcp(80), "ALLOW"),
    ("... so UDP does not match", "tcp dport != 22 accept", udp(80), "DROP"),
    ("in inet, ip saddr implies IPv4", "ip saddr != 192.0.2.1 accept", tcp(src="::1", dst="::2", ip_ver=6), "DROP"),
    ("a set is an OR", "tcp dport { 22, 80-90 } accept", tcp(85), "ALLOW"),
    ("... and its negation a NOR", "tcp dport != { 22, 80-90 } accept", tcp(85), "DROP"),
    ("a named set", "set s { type inet_service; elements = { 80 } }\n" + base("tcp dport @s accept"), tcp(), "ALLOW"),
    ("an empty set matches nothing", "set s { type inet_service; }\n" + base("tcp dport @s accept"), tcp(), "DROP"),
    (
        "... and its negation everything",
        "set s { type inet_service; }\n" + base("tcp dport != @s accept"),
        tcp(),
        "ALLOW",
    ),
    (
        "a set that packets fill cannot be known",
        "set s { type inet_service; flags dynamic; }\n" + base("tcp dport @s accept"),
        tcp(),
        "UNDECIDED",
    ),
    (
        "concatenations match tuple-wise",
        "ip saddr . tcp dport { 10.0.0.1 . 80, 10.0.0.9 . 81 } accept",
        tcp(80),
        "ALLOW",
    ),
    ("... not crosswise", "ip saddr . tcp dport { 10.0.0.1 . 81, 10.0.0.9 . 80 } accept", tcp(80), "DROP"),
    ("a verdict map takes the verdict of the key", "tcp dport vmap { 80 : accept, 81 : drop }", tcp(80), "ALLOW"),
    ("... and none without the key", "tcp dport vmap { 81 : drop }\naccept", tcp(80), "ALLOW"),
    ("... * is every other key", "tcp dport vmap { * : drop, 80 : accept }", tcp(80), "ALLOW"),
    ("tcp flags syn,ack: any of", "tcp flags syn,ack accept", tcp(flags=ACK), "ALLOW"),
    ("tcp flags & mask == value: exact", "tcp flags & (fin|syn|rst|ack) == syn accept", tcp(flags=SYN_ACK), "DROP"),
    ("tcp flags value / mask: the same", "tcp flags syn / fin,syn,rst,ack accept", tcp(flags=SYN), "ALLOW"),
    ("tcp flags == syn: no other flag at all", "tcp flags == syn accept", tcp(flags=SYN | 8), "DROP"),
    ("tcp flags in a set: exact", "tcp flags { syn, syn | ack } accept", tcp(flags=SYN_ACK), "ALLOW"),
    ("ct state is a list of states", "ct state established,related accept", tcp(ct_state=3), "ALLOW"),
    ("ct state in a verdict map", "ct state vmap { invalid : drop, new : accept }", tcp(ct_state=1), "ALLOW"),
    ("interface names: trailing * is a wildcard", 'iifname "eth*" accept', tcp(iif="eth7"), "ALLOW"),
    ("... without it the whole name", 'iifname "eth" accept', tcp(iif="eth7"), "DROP"),
    ("an interface that nobody saw", 'iifname "eth0" accept', tcp(), "UNDECIDED"),
    ("icmp type by name", "icmp type { echo-request, 3 } accept", icmp(8), "ALLOW"),
    ("icmpv6 type by name", "icmpv6 type nd-neighbor-solicit accept", icmp(135, proto=58), "ALLOW"),
    ("comparisons", "tcp dport >= 80 tcp dport < 81 accept", tcp(80), "ALLOW"),
    ("th is any transport", "th dport 53 accept", udp(53), "ALLOW"),
    (
        "... and looks at other headers too",
        "th dport 53 accept",
        icmp(8, proto=47, icmp_type=None, icmp_code=None),
        "UNDECIDED",
    ),
    ("limit is UNKNOWN", "limit rate 5/second accept", tcp(), "UNDECIDED"),
    ("... whatever fails beside it", "udp dport 53 limit rate 5/second accept", tcp(), "DROP"),
    ("setting a mark matches nothing", "meta mark set 0x1 accept", tcp(), "ALLOW"),
    ("... nor does one mark from another", "ct mark set meta mark tcp dport 81 accept", tcp(), "DROP"),
    ("an unknown match keeps its value from the verdict", "ct status dnat drop\naccept", tcp(), "UNDECIDED"),
    (
        "log and counter have no verdict",
        'log prefix "x drop " level info counter packets 1 bytes 2 accept',
        tcp(),
        "ALLOW",
    ),
    ("a dormant table does nothing", "table ip t {\nflags dormant\n" + base("drop") + "\n}", tcp(), "ALLOW"),
    ("snat and masquerade accept", "masquerade", tcp(), "ALLOW"),
]


@pytest.mark.parametrize(("sentence", "rules", "packet", "expected"), CASES, ids=[c[0][:60] for c in CASES])
def test_a_sentence_of_the_semantics(sentence, rules, packet, expected):
    assert verdict(rules, packet) == expected


REFUSED = [
    ("an unknown match", "frobnicate 3 accept", "begins no match or statement"),
    ("a port beyond 65535", "tcp dport 65536 accept", "beyond 65535"),
    ("a falling range", "tcp dport 90-80 accept", "ends before it starts"),
    ("a chain that is not there", "jump nowhere", "has no chain 'nowhere'"),
    ("a set that is not there", "tcp dport @nowhere accept", "has no set 'nowhere'"),
    ("an unknown flag", "tcp flags foo accept", "not a TCP flag"),
    ("a brace without end", "tcp dport { 80, accept", "end"),
    ("a key of the wrong width", "ip saddr . tcp dport { 10.0.0.1 } accept", "has not 2 parts"),
    ("an unknown policy", "chain f { type filter hook forward priority 0; policy reject; }", "is no policy"),
    ("an unknown hook", "chain f { type filter hook sideways priority 0; }", "is no base chain"),
    ("an unknown priority", "chain f { type filter hook forward priority soon; }", "is no priority"),
    (
        "a verdict map over what cannot be known",
        "numgen random mod 2 vmap { 0 : accept, 1 : drop }",
        "cannot be known, so neither can the verdict of its map",
    ),
    ("a chain that calls itself", "chain f { type filter hook forward priority 0; jump f; }", "in a circle"),
]


@pytest.mark.parametrize(("what", "rules", "says"), REFUSED, ids=[c[0] for c in REFUSED])
def test_what_cannot_be_loaded_is_refused_with_its_place(what, rules, says):
    with pytest.raises(PolicyError, match=says) as error:
        verdict(rules, tcp(), strict=True)
    assert error.value.where.startswith("t")


@pytest.mark.parametrize(("mode", "expected"), [("upper", "ALLOW"), ("lower", "DROP")])
def test_bounds(mode, expected):
    assert verdict("limit rate 5/second accept", tcp(), mode=mode) == expected


def test_the_host_s_own_addresses_are_known_once_given():
    rules = "fib daddr type local accept"
    assert verdict(rules, tcp(dst="10.0.0.2"), local_addresses=("10.0.0.2",)) == "ALLOW"
    assert verdict(rules, tcp(dst="10.0.0.3"), local_addresses=("10.0.0.2",)) == "DROP"
    assert verdict(rules, tcp()) == "UNDECIDED"


def as_json(text: str) -> str:
    """What nft itself prints of a ruleset with -j, in a network namespace of its own."""
    if not shutil.which("unshare") or not shutil.which("nft"):
        pytest.skip("needs unshare and nft")
    command = ["unshare", "-rn", "sh", "-c", "nft -f - && nft -j list ruleset"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
    if done.returncode:
        pytest.skip(f"this kernel does not load it: {done.stderr[:100]}")
    return done.stdout


# nft 1.0.6 does not say in JSON that a set is dynamic.
JSON_CASES = [case for case in CASES if "that packets fill" not in case[0]]


@pytest.mark.parametrize(("sentence", "rules", "packet", "expected"), JSON_CASES, ids=[c[0] for c in JSON_CASES])
def test_the_json_form_says_the_same_as_the_text(sentence, rules, packet, expected):
    """Every case above, loaded by nft and printed by ``nft -j``, each in a process of its own."""
    text = rules
    if "table" not in rules:
        text = f"table inet t {{\n{rules if 'chain f' in rules else base(rules)}\n}}\n"
    assert verdict(as_json(text), packet) == expected, sentence


WITH_JSON = '{"nftables": [{"table": {"family": "inet", "name": "t"}}, %s]}'
JSON_CHAIN = (
    '{"chain": {"family": "inet", "table": "t", "name": "f", "type": "filter", "hook": "forward", "prio": 0, '
    '"policy": "drop"}}'
)


def json_rule(expr: str) -> str:
    rule = f'{{"rule": {{"family": "inet", "table": "t", "chain": "f", "expr": [{expr}]}}}}'
    return WITH_JSON % f"{JSON_CHAIN}, {rule}"


MATCH_80 = '{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 80}}'


@pytest.mark.parametrize(
    ("sentence", "expr", "expected"),
    [
        ("a match and a verdict", MATCH_80 + ', {"accept": null}', "ALLOW"),
        ("a match of iptables-nft cannot be known", '{"xt": {"type": "match", "name": "x"}}, {"accept": null}',
         "UNDECIDED"),
        ("raw bytes cannot be known", '{"match": {"op": "==", "left": {"payload": {"base": "th", "offset": 0, '
         '"len": 8}}, "right": 1}}, {"accept": null}', "UNDECIDED"),
    ],
)  # fmt: skip
def test_rules_in_json(sentence, expr, expected):
    assert verdict(json_rule(expr), tcp(80)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WITH_JSON % '{"rule": {"family": "inet", "table": "t", "chain": "no", "expr": []}}', "has no chain 'no'"),
        (WITH_JSON % '{"rule": {"family": "ip", "table": "t", "chain": "f", "expr": []}}', "there is no table ip t"),
        (json_rule('{"teleport": null}'), "a statement 'teleport' is not read"),
        (json_rule('{"match": {"op": "==", "left": {"x": 1}, "right": 1}}'), "an expression 'x' is not read"),
        ('{"nftables": 3}', "has no list 'nftables'"),
        (WITH_JSON % '{"gadget": {"family": "inet", "table": "t"}}', "kind 'gadget' is not read"),
    ],
)
def test_json_that_cannot_be_read_is_refused(text, says):
    with pytest.raises(PolicyError, match=says):
        verdict(text, tcp(), strict=True)


NAT = "chain n { type nat hook prerouting priority dstnat; %s }\nchain f { type filter hook forward priority 0; %s }"
TO_VIP = "tcp 192.0.2.7:4000 > 203.0.113.5:80"
WAYS = [
    ("dnat: accept + rewrite", NAT % ("ip daddr 203.0.113.5 tcp dport 80 dnat ip to 10.0.0.7:8080;",
                                      "ip daddr 10.0.0.7 tcp dport 8080 drop;"), TO_VIP, "DROP"),
    ("... only for the first packet", NAT % ("dnat ip to 10.0.0.7;", "ip daddr 10.0.0.7 drop;"),
     TO_VIP + " ct_state 2", "ALLOW"),
    ("a range whose outcomes differ", NAT % ("dnat ip to 10.0.0.7-10.0.0.8;", "ip daddr 10.0.0.7 drop;"), TO_VIP,
     "UNDECIDED"),
    ("a map cannot be known", NAT % ("dnat ip to tcp dport map { 80 : 10.0.0.7 };", "ip daddr 10.0.0.7 drop;"), TO_VIP,
     "UNDECIDED"),
    ("redirect", NAT % ("tcp dport 80 redirect to :3128;", "tcp dport 3128 drop;"), TO_VIP, "DROP"),
    ("a mark is seen by later hooks", NAT % ("meta mark set 0x5;", "meta mark 0x5 drop;"), TO_VIP, "DROP"),
    ("... under a mask", NAT % ("meta mark set meta mark | 0x4;", "meta mark & 0x4 == 0x4 drop;"), TO_VIP, "DROP"),
    ("... and its other bits are 0", NAT % ("meta mark set 0x5;", "meta mark & 0x2 == 0x2 drop;"), TO_VIP, "ALLOW"),
    ("a packet comes with mark 0", NAT % ("", "meta mark != 0x0 drop;"), TO_VIP, "ALLOW"),
    ("a mark of the connection", NAT % ("meta mark set 0x5; ct mark set meta mark;", "ct mark 0x5 drop;"), TO_VIP,
     "DROP"),
    ("... restored", NAT % ("ct mark set 0x5;", "meta mark set ct mark;\nmeta mark 0x5 drop;"), TO_VIP, "DROP"),
    ("... of a later packet nobody knows it", NAT % ("", "ct mark 0x5 drop;"), TO_VIP + " ct_state 2", "UNDECIDED"),
    ("marks in a set", NAT % ("meta mark set 0x5;", "meta mark { 0x4, 0x5 } drop;"), TO_VIP, "DROP"),
    ("a verdict map of marks", NAT % ("meta mark set 0x5;", "meta mark vmap { 0x5 : drop, 0x0 : accept }"), TO_VIP,
     "DROP"),
    ("ct status dnat: translated", NAT % ("dnat ip to 10.0.0.7;", "ct status dnat drop;"), TO_VIP, "DROP"),
    ("ct status dnat: not translated", NAT % ("", "ct status dnat drop;"), TO_VIP, "ALLOW"),
    ("notrack: ct state untracked", "chain r { type filter hook prerouting priority raw; notrack; }\n"
     "chain f { type filter hook forward priority 0; ct state untracked drop; }", TO_VIP, "DROP"),
    ("one outcome of a random map is that one", "chain c { drop; }\n" + NAT
     % ("", "numgen random mod 1 vmap { 0 : goto c }"), TO_VIP, "DROP"),
    ("hooks in order, each by priority",
     "chain p { type filter hook postrouting priority 0; drop; }\n" + base("accept"), TO_VIP, "DROP"),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "chains", "packet", "expected"), WAYS, ids=[w[0] for w in WAYS])
def test_all_hooks(sentence, chains, packet, expected):
    source = SourceFile("t", f"table inet t {{\n{chains}\n}}\n")
    found = Engine(NftImporter().load([source], ImportOptions(table="all")).layers).explain(packet)
    assert found.action == expected, str(found)
