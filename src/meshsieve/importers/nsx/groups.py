"""Groups: from expressions or realized members to the vNICs and addresses that they stand for.

What    A group's value is a set of vNICs and a set of addresses that no vNIC need own. Conditions select machines,
        segments or ports, all of which come down to vNICs. OR is union, AND intersection, of both sets by themselves.
        AND binds tighter than OR.
Realized members, where the dump has them, count instead of the recomputed ones, kind by kind (machines, addresses);
differences are reported as ``group-drift``. A group that cannot be evaluated raises PolicyError each time it is asked
for, so that the rules that use it, and no others, are undecided in a lenient import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.addresses import address_set, parse_range
from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.conditions import KEYS, OPERATORS, Population, populations
from meshsieve.importers.nsx.fields import LENIENT_HINT, Fields
from meshsieve.importers.nsx.objects import Group
from meshsieve.inventory import Inventory, Vnic
from meshsieve.model import ValueSet
from meshsieve.policy import Diagnostic

_EMPTY = ValueSet()
_NO_INVENTORY_HINT = (
    "add the answers of /api/v1/fabric/virtual-machines and /api/v1/fabric/vifs, or import with --lenient"
)


@dataclass(frozen=True, slots=True)
class Members:
    """vnics: numbers of the inventory's vNICs. addresses, macs: those of IP and MAC expressions, without the vNICs'."""

    vnics: frozenset[int] = frozenset()
    addresses: ValueSet = _EMPTY
    macs: frozenset[str] = frozenset()

    def __or__(self, other: Members) -> Members:
        return Members(self.vnics | other.vnics, self.addresses.union(other.addresses), self.macs | other.macs)

    def __and__(self, other: Members) -> Members:
        return Members(self.vnics & other.vnics, self.addresses.intersection(other.addresses), self.macs & other.macs)


_NOBODY = Members()


class Machines:
    """The inventory's vNICs, and which machine, attachment and segment each belongs to."""

    def __init__(self, catalogue: Catalogue) -> None:
        vnics: list[Vnic] = []
        self.of_machine: dict[str, set[int]] = {identity: set() for identity in catalogue.machines}
        self.of_interface: dict[str, set[int]] = {}
        self.of_attachment: dict[str, set[int]] = {}
        segments = {port.attachment: port.segment for port in catalogue.ports.values() if port.attachment}
        for interface in catalogue.interfaces:
            number = len(vnics)
            machine = catalogue.machines.get(interface.machine)
            name = machine.name if machine else interface.machine
            network = segments.get(interface.attachment, "")
            vnics.append(Vnic(interface.id, name, tuple(interface.addresses), interface.mac, network))
            self.of_machine.setdefault(interface.machine, set()).add(number)
            for key, index in ((interface.id, self.of_interface), (interface.attachment, self.of_attachment)):
                if key:
                    index.setdefault(key, set()).add(number)
        for identity, machine in catalogue.machines.items():
            if not self.of_machine[identity]:  # a machine that reports no interface still has one
                self.of_machine[identity].add(len(vnics))
                vnics.append(Vnic(f"{identity}/vnic", machine.name))
        self.inventory = Inventory(vnics)
        self.of_segment: dict[str, set[int]] = {path: set() for path in catalogue.segments}
        self.of_port: dict[str, set[int]] = {}
        for path, port in catalogue.ports.items():
            attached = self.of_attachment.get(port.attachment, set()) if port.attachment else set()
            self.of_port[path] = attached
            self.of_segment.setdefault(port.segment, set()).update(attached)

    def addresses(self, vnics: Iterable[int]) -> ValueSet:
        """Every address of the vNICs."""
        pairs = [address for number in vnics for address in self.inventory.vnics[number].addresses]
        return address_set((version, address, address) for version, address in pairs)


class Groups:
    """Evaluates groups on demand; each once.

    recompute  ignore realized members where there is an expression
    """

    def __init__(self, catalogue: Catalogue, recompute: bool = False) -> None:
        self.catalogue = catalogue
        self.recompute = recompute
        self.machines = Machines(catalogue)
        self.diagnostics: list[Diagnostic] = []
        self.has_inventory = catalogue.has_machines or bool(catalogue.interfaces)
        self._members: dict[str, Members | PolicyError] = {}
        self._addresses: dict[str, ValueSet] = {}
        self._entered: list[str] = []

    def __contains__(self, path: str) -> bool:
        return path in self.catalogue.groups

    def members(self, path: str) -> Members:
        """raises  PolicyError if the group cannot be evaluated"""
        if path not in self._members:
            try:
                self._members[path] = self._evaluate(self.catalogue.groups[path])
            except PolicyError as error:
                self._members[path] = error
        found = self._members[path]
        if isinstance(found, PolicyError):
            raise found
        return found

    def addresses(self, path: str) -> ValueSet:
        """Addresses that belong to the group: its vNICs' and those of its IP expressions.

        raises  PolicyError
        """
        if path not in self._addresses:
            members = self.members(path)
            self._addresses[path] = members.addresses.union(self.machines.addresses(members.vnics))
        return self._addresses[path]

    def vnics(self, path: str) -> frozenset[int]:
        """raises  PolicyError"""
        return self.members(path).vnics

    def macs(self, path: str) -> frozenset[str]:
        """MAC addresses of the group, by which Ethernet rules compare.

        raises  PolicyError
        """
        members = self.members(path)
        listed = {self.machines.inventory.vnics[number].mac for number in members.vnics}
        if "" in listed:
            group = self.catalogue.groups[path]
            raise PolicyError(
                "an Ethernet rule asks for the MAC addresses of members, and the inventory does not list them all",
                where=group.obj.where(),
                obj=group.label,
                hint="export /api/v1/fabric/vifs whole, or import with --lenient",
            )
        return members.macs | listed

    # Realized or recomputed

    def _evaluate(self, group: Group) -> Members:
        if group.problems:
            raise group.problems[0]
        if group.path in self._entered:
            chain = " -> ".join([*self._entered[self._entered.index(group.path) :], group.path])
            raise PolicyError(
                f"groups contain each other: {chain}",
                where=group.obj.where(),
                obj=group.label,
                hint="remove one of the references",
            )
        self._entered.append(group.path)
        try:
            members = self._identified(group) if group.identities else self._effective(group)
        finally:
            self._entered.pop()
        return Members(frozenset(), members.addresses) if group.address_only else members

    def _identified(self, group: Group) -> Members:
        """Addresses at which a user of one of the directory groups is logged in; ANDed with the expression."""
        sessions = self.catalogue.sessions
        if sessions is None:
            raise PolicyError(
                "an identity group: who is logged in is not known from packets",
                where=group.obj.where("extended_expression"),
                obj=group.label,
                hint='add {"resource_type": "IdentitySessions", "sessions": [...]}, or import with --lenient: rules '
                "that use it are then undecided",
            )
        addresses = _EMPTY
        for expression in group.identities:
            f = Fields(expression, "IdentityGroupExpression", group.label)
            for identity in f.objects("identity_groups"):
                for key in ("distinguished_name", "sid"):
                    addresses = addresses.union(sessions.get(str(identity.get(key, "")).lower(), _EMPTY))
            f.ignore("resource_type")
            f.finish()
        if group.expression or group.realized:
            members = self._effective(group)
            addresses = addresses.intersection(members.addresses.union(self.machines.addresses(members.vnics)))
        return Members(addresses=addresses)

    def _effective(self, group: Group) -> Members:
        if not group.expression:
            return self._realized(group, _NOBODY)
        if not group.realized:
            return self.expression(group)
        if self.recompute:
            computed = self.expression(group)
            self._report_drift(group, self._realized(group, computed), computed)
            return computed
        try:
            computed = self.expression(group)
        except PolicyError:
            return self._realized(group, None)  # what NSX Manager listed stands by itself
        members = self._realized(group, computed)
        self._report_drift(group, members, computed)
        return members

    def _realized(self, group: Group, computed: Members | None) -> Members:
        """What the dump lists; where it lists no machines or no addresses, what was computed of that kind."""
        listed = group.realized
        lists_machines = any(v is not None for v in (listed.machines, listed.interfaces, listed.segments, listed.ports))
        vnics: set[int] = set()
        for key, identities, known, what in (
            ("vm_members", listed.machines, self.machines.of_machine, "virtual machine"),
            ("vif_members", listed.interfaces, self._interfaces, "interface"),
            ("segment_members", listed.segments, self.machines.of_segment, "segment"),
            ("segment_port_members", listed.ports, self.machines.of_port, "segment port"),
        ):
            if key != "vm_members" and listed.machines is not None:
                break  # the list of machines is complete; the others say how they come to be members
            for index, identity in enumerate(identities or []):
                if identity not in known or not self.has_inventory:
                    raise self._absent(group.obj, group.label, key, index, what, identity)
                vnics |= known[identity]
        addresses = _EMPTY
        if listed.addresses is not None:
            addresses = self._parse_addresses(listed.addresses, group.obj, None, group.label)
        members = Members(frozenset(vnics), addresses)
        for path in listed.groups or []:
            if path != group.path:
                members |= self._reference(path, group.obj, "ip_group_members", None, group.label)
        if computed is None and not (lists_machines and listed.addresses is not None):
            computed = self._recompute_or_nothing(group, lists_machines)
        if computed is not None:
            if not lists_machines:
                members = Members(members.vnics | computed.vnics, members.addresses)
            if listed.addresses is None:
                members = Members(members.vnics, members.addresses.union(computed.addresses))
        return members

    def _recompute_or_nothing(self, group: Group, lists_machines: bool) -> Members:
        """An expression that cannot be evaluated, of which the dump lists one kind only. A list of all machines is the
        whole answer if nothing in the expression can stand for addresses; else the error is the answer."""
        if lists_machines and not any(_may_hold_addresses(e) for e in group.expression):
            return _NOBODY
        return self.expression(group)  # raises again

    @cached_property
    def _interfaces(self) -> dict[str, set[int]]:
        return {**self.machines.of_attachment, **self.machines.of_interface}

    def _report_drift(self, group: Group, members: Members, computed: Members) -> None:
        names = self.machines.inventory.vnics
        realized_machines = {names[v].machine for v in members.vnics}
        computed_machines = {names[v].machine for v in computed.vnics}
        differences = [
            f"{who} {', '.join(sorted(which))}"
            for who, which in (
                ("only NSX lists", realized_machines - computed_machines),
                ("only the expression selects", computed_machines - realized_machines),
            )
            if which and group.realized.machines is not None
        ]
        with_own = computed.addresses.union(self.machines.addresses(computed.vnics))
        if group.realized.addresses is not None and members.addresses not in (computed.addresses, with_own):
            differences.append(f"NSX lists addresses {members.addresses}, the expression gives {computed.addresses}")
        if differences:
            self.diagnostics.append(
                Diagnostic(
                    "group-drift",
                    "realized and recomputed members differ: " + "; ".join(differences),
                    where=group.obj.where(),
                    obj=group.label,
                    hint="export policy and inventory at the same time; the option recompute_groups takes the "
                    "expression instead",
                )
            )

    # Expressions

    def expression(self, group: Group) -> Members:
        """The members by the group's expression alone.

        raises  PolicyError
        """
        return self._joined(group.expression, group.obj, "expression", group)

    def _joined(self, parts: list[Object], holder: Object, key: str, group: Group) -> Members:
        """Members at even places, AND/OR between them. A condition that is "not evaluated" leaves the list."""
        if parts and len(parts) % 2 == 0:
            raise PolicyError(
                "an expression list alternates members and conjunctions, so its length is odd",
                where=holder.where(key),
                obj=group.label,
                hint=LENIENT_HINT,
            )
        operators = [self._conjunction(part, group) for part in parts[1::2]]
        if len(set(operators)) > 1:
            self.diagnostics.append(
                Diagnostic(
                    "mixed-conjunction",
                    "AND and OR are mixed in one list; AND binds tighter here",
                    where=holder.where(key),
                    obj=group.label,
                    hint="nest what belongs together",
                )
            )
        total, product = _NOBODY, None
        for operator, part in zip(["OR", *operators], parts[::2], strict=True):
            members = self._member(part, group)
            if operator == "OR":
                total |= product or _NOBODY
                product = members
            elif members is not None:
                product = members if product is None else product & members
        return total | (product or _NOBODY)

    def _conjunction(self, part: Object, group: Group) -> str:
        f = Fields(part, "ConjunctionOperator", group.label)
        if f.text("resource_type") != "ConjunctionOperator":
            f.fail("a conjunction (AND or OR) must stand here")
        operator = f.choice("conjunction_operator", ("AND", "OR"), "OR")
        f.finish()
        return operator or "OR"

    def _member(self, part: Object, group: Group) -> Members | None:
        kind = part.get("resource_type")
        if not isinstance(kind, str) or kind not in _EXPRESSIONS:
            raise PolicyError(
                f"an expression of type {kind!r} is not known; known are {', '.join(_EXPRESSIONS)}",
                where=part.where("resource_type"),
                obj=group.label,
                hint=LENIENT_HINT,
            )
        f = Fields(part, kind, group.label)
        members = _EXPRESSIONS[kind](self, f, group)
        f.finish()
        return members

    def _nested(self, f: Fields, group: Group) -> Members:
        return self._joined(f.objects("expressions"), f.obj, "expressions", group)

    def _ip_addresses(self, f: Fields, group: Group) -> Members:
        texts = f.texts("ip_addresses")
        addresses = self._parse_addresses(texts, f.obj, "ip_addresses", group.label)
        return Members(addresses=addresses)

    def _mac_addresses(self, f: Fields, group: Group) -> Members:
        """MAC members count in Ethernet rules; elsewhere they add nobody."""
        return Members(macs=frozenset(mac.lower().replace("-", ":") for mac in f.texts("mac_addresses")))

    def _external_ids(self, f: Fields, group: Group) -> Members:
        kinds = ("VirtualMachine", "VirtualNetworkInterface")
        kind = f.choice("member_type", kinds, "VirtualMachine")
        known, what = (
            (self.machines.of_machine, "virtual machine")
            if kind == "VirtualMachine"
            else (self._interfaces, "virtual network interface")
        )
        vnics: set[int] = set()
        for index, identity in enumerate(f.texts("external_ids")):
            if identity not in known:
                raise self._absent(f.obj, group.label, "external_ids", index, what, identity)
            vnics |= known[identity]
        return Members(frozenset(vnics))

    def _paths(self, f: Fields, group: Group) -> Members:
        members = _NOBODY
        for index, path in enumerate(f.texts("paths")):
            members |= self._reference(path, f.obj, "paths", index, group.label)
        return members

    def _reference(self, path: str, holder: Object, key: str, index: int | None, label: str) -> Members:
        """What a path stands for: a group, a segment, a port or a machine."""
        if path in self.catalogue.groups:
            return self.members(path)
        vnics = self.vnics_of(path)
        if vnics is None or not self.has_inventory:
            raise self._absent(holder, label, key, index, "object", path)
        return Members(frozenset(vnics))

    def vnics_of(self, path: str) -> set[int] | None:
        """vNICs of a segment, port or machine by its path; None if there is none."""
        for known in (self.machines.of_port, self.machines.of_segment):
            if path in known:
                return known[path]
        return self.machines.of_machine.get(path.rpartition("/")[2])

    def _condition(self, f: Fields, group: Group) -> Members | None:
        kind = f.text("member_type")
        key = f.text("key")
        operator = f.choice("operator", OPERATORS, "EQUALS") or "EQUALS"
        scope_operator = f.choice("scope_operator", ("EQUALS", "NOTEQUALS"), "EQUALS") or "EQUALS"
        value = f.text("value")
        if kind not in KEYS or key not in KEYS[kind]:
            f.fail(
                f"a condition on {key} of {kind} cannot be evaluated; known are "
                + "; ".join(f"{k}: {', '.join(keys)}" for k, keys in KEYS.items()),
                hint="export the realized members of the group, or import with --lenient",
            )
        if not (self.catalogue.has_machines if kind == "VirtualMachine" else self.has_inventory):
            raise PolicyError(
                f"the condition selects objects of kind {kind}, but no inventory was given",
                where=f.obj.where(),
                obj=group.label,
                hint=_NO_INVENTORY_HINT,
            )
        try:
            identities = self._populations[kind].select(key, operator, scope_operator, value)
        except ModelError as error:
            raise PolicyError(
                str(error), where=f.obj.where("value"), obj=group.label, hint="correct the regular expression"
            ) from None
        if identities is None:
            return None
        known = self._vnics_by_kind[kind]
        return Members(frozenset().union(*(known[identity] for identity in identities)))

    @cached_property
    def _populations(self) -> dict[str, Population]:
        return populations(self.catalogue)

    @cached_property
    def _vnics_by_kind(self) -> dict[str, dict[str, set[int]]]:
        machines, segments, ports = self.machines.of_machine, self.machines.of_segment, self.machines.of_port
        return dict(zip(KEYS, (machines, segments, segments, ports, ports), strict=True))

    def _parse_addresses(self, texts: list[str], holder: Object, key: str | None, label: str) -> ValueSet:
        ranges = []
        for index, text in enumerate(texts):
            try:
                ranges.append(parse_range(text))
            except ModelError as error:
                raise PolicyError(
                    str(error), where=holder.where(key, index), obj=label, hint="correct the address"
                ) from None
        return address_set(ranges)

    def _absent(self, holder: Object, label: str, key: str, index: int | None, what: str, identity: str) -> PolicyError:
        return PolicyError(
            f"{what} '{identity}' is in no file",
            where=holder.where(key, index),
            obj=label,
            hint=LENIENT_HINT if self.has_inventory else _NO_INVENTORY_HINT,
        )


_EXPRESSIONS: dict[str, Callable[[Groups, Fields, Group], Members | None]] = {
    "Condition": Groups._condition,
    "NestedExpression": Groups._nested,
    "IPAddressExpression": Groups._ip_addresses,
    "MACAddressExpression": Groups._mac_addresses,
    "ExternalIDExpression": Groups._external_ids,
    "PathExpression": Groups._paths,
}


def _may_hold_addresses(part: Object) -> bool:
    return part.get("resource_type") not in ("Condition", "ConjunctionOperator", "ExternalIDExpression")
