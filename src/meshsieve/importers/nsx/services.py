"""Services: from service entries to the alternatives of a rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from importlib import resources

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object, read_json
from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.fields import LENIENT_HINT, Fields
from meshsieve.importers.nsx.objects import Service, read_service
from meshsieve.model import Match, ValueSet
from meshsieve.policy import Diagnostic

TCP, UDP = ValueSet.numbers(6), ValueSet.numbers(17)
_ICMP = {"ICMPv4": ValueSet.numbers(1), "ICMPv6": ValueSet.numbers(58)}

# Transport of the control channel, by the names of the gateways.
_ALG = {
    **dict.fromkeys(("FTP", "ORACLE_TNS", "SUN_RPC_TCP", "MS_RPC_TCP"), TCP),
    **dict.fromkeys(("TFTP", "SUN_RPC_UDP", "MS_RPC_UDP", "NBNS_BROADCAST", "NBDG_BROADCAST"), UDP),
}
# Data channels that recognition follows; their flows come as RELATED (decision.py).
_TRACKED = ("FTP", "TFTP")
_RELATED = ValueSet.numbers(3)
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


class Services:
    """Compiles services on demand; each once. The predefined services of NSX need not be in the load."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.diagnostics: list[Diagnostic] = []
        self._compiled: dict[str, tuple[Match, ...] | PolicyError] = {}
        self._entered: list[str] = []

    def alternatives(self, path: str, where: Callable[[], str], user: str) -> tuple[Match, ...]:
        """The entries of a service. where: of the reference; user: the object that refers.

        raises  PolicyError
        """
        if path not in self._compiled:
            service = self.catalogue.services.get(path) or predefined_services().get(path)
            if service is None:
                raise PolicyError(
                    f"service '{path}' is in no file and is none of the predefined ones",
                    where=where(),
                    obj=user,
                    hint="add the answer of /policy/api/v1/infra/services, or import with --lenient",
                )
            try:
                self._compiled[path] = self._compile(service)
            except PolicyError as error:
                self._compiled[path] = error
        found = self._compiled[path]
        if isinstance(found, PolicyError):
            raise found
        return found

    def _compile(self, service: Service) -> tuple[Match, ...]:
        if service.problems:
            raise service.problems[0]
        if service.path in self._entered:
            chain = " -> ".join([*self._entered[self._entered.index(service.path) :], service.path])
            raise PolicyError(
                f"services contain each other: {chain}",
                where=service.obj.where(),
                obj=service.label,
                hint="remove one of the references",
            )
        self._entered.append(service.path)
        try:
            return tuple(a for entry in service.entries for a in self.entry(entry, service.label))
        finally:
            self._entered.pop()

    def entry(self, obj: Object, label: str) -> tuple[Match, ...]:
        """The alternatives of one service entry.

        raises  PolicyError
        """
        kind = obj.get("resource_type")
        if not isinstance(kind, str) or kind not in _ENTRIES:
            raise PolicyError(
                f"a service entry of type {kind!r} is not known; known are {', '.join(_ENTRIES)}",
                where=obj.where("resource_type"),
                obj=label,
                hint=LENIENT_HINT,
            )
        f = Fields(obj, kind, label)
        f.ignore("resource_type")
        matches = _ENTRIES[kind](self, f)
        f.finish()
        return matches

    def _l4_ports(self, f: Fields) -> tuple[Match, ...]:
        protocol = f.choice("l4_protocol", ("TCP", "UDP"))
        if protocol is None:
            f.fail("L4PortSetServiceEntry.l4_protocol is missing")
        return ({"proto": TCP if protocol == "TCP" else UDP, **_ports_of(f)},)

    def _icmp(self, f: Fields) -> tuple[Match, ...]:
        """Without a protocol the entry stands for both."""
        protocol = f.choice("protocol", tuple(_ICMP))
        match: dict[str, ValueSet] = {}
        for name in ("icmp_type", "icmp_code"):
            value = f.number(name, 0, 255)
            if value is not None:
                match[name] = ValueSet.numbers(value)
        if protocol is not None:
            return ({"proto": _ICMP[protocol], **match},)
        return tuple({"proto": proto, **match} for proto in _ICMP.values())

    def _igmp(self, f: Fields) -> tuple[Match, ...]:
        return ({"proto": ValueSet.numbers(2)},)

    def _ip_protocol(self, f: Fields) -> tuple[Match, ...]:
        number = f.number("protocol_number", 0, 255)
        if number is None:
            f.fail("IPProtocolServiceEntry.protocol_number is missing")
        return ({"proto": ValueSet.numbers(number or 0)},)

    def _ether_type(self, f: Fields) -> tuple[Match, ...]:
        number = f.number("ether_type", 0, 0xFFFF)
        if number is None:
            f.fail("EtherTypeServiceEntry.ether_type is missing")
        return ({"eth_type": ValueSet.numbers(number or 0)},)

    def _alg(self, f: Fields) -> tuple[Match, ...]:
        alg = f.choice("alg", tuple(_ALG))
        if alg is None:
            f.fail("ALGTypeServiceEntry.alg is missing")
        control: Match = {"proto": _ALG[alg or "FTP"], **_ports_of(f)}
        if alg in _TRACKED:
            return control, {"proto": _ALG[alg], "ct_state": _RELATED}
        self.diagnostics.append(
            Diagnostic(
                "alg-data-channel-not-tracked",
                f"{alg}: the control channel is matched; data channels that it opens are judged by themselves",
                where=f.obj.where(),
                obj=f.label,
                level="note",
            )
        )
        return (control,)

    def _nested(self, f: Fields) -> tuple[Match, ...]:
        path = f.text("nested_service_path")
        return self.alternatives(path, lambda: f.obj.where("nested_service_path"), f.label)


_ENTRIES: dict[str, Callable[[Services, Fields], tuple[Match, ...]]] = {
    "L4PortSetServiceEntry": Services._l4_ports,
    "ICMPTypeServiceEntry": Services._icmp,
    "IGMPTypeServiceEntry": Services._igmp,
    "IPProtocolServiceEntry": Services._ip_protocol,
    "EtherTypeServiceEntry": Services._ether_type,
    "ALGTypeServiceEntry": Services._alg,
    "NestedServiceServiceEntry": Services._nested,
}


def _ports_of(f: Fields) -> dict[str, ValueSet]:
    """sport and dport; an empty list is any port (spec of L4PortSetServiceEntry)."""
    ports = {"sport": _port_set(f, "source_ports"), "dport": _port_set(f, "destination_ports")}
    return {name: values for name, values in ports.items() if values}


def _port_set(f: Fields, key: str) -> ValueSet:
    ranges = []
    for index, text in enumerate(f.texts(key)):
        found = _PORTS.fullmatch(text)
        if found is None:
            f.fail(f"'{text}' is not a port or a range of ports such as 8000-8080", key, index)
            continue
        low, high = int(found[1]), int(found[2] or found[1])
        if low > high or high > 65535:
            f.fail(f"'{text}' is not a range of ports: it must rise and end at 65535 at most", key, index)
        ranges.append((low, high))
    return ValueSet.numbers(*ranges)


def merged(alternatives: Iterable[Match]) -> tuple[Match, ...]:
    """The same disjunction with fewer members: those that differ in their destination ports only become one."""
    ports: dict[tuple[tuple[str, ValueSet], ...], list[ValueSet | None]] = {}
    for match in alternatives:
        rest = tuple(sorted((name, values) for name, values in match.items() if name != "dport"))
        ports.setdefault(rest, []).append(match.get("dport"))
    out: list[Match] = []
    for rest, sets in ports.items():
        given = [s for s in sets if s is not None]
        out.append(dict(rest) if len(given) < len(sets) else {**dict(rest), "dport": ValueSet().union(*given)})
    return tuple(out)


@cache
def predefined_services() -> dict[str, Service]:
    """The services that every NSX Manager ships, by path (predefined_services.json; source in README.md beside it)."""
    name = "predefined_services.json"
    text = resources.files("meshsieve.importers.nsx").joinpath(name).read_text("utf-8")
    found = (read_service(obj, obj["path"], obj["path"], lenient=False) for obj in read_json(text, name))
    return {service.path: service for service in found}
