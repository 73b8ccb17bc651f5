"""The objects of an NSX configuration that bear on the distributed firewall, read from their JSON and typed.

Policy kinds (policies, rules, groups, services, the exclusion list) refuse every field that is not known here.
Inventory kinds (machines, interfaces, segments, ports) are read for the fields below; the many others that the fabric
reports say nothing about policy. Source: spec of the NSX Policy API, sections named in docs/importers/nsx.md.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.fields import Fields

CATEGORIES = ("Ethernet", "Emergency", "Infrastructure", "Environment", "Application", "")
GATEWAY_CATEGORIES = (
    "Emergency", "SystemRules", "SharedPreRules", "LocalGatewayRules", "AutoServiceRules", "Default", "",
)  # fmt: skip
MAX_SEQUENCE_NUMBER = 2**31 - 1  # policies end at 999,999; rules are 32-bit

Tag = tuple[str, str]  # scope, tag


@dataclass(frozen=True, slots=True)
class PolicyKind:
    """categories in the order of evaluation; actions of its rules; the collection's name in paths"""

    categories: tuple[str, ...]
    actions: tuple[str, ...]
    collection: str


POLICY_KINDS = {
    "SecurityPolicy": PolicyKind(CATEGORIES, ("ALLOW", "DROP", "REJECT", "JUMP_TO_APPLICATION"), "security-policies"),
    "GatewayPolicy": PolicyKind(GATEWAY_CATEGORIES, ("ALLOW", "DROP", "REJECT"), "gateway-policies"),
    "RedirectionPolicy": PolicyKind(("",), ("REDIRECT", "DO_NOT_REDIRECT"), "redirection-policies"),
}


@dataclass(frozen=True, slots=True)
class Rule:
    """problems: what could not be read (lenient import only); such a rule decides nothing."""

    obj: Object
    label: str
    name: str
    rule_id: str
    sequence_number: int | None
    action: str | None
    direction: str
    sources: list[str]
    destinations: list[str]
    sources_excluded: bool
    destinations_excluded: bool
    services: list[str]
    service_entries: list[Object]
    profiles: list[str]
    scope: list[str]
    ip_protocol: str | None
    takes_part: bool
    logged: bool
    is_default: bool
    problems: list[PolicyError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Policy:
    obj: Object
    label: str
    category: str
    sequence_number: int | None
    stateful: bool
    tcp_strict: bool
    scope: list[str]
    scheduler_path: str
    connectivity: str
    default_rule_id: str
    takes_part: bool
    rules: list[Rule]
    kind: str = "SecurityPolicy"
    redirect_to: list[str] = field(default_factory=list)
    north_south: bool = False
    problems: list[PolicyError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Realized:
    """The members that NSX Manager itself listed; None where the dump does not say."""

    machines: list[str] | None
    interfaces: list[str] | None
    segments: list[str] | None
    ports: list[str] | None
    addresses: list[str] | None
    groups: list[str] | None

    def __bool__(self) -> bool:
        return any(
            v is not None
            for v in (self.machines, self.interfaces, self.segments, self.ports, self.addresses, self.groups)
        )


@dataclass(frozen=True, slots=True)
class Group:
    obj: Object
    label: str
    path: str
    expression: list[Object]
    identities: list[Object]
    address_only: bool
    realized: Realized
    problems: list[PolicyError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Service:
    obj: Object
    label: str
    path: str
    entries: list[Object]
    problems: list[PolicyError] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Machine:
    obj: Object
    id: str
    name: str
    tags: list[Tag]
    computer_name: str
    os_name: str


@dataclass(frozen=True, slots=True)
class Interface:
    """A vNIC. addresses: (version, integer) pairs."""

    obj: Object
    id: str
    machine: str
    attachment: str
    mac: str
    addresses: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Segment:
    obj: Object
    path: str
    name: str
    tags: list[Tag]


@dataclass(frozen=True, slots=True)
class Port:
    obj: Object
    path: str
    name: str
    tags: list[Tag]
    attachment: str
    segment: str


def label_of(obj: Object, parent: str, collection: str) -> str:
    """The object's path; made from the parent's where the object does not say. Sparse dumps may have names only."""
    path = obj.get("path")
    if type(path) is str and path:
        return path
    for key in ("id", "display_name"):
        own = obj.get(key)
        if type(own) is str and own:
            break
    else:
        own = str(obj.get("rule_id", "?"))
    return f"{parent}/{collection}/{own}" if parent else f"{collection}/{own}"


def read_policy(
    obj: Object, label: str, rules: list[Rule], lenient: bool, deleted: bool = False, kind: str = "SecurityPolicy"
) -> Policy:
    problems: list[PolicyError] = []
    f = Fields(obj, kind, label, problems if lenient else None)
    placing = Fields(obj, kind, label)  # where a policy stands is never guessed
    if kind == "RedirectionPolicy":
        category = ""
    else:
        category = placing.choice("category", POLICY_KINDS[kind].categories, "") or ""
    stateful = f.flag("stateful", True) and category != "Ethernet"
    tcp_strict = f.flag("tcp_strict", stateful) and stateful
    preference = f.choice(
        "connectivity_preference",
        ("NONE", "ALLOWLIST", "DENYLIST", "ALLOWLIST_ENABLE_LOGGING", "DENYLIST_ENABLE_LOGGING"),
    )
    strategy = f.choice(
        "connectivity_strategy",
        ("NONE", "WHITELIST", "BLACKLIST", "WHITELIST_ENABLE_LOGGING", "BLACKLIST_ENABLE_LOGGING"),
        "NONE",
    )
    # WHITELIST and BLACKLIST are the old names.
    old_name = (strategy or "NONE").replace("WHITELIST", "ALLOWLIST").replace("BLACKLIST", "DENYLIST")
    policy = Policy(
        obj=obj,
        label=label,
        category=category,
        sequence_number=placing.number("sequence_number", 0, MAX_SEQUENCE_NUMBER),
        stateful=stateful,
        tcp_strict=tcp_strict,
        scope=f.texts("scope"),
        scheduler_path=f.text("scheduler_path"),
        connectivity=preference if preference not in (None, "NONE") else old_name,
        default_rule_id=str(f.number("default_rule_id", 0, 2**63) or ""),
        takes_part=not (deleted or f.flag("marked_for_delete")),
        rules=rules,
        kind=kind,
        redirect_to=f.texts("redirect_to") if kind == "RedirectionPolicy" else [],
        north_south=f.flag("north_south") if kind == "RedirectionPolicy" else False,
        problems=problems,
    )
    # Neither the numbers that NSX gives itself nor the deprecated logging switch bear on the verdict.
    f.ignore("category", "sequence_number", "internal_sequence_number", "rules", "rule_count", "logging_enabled")
    f.finish()
    return policy


def read_rule(obj: Object, label: str, lenient: bool, deleted: bool = False, kind: str = "SecurityPolicy") -> Rule:
    problems: list[PolicyError] = []
    f = Fields(obj, "Rule", label, problems if lenient else None)
    actions = POLICY_KINDS[kind].actions
    rule_id = obj.get("rule_id")
    rule = Rule(
        obj=obj,
        label=label,
        name=f.text("display_name") or f.text("id") or str(rule_id if rule_id is not None else label),
        rule_id="" if rule_id is None else str(rule_id),
        # The place of a rule is never guessed, so this error is raised in lenient imports too.
        sequence_number=Fields(obj, "Rule", label).number("sequence_number", 0, MAX_SEQUENCE_NUMBER),
        action=f.choice("action", actions, actions[0]),
        direction=f.choice("direction", ("IN", "OUT", "IN_OUT"), "IN_OUT") or "IN_OUT",
        sources=f.texts("source_groups"),
        destinations=f.texts("destination_groups"),
        sources_excluded=f.flag("sources_excluded"),
        destinations_excluded=f.flag("destinations_excluded"),
        services=f.texts("services"),
        service_entries=f.objects("service_entries"),
        profiles=f.texts("profiles"),
        scope=f.texts("scope"),
        ip_protocol=f.choice("ip_protocol", ("IPV4", "IPV6", "IPV4_IPV6")),
        takes_part=not (deleted or f.flag("marked_for_delete") or f.flag("disabled")),
        logged=f.flag("logged"),
        is_default=f.flag("is_default"),
        problems=problems,
    )
    # rule_id names the rule and orders nothing; tag is a log label; firewall_rule is the manager's own copy.
    f.ignore("sequence_number", "rule_id", "tag", "firewall_rule")
    f.finish()
    return rule


def read_group(obj: Object, label: str, path: str, lenient: bool) -> Group:
    problems: list[PolicyError] = []
    f = Fields(obj, "Group", label, problems if lenient else None)
    group = Group(
        obj=obj,
        label=label,
        path=path,
        expression=f.objects("expression"),
        identities=f.objects("extended_expression"),
        address_only=f.texts("group_type") == ["IPAddress"],
        realized=_read_realized(f),
        problems=problems,
    )
    f.ignore("group_state", "state", "reference")
    f.finish()
    return group


def _read_realized(f: Fields) -> Realized:
    def identifiers(key: str, *names: str) -> list[str] | None:
        """One of ``names`` of each member object."""
        if f.obj.get(key) is None:
            f.ignore(key)
            return None
        found = []
        for index, member in enumerate(f.objects(key)):
            value = next((member[n] for n in names if type(member.get(n)) is str), None)
            if value is None:
                f.fail(f"Group.{key} has a member without {' or '.join(names)}", key, index)
            else:
                found.append(value)
        return found

    addresses: list[str] | None = None
    for key in ("ips_members", "address_members", "ip_address_members"):
        if f.obj.get(key) is not None:
            addresses = (addresses or []) + f.texts(key)
        f.ignore(key)
    return Realized(
        machines=identifiers("vm_members", "id", "external_id"),
        interfaces=identifiers("vif_members", "id", "external_id", "lport_attachment_id"),
        segments=identifiers("segment_members", "path"),
        ports=identifiers("segment_port_members", "path"),
        addresses=addresses,
        groups=identifiers("ip_group_members", "path"),
    )


def read_service(obj: Object, label: str, path: str, lenient: bool) -> Service:
    problems: list[PolicyError] = []
    f = Fields(obj, "Service", label, problems if lenient else None)
    f.ignore("service_type")
    service = Service(obj, label, path, f.objects("service_entries"), problems)
    f.finish()
    return service


def read_machine(obj: Object) -> Machine:
    label = f"virtual machine {obj.get('display_name', '')}"
    f = Fields(obj, "VirtualMachine", label)
    identity = f.text("external_id") or f.text("id")
    name = f.text("display_name") or identity
    if not identity:
        f.fail("a virtual machine has no external_id", hint="export /api/v1/fabric/virtual-machines whole")
    return Machine(obj, identity, name, _tags(f), f.text("computer_name") or _guest(obj, "computer_name"), _os(f))


def _os(f: Fields) -> str:
    return f.text("os_name") or _guest(f.obj, "os_name")


def _guest(obj: Object, key: str) -> str:
    """The fabric reports computer and OS names inside ``guest_info``."""
    guest = obj.get("guest_info")
    value = guest.get(key) if isinstance(guest, Object) else None
    return value if type(value) is str else ""


def read_interface(obj: Object, number: int) -> Interface:
    f = Fields(obj, "VirtualNetworkInterface", f"interface {obj.get('external_id', number)}")
    machine = f.text("owner_vm_id")
    if not machine:
        f.fail("a virtual network interface has no owner_vm_id", hint="export /api/v1/fabric/vifs whole")
    attachment = f.text("lport_attachment_id")
    addresses: list[tuple[int, int]] = []
    for info in f.objects("ip_address_info"):
        entry = Fields(info, "ip_address_info", f.label)
        for index, text in enumerate(entry.texts("ip_addresses")):
            try:
                # Some sources write the prefix length behind the address.
                address = ipaddress.ip_interface(text).ip
            except ValueError as error:
                entry.fail(f"'{text}' is not an address: {error}", "ip_addresses", index, hint="correct the address")
                continue
            addresses.append((address.version, int(address)))
    return Interface(
        obj, f.text("external_id") or attachment or f"{machine}/{number}", machine, attachment, mac_text(f), addresses
    )


def mac_text(f: Fields) -> str:
    """mac_address, lower case with colons; "" where there is none."""
    return f.text("mac_address").lower().replace("-", ":")


def read_segment(obj: Object, path: str) -> Segment:
    f = Fields(obj, "Segment", path)
    return Segment(obj, path, f.text("display_name") or f.text("id") or path, _tags(f))


def read_port(obj: Object, path: str, segment: str) -> Port:
    f = Fields(obj, "SegmentPort", path)
    attachment = obj.get("attachment")
    attached = attachment.get("id") if isinstance(attachment, Object) else None
    return Port(
        obj,
        path,
        f.text("display_name") or f.text("id") or path,
        _tags(f),
        attached if type(attached) is str else "",
        f.text("parent_path") or segment,
    )


def _tags(f: Fields) -> list[Tag]:
    tags = []
    for tag in f.objects("tags"):
        t = Fields(tag, "tag", f.label)
        tags.append((t.text("scope"), t.text("tag")))
    return tags
