"""A walk told in the words of NSX Traceflow: observations, one after another, as its API lists them.

What     ``TraceflowObservation...`` of the kinds Received, ReceivedLogical, ForwardedLogical, DroppedLogical and
         Delivered, with component, rule, reason and translated addresses, so that a trace of the live system and an
         answer from files can be put side by side. The list ends where the walk ends: at the first denial, else where
         something cannot be decided.
Words    Components that NSX knows have its names: SPOOFGUARD, DFW, SERVICE_INSERTION, EDGE_FW, NAT; LS is the port of a
         machine that the inventory knows, PHYSICAL an end that it does not know. What NSX does not have gets a word of
         our own: NETWORK_POLICY and K8S_SERVICE (Kubernetes), HOST_FW (iptables, nft, plain rules), and PROXY with the
         sub types ROUTE, AUTHORIZATION and ENDPOINT.
Limits   Hops between hosts are not known offline: ``sequence_no`` is 0 at the source and 999 (NSX: could not be
         determined) behind it. Fields beside NSX's are ``rule``, ``source``, ``verdict`` and ``why``; a point that is
         undecided has received the packet and neither forwarded nor dropped it.
Source   NSX-T Data Center REST API 3.2: TraceflowObservation and its child types, TraceflowComponentType,
         FieldsPacketData.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from meshsieve.policy import owner_name

Observation = dict[str, Any]

ALLOW, DROP, REJECT, UNDECIDED = "ALLOW", "DROP", "REJECT", "UNDECIDED"
PREFIX = "TraceflowObservation"
RECEIVED, DELIVERED = f"{PREFIX}Received", f"{PREFIX}Delivered"
RECEIVED_LOGICAL, FORWARDED_LOGICAL = f"{PREFIX}ReceivedLogical", f"{PREFIX}ForwardedLogical"
DROPPED_LOGICAL = f"{PREFIX}DroppedLogical"
UNKNOWN_HOP = 999

# Title of a point or layer -> component type and sub type; the first that fits.
_COMPONENTS = tuple(
    (re.compile(pattern), component, sub_type)
    for pattern, component, sub_type in (
        (r"nsx-dfw spoofguard\Z", "SPOOFGUARD", ""),
        (r"nsx-dfw (out|in)\Z", "DFW", ""),
        (r"nsx-dfw (.* )?redirection\Z", "SERVICE_INSERTION", "SI_CLASSIFIER"),
        (r"nsx-dfw .*\b(up|down) firewall\Z", "EDGE_FW", "LR_TIER1"),
        (r"nsx-dfw .* firewall\Z", "EDGE_FW", "LR_TIER0"),
        (r"nsx-dfw .*\b(up|down) [ds]nat( outside)?\Z", "NAT", "LR_TIER1"),
        (r"nsx-dfw .* [ds]nat( outside)?\Z", "NAT", "LR_TIER0"),
        (r"kubernetes services\Z", "K8S_SERVICE", ""),
        (r"kubernetes ", "NETWORK_POLICY", ""),
        (r"route\Z", "PROXY", "ROUTE"),
        (r"authorization\Z", "PROXY", "AUTHORIZATION"),
        (r"endpoint\Z", "PROXY", "ENDPOINT"),
    )
)
_REASONS = {"SPOOFGUARD": "SPOOFGUARD", "NAT": "NAT"}  # of a drop; every other component's is FW_RULE
_RULE_ID = re.compile(r"^(.*) rule_id=(\d{1,18})\Z", re.DOTALL)
_PATH = re.compile(r"(/(?:infra|global-infra|orgs)/.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Step:
    """One point or layer of a walk. verdict None: it was not asked; ends: source and destination as they came to it."""

    title: str
    verdict: str | None
    why: str
    rule: str | None = None
    source: str | None = None
    translates: bool = False
    ends: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class End:
    """One end of the walk: its address, and the machine or workload that has it."""

    address: str | None
    name: str | None


def end_of(layers: Sequence[Any], version: int, address: int, text: str) -> End:
    return End(text, owner_name(layers, version, address))


def component(title: str) -> tuple[str, str]:
    """(component_type, component_sub_type) of a point or layer, by its title."""
    for pattern, name, sub_type in _COMPONENTS:
        if pattern.match(title):
            return name, sub_type
    return "HOST_FW", ""


def observations(steps: Sequence[Step], source: End, destination: End) -> list[Observation]:
    """The whole trace, to the step that decides: the first that denies, else the first that is undecided. Delivered
    stands at its end only if everything that was asked lets the packet pass."""
    out = [_at_end(RECEIVED, source, 0)]
    asked = [step for step in steps if step.verdict is not None]
    verdicts = [step.verdict for step in asked]
    denied = next((i for i, verdict in enumerate(verdicts) if verdict in (DROP, REJECT)), None)
    last = denied if denied is not None else verdicts.index(UNDECIDED) if UNDECIDED in verdicts else None
    for number, step in enumerate(asked if last is None else asked[: last + 1]):
        following = asked[number + 1].ends if number + 1 < len(asked) else step.ends
        out += _of_step(step, following)
    if last is None and any(not step.translates for step in asked):
        out.append(_at_end(DELIVERED, destination, UNKNOWN_HOP))
    return out


def _at_end(kind: str, end: End, hop: int) -> Observation:
    found: Observation = {
        "resource_type": kind,
        "component_type": "LS" if end.name is not None else "PHYSICAL",
        "component_name": end.name or end.address or "unknown",
        "sequence_no": hop,
    }
    return found | ({"lport_name": end.name} if end.name is not None else {})


def _of_step(step: Step, following: tuple[str, str]) -> Iterator[Observation]:
    name, sub_type = component(step.title)
    about: Observation = {"component_type": name, "component_name": step.title}
    if sub_type:
        about["component_sub_type"] = sub_type
    about["sequence_no"] = UNKNOWN_HOP
    told = {k: v for k, v in (("rule", step.rule), ("source", step.source)) if v is not None}
    rule = {**_rule_names(step, name), **told, "verdict": step.verdict, "why": step.why}
    if step.verdict == UNDECIDED:
        yield {"resource_type": RECEIVED_LOGICAL, **about, **rule}
        return
    yield {"resource_type": RECEIVED_LOGICAL, **about}
    if step.verdict in (DROP, REJECT):
        yield {"resource_type": DROPPED_LOGICAL, **about, "reason": _REASONS.get(name, "FW_RULE"), **rule}
        return
    translated = {
        f"translated_{side}_ip": after
        for side, before, after in zip(("src", "dst"), step.ends, following, strict=True)
        if step.translates and before != after
    }
    yield {"resource_type": FORWARDED_LOGICAL, **about, **translated, **rule}


def _rule_names(step: Step, name: str) -> Observation:
    """NSX's id and path of a rule, as far as its source tells them."""
    if step.rule is None or step.source is None:
        return {}
    kind = "nat_rule" if name == "NAT" else "acl_rule"
    text = step.source
    out: Observation = {}
    if (found := _RULE_ID.match(text)) is not None:
        text = found[1]
        out[f"{kind}_id"] = int(found[2])
    if (path := _PATH.search(text)) is not None:
        out[f"{kind}_path"] = path[1]
    return out


def result_document(found: list[Observation], packet: Observation) -> dict[str, Any]:
    """The document of NSX's calls: the packet that was sent, and the list of observations."""
    return {
        "operation_state": "FINISHED",
        "packet": packet,
        "result_count": len(found),
        "results": found,
    }


def packet_data(values: dict[str, int], ends: tuple[str, str]) -> Observation:
    """A packet as NSX's FieldsPacketData. values: header fields as numbers; ends: addresses as text."""
    version = 6 if values.get("ip_ver") == 6 else 4
    header = {"src_ip": ends[0], "dst_ip": ends[1]}
    out: Observation = {"resource_type": "FieldsPacketData", "transport_type": "UNICAST"}
    if version == 4:
        out["ip_header"] = header | ({"protocol": values["proto"]} if "proto" in values else {})
    else:
        out["ipv6_header"] = header | ({"next_header": values["proto"]} if "proto" in values else {})
    ports = {name: values[field] for name, field in (("src_port", "sport"), ("dst_port", "dport")) if field in values}
    if values.get("proto") == 6:
        flags = {"tcp_flags": values["tcp_flags"]} if "tcp_flags" in values else {}
        out["transport_header"] = {"tcp_header": ports | flags}
    elif values.get("proto") == 17:
        out["transport_header"] = {"udp_header": ports}
    elif values.get("proto") in (1, 58):
        out["transport_header"] = {"icmp_echo_request_header": {}}
    return out
