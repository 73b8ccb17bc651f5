"""A policy file that is broken anywhere never lets through what it denied, unless an error or a finding says so.

Every position of a small policy of each format is broken in turn: unknown fields, misspelt fields, nonsense values,
values of another type, duplicate keys, dangling references, words that are missing, repeated, cut or replaced, wrong
encodings. Then

    strict   an error that names file, line and column, or the denied packets are still denied (or undecided)
    lenient  the same; where a packet passes that was denied, some finding is there that was not before
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshsieve.engine import Engine, load
from meshsieve.errors import MeshsieveError, PolicyError
from meshsieve.importers.registry import IMPORTERS
from meshsieve.policy import ImportOptions, ImportResult, SourceFile

Json = Any
PASSES = ("ALLOW", "NONE")


def condition(value: str) -> Json:
    return {"resource_type": "Condition", "member_type": "VirtualMachine", "key": "Tag", "operator": "EQUALS",
            "value": value}  # fmt: skip


def machine(name: str, address: str, tag: str) -> tuple[Json, Json]:
    return (
        {"external_id": name, "display_name": name, "tags": [{"scope": "", "tag": tag}]},
        {"external_id": f"{name}-if", "owner_vm_id": name, "lport_attachment_id": f"{name}-at",
         "ip_address_info": [{"ip_addresses": [address]}]},
    )  # fmt: skip


_MACHINES = [machine("web", "10.0.0.1", "web"), machine("db", "10.0.0.2", "db")]
NSX: Json = {
    "virtual_machines": [m for m, _ in _MACHINES],
    "virtual_network_interface": [v for _, v in _MACHINES],
    "segments": [{"path": "/infra/segments/s", "subnets": [{"network": "10.0.0.0/24"}],
                  "segment_ports": [{"id": "p", "attachment": {"id": "web-at"}}]}],
    "services": [{"path": "/infra/services/own", "service_entries": [
        {"resource_type": "L4PortSetServiceEntry", "l4_protocol": "TCP", "destination_ports": ["5432-5440"]}]}],
    "domains": [{"display_name": "default", "resources": {
        "groups": [
            {"path": "/g/web", "expression": [condition("web")]},
            {"path": "/g/nets", "expression": [
                {"resource_type": "IPAddressExpression", "ip_addresses": ["198.51.100.0/24", "192.0.2.1-192.0.2.9"]}]},
        ],
        "security_policies": [
            {"path": "/p/a", "category": "Application", "sequence_number": 1, "rules": [
                {"path": "/p/a/r/1", "display_name": "from nets", "action": "DROP", "sequence_number": 1,
                 "source_groups": ["/g/nets"], "direction": "IN_OUT", "ip_protocol": "IPV4_IPV6"},
                {"path": "/p/a/r/2", "display_name": "db", "action": "ALLOW", "sequence_number": 2,
                 "source_groups": ["/g/web"], "destination_groups": ["10.0.0.2"], "services": ["/infra/services/own"]},
                {"path": "/p/a/r/3", "display_name": "own", "action": "REJECT", "sequence_number": 3,
                 "destination_groups": ["10.0.0.2"], "services": ["/infra/services/own"], "scope": ["ANY"]}]},
            {"path": "/p/b", "category": "Application", "sequence_number": 2, "rules": [
                {"path": "/p/b/r/1", "display_name": "rest", "action": "ALLOW", "sequence_number": 1}]},
        ]}}],
}  # fmt: skip
KUBERNETES: Json = {"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "labels": {"app": "web"}},
     "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
     "status": {"podIP": "10.0.0.1"}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db", "labels": {"app": "db"}},
     "status": {"podIP": "10.0.0.2"}},
    {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "web"},
     "spec": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
              "policyTypes": ["Ingress"],
              "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}],
                           "ports": [{"protocol": "TCP", "port": 80, "endPort": 90}]},
                          {"from": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": "http"}]}]}},
    {"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "a"},
     "spec": {"priority": 5, "subject": {"namespaces": {}},
              "ingress": [{"name": "no", "action": "Deny", "from": [{"namespaces": {}}],
                           "ports": [{"portNumber": {"protocol": "TCP", "port": 22}}]}]}},
]}  # fmt: skip
IPTABLES = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:own - [0:0]
-A FORWARD -s 198.51.100.0/24 -p tcp -m tcp --dport 22:23 -j DROP
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -d 10.0.0.2/32 -j own
-A FORWARD -s 10.0.0.1/32 -d 192.0.2.0/24 -p tcp -m multiport --dports 80,443 -j ACCEPT
-A FORWARD -m iprange --src-range 192.0.2.1-192.0.2.9 -p udp -m udp --dport 53 -j ACCEPT
-A own -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -m mark --mark 0x0/0x1 -j REJECT --reject-with tcp-reset
-A own -p icmp -m icmp --icmp-type 8 -j DROP
-A own -j RETURN
COMMIT
"""
NFT = """table inet t {
  set bad { type ipv4_addr; flags interval; elements = { 198.51.100.0/24, 203.0.113.1-203.0.113.9 } }
  chain own {
    tcp flags & (fin | syn | rst | ack) == syn meta mark & 0x1 == 0x0 reject
    ip protocol icmp drop
  }
  chain forward {
    type filter hook forward priority 0; policy drop;
    ip saddr @bad tcp dport 22-23 drop
    ct state invalid drop
    ip daddr 10.0.0.2 jump own
    ip saddr 10.0.0.1 ip daddr 192.0.2.0/24 tcp dport { 80, 443 } accept
    ip saddr 192.0.2.1-192.0.2.9 udp dport 53 accept
  }
}
"""
# Packets that the policies deny.
DENIED = {
    "nsx": ["tcp 198.51.100.7:1 > 10.0.0.1:80", "udp 192.0.2.5:1 > 10.0.0.2:53", "tcp 10.0.0.9:1 > 10.0.0.2:5433"],
    "kubernetes": ["tcp 192.0.2.200:1 > 10.0.0.1:80", "tcp 192.0.2.1:1 > 10.0.0.1:91", "udp 192.0.2.1:1 > 10.0.0.1:80",
                   "tcp 10.0.0.2:1 > 10.0.0.1:81", "tcp 10.0.0.1:1 > 10.0.0.2:22"],
    "iptables": ["tcp 198.51.100.7:1 > 10.0.0.9:22", "tcp 10.0.0.1:1 > 192.0.2.1:80 ct_state 4",
                 "tcp 10.0.0.1:1 > 10.0.0.2:80 mark 0", "icmp 10.0.0.1 > 10.0.0.2", "tcp 10.0.0.1:1 > 192.0.2.1:81",
                 "udp 192.0.2.10:1 > 10.0.0.9:53"],
}  # fmt: skip
DENIED["nft"] = DENIED["iptables"]
# Values that name or select: another one is another policy, not a broken one.
NAMES = {"display_name", "name", "value", "tag", "labels", "matchLabels", "key", "values", "id", "metadata", "scope",
         "external_id", "owner_vm_id", "lport_attachment_id"}  # fmt: skip


def imported(form: str, text: str, strict: bool) -> ImportResult:
    options = ImportOptions(strict=strict)
    return IMPORTERS[form].load([SourceFile("policy", text)], options)


def findings(result: ImportResult) -> set[tuple[str, str]]:
    return {(d.code, d.message) for d in result.diagnostics}


def check(form: str, what: str, text: str, known: set[tuple[str, str]]) -> None:
    for strict in (True, False):
        try:
            result = imported(form, text, strict)
        except PolicyError as error:
            if not re.match(r"policy(:\d+){0,2}: ", str(error)):
                pytest.fail(f"{what}: no place in {error}")
            continue
        except MeshsieveError as error:
            pytest.fail(f"{what}: {type(error).__name__} instead of a PolicyError: {error}")
        engine = Engine(result.layers, diagnostics=result.diagnostics)
        for packet in DENIED[form]:
            action = engine.explain(packet).action
            told = findings(result) - known
            assert action not in PASSES or told, f"{what}, strict={strict}: {packet} is {action} now\n{text}"


# Documents of objects and lists


def paths(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def at(value: Json, path: tuple[Any, ...]) -> Json:
    for key in path:
        value = value[key]
    return value


def replaced(document: Json, path: tuple[Any, ...], new: Json) -> str:
    out = copy.deepcopy(document)
    at(out, path[:-1])[path[-1]] = new
    return json.dumps(out)


def broken_documents(document: Json) -> Iterator[tuple[str, str]]:
    for path in paths(document):
        here = at(document, path)
        if isinstance(here, dict):
            text = json.dumps(document)
            if path:
                text = replaced(document, path, {**here, "zzz": 1})
            yield f"an unknown field in {path}", text
            for key in here if path[-1:] not in [(name,) for name in ("labels", "matchLabels")] else ():
                misspelt = {("x" + k if k == key else k): v for k, v in here.items()}
                yield f"{(*path, key)} misspelt", replaced(document, path, misspelt) if path else json.dumps(misspelt)
                twice = json.dumps({**here, "TWICE": here[key]}).replace('"TWICE"', json.dumps(key))
                yield f"{(*path, key)} twice", json.dumps(document).replace(json.dumps(here), twice, 1)
        elif path and not set(path) & NAMES:
            for new in ("@nonsense", "", -1, 10**30, True, None, [], {}, [[]]):
                if new != here and not _is_absent(here, new):
                    yield f"{path} = {new!r}", replaced(document, path, new)


def _is_absent(here: Json, new: Json) -> bool:
    """An empty or null list or text is one that is not given, which is another policy; so is the default of an enum."""
    return new is None or (new == "" and isinstance(here, str)) or (new == [] and isinstance(here, list))


# Lines of words


def broken_lines(text: str) -> Iterator[tuple[str, str]]:
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        words = re.findall(r"\s+|\S+", line)
        for i, word in enumerate(words):
            if word.isspace() or word == "!" or (word.startswith("[") and word.endswith("]")):
                continue
            for what, new in (
                ("replaced", "@nonsense"),
                ("missing", ""),
                ("twice", f"{word} {word}"),
                ("cut", word[:-1]),
            ):
                changed = "".join([*lines[:number], *words[:i], new, *words[i + 1 :], *lines[number + 1 :]])
                yield f"line {number + 1}: '{word}' {what}", changed


BASES = {"nsx": json.dumps(NSX), "kubernetes": json.dumps(KUBERNETES), "iptables": IPTABLES, "nft": NFT}


@pytest.mark.parametrize("form", BASES)
def test_the_policies_deny_what_is_said(form: str) -> None:
    engine = Engine(imported(form, BASES[form], True).layers)
    for packet in DENIED[form]:
        assert engine.explain(packet).action in ("DROP", "REJECT"), packet


@pytest.mark.parametrize("form", ["nsx", "kubernetes"])
def test_a_broken_document_never_widens(form: str) -> None:
    known = findings(imported(form, BASES[form], True))
    for what, text in broken_documents(json.loads(BASES[form])):
        check(form, what, text, known)


@pytest.mark.parametrize("form", ["iptables", "nft"])
def test_a_broken_line_never_widens(form: str) -> None:
    known = findings(imported(form, BASES[form], True))
    for what, text in broken_lines(BASES[form]):
        check(form, what, text, known)


ENCODINGS = [
    ("UTF-16", lambda text: text.encode("utf-16")),
    ("Latin-1", lambda text: text.replace("own", "öwn").replace("web", "wéb").encode("latin-1")),
    ("a byte that is no text", lambda text: text.encode()[:40] + b"\xff" + text.encode()[40:]),
    ("NUL", lambda text: text.encode()[:40] + b"\0" + text.encode()[40:]),
    ("half a file", lambda text: text.encode()[: len(text) // 2]),
]


@pytest.mark.parametrize("form", BASES)
@pytest.mark.parametrize(("what", "encoded"), ENCODINGS, ids=[e[0] for e in ENCODINGS])
def test_another_encoding_is_an_error(form: str, what: str, encoded: Any, tmp_path: Path) -> None:
    path = tmp_path / {"nsx": "p.json", "kubernetes": "p.json", "iptables": "p.rules", "nft": "p.nft"}[form]
    path.write_bytes(encoded(BASES[form]))
    for strict in (True, False):
        with pytest.raises(PolicyError, match=re.escape(path.name)):
            load([path], strict=strict)
