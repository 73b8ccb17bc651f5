"""From whatever an NSX user can export to one catalogue of typed objects.

What    Hierarchical bodies (``Infra`` with ``children``), inventory dumps (lists by name), API answers (``results``),
        bare lists and single objects, in any number of files, end in the same lists. Objects without ``resource_type``
        are told by the fields that only their kind has.
Limits  An object of a kind that is not listed in this file stops the import: it could be policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshsieve.errors import ModelError, PolicyError
from meshsieve.importers.json_source import Limits, Object, read_json
from meshsieve.importers.nsx import objects, terraform
from meshsieve.importers.nsx.addresses import address_set, parse_range
from meshsieve.importers.nsx.fields import LENIENT_HINT, Fields, words
from meshsieve.importers.nsx.profiles import AccessProfile, Profile, read_access_profile, read_profile
from meshsieve.model import ValueSet
from meshsieve.policy import Diagnostic, ImportOptions, SourceFile

# Kinds that decide about packets somewhere else than at the vNIC. They are named to the user, not evaluated.
ELSEWHERE = words("ForwardingPolicy IdsPolicy IdsSecurityPolicy IdsGatewayPolicy IdsRule TlsInspectionPolicy")
# Kinds that decide nothing about packets.
STRUCTURE = words(
    "LocaleServices PolicyNat BgpRoutingConfig "
    "BgpNeighborConfig PrefixList CommunityList Tier0RouteMap Site EnforcementPoint TransportZone EdgeCluster "
    "PolicyEdgeNode IpAddressPool IpAddressBlock IpAddressPoolBlockSubnet IpAddressPoolStaticSubnet "
    "DhcpServerConfig DhcpRelayConfig DhcpStaticBindingConfig PolicyDnsForwarder PolicyDnsForwarderZone LBService "
    "LBVirtualServer LBPool PolicyFirewallSessionTimerProfile "
    "PolicyFirewallFloodProtectionProfile FloodProtectionProfile IPDiscoveryProfile MacDiscoveryProfile "
    "SegmentSecurityProfile QoSProfile PolicyDraft Ipv6NdraProfile Ipv6DadProfile SecurityZone "
    "IpAddressPoolSubnet TlsCertificate TlsCrl TlsTrustData GlobalConfig PolicyMonProfile PolicyMulticastConfig "
    "PolicyTier1MulticastConfig PolicyPimProfile PolicyIgmpProfile PolicyRoutingConfig OspfRoutingConfig "
    "OspfAreaConfig BfdProfile StaticRouteBfdPeer GatewayQosProfile PolicyTransportZone PolicyEdgeCluster "
    "PolicyTransportZoneProfile "
    "PolicyVtepHAHostSwitchProfile PolicyUplinkHostSwitchProfile PolicyHostTransportNodeProfile HostTransportNode "
    "EvpnConfig EvpnTenantConfig EvpnTunnelEndpointConfig VniPoolConfig PolicyLatencyStatProfile TraceflowConfig "
    "LiveTraceConfig PortMirroringProfile PortMirroringInstance DnsSecurityProfile PolicyCustomAttributes "
    "FirewallCpuMemThresholdsProfile GeneralSecurityProfile ComputeClusterIdfwConfiguration PolicyServiceProfile "
    "PolicyServiceReference VirtualEndpoint ServiceInstanceEndpoint ServiceSegment Span Constraint "
    "EndpointPolicy EndpointRule IdsSettings IdsProfile IdsSignature IdsClusterConfig IdsStandaloneHostConfig"
)
_STRUCTURE_STARTS = ("LB", "Ipfix", "Dhcp", "IPSec", "L2Vpn", "L2VPN")
_STRUCTURE_ENDS = ("BindingMap", "DeploymentMap")
# Lists of an inventory dump -> kind of their elements.
LISTS = {
    "virtual_machines": "VirtualMachine",
    "virtual_network_interface": "VirtualNetworkInterface",
    "virtual_network_interfaces": "VirtualNetworkInterface",
    "vifs": "VirtualNetworkInterface",
    "segments": "Segment",
    "segment_ports": "SegmentPort",
    "security_policies": "SecurityPolicy",
    "groups": "Group",
    "services": "Service",
    "rules": "Rule",
    "domains": "Domain",
    "gateway_policies": "GatewayPolicy",
    "redirection_policies": "RedirectionPolicy",
    "tier0": "Tier0",
    "tier1": "Tier1",
    "context_profiles": "PolicyContextProfile",
    "l7_access_profiles": "L7AccessProfile",
    "firewall_schedulers": "PolicyFirewallScheduler",
    "service_chains": "PolicyServiceChain",
    "nat_rules": "PolicyNatRule",
}
# Lists inside a gateway, in dumps that nest what the API answers one by one.
GATEWAY_LISTS = {
    **dict.fromkeys(("policy_nats", "nats", "nat"), "PolicyNat"),
    "nat_rules": "PolicyNatRule",
    "static_routes": "StaticRoutes",
    "locale_services": "LocaleServices",
    "interfaces": "Tier0Interface",
    "gateway_policies": "GatewayPolicy",
}
_INTERFACES = ("Tier0Interface", "Tier1Interface", "ServiceInterface")
LIST_METADATA = frozenset({"cursor", "result_count", "sort_by", "sort_ascending", "status"})

# Where resource_type is missing: the first row of which the object has a field.
_TELLTALE = (
    ("security_policies", "Inventory"),
    ("virtual_machines", "Inventory"),
    ("virtual_network_interface", "Inventory"),
    ("domains", "Inventory"),
    ("segments", "Inventory"),
    ("groups", "Inventory"),
    ("services", "Rule"),
    ("results", "Results"),
    ("owner_vm_id", "VirtualNetworkInterface"),
    ("source_groups", "Rule"),
    ("destination_groups", "Rule"),
    ("redirect_to", "RedirectionPolicy"),
    ("rules", "SecurityPolicy"),
    ("category", "SecurityPolicy"),
    ("translated_network", "PolicyNatRule"),
    ("expression", "Group"),
    ("extended_expression", "Group"),
    ("vm_members", "Group"),
    ("ips_members", "Group"),
    ("service_entries", "Service"),
    ("attachment", "SegmentPort"),
    ("subnets", "Segment"),
    ("segment_ports", "Segment"),
    ("resources", "Domain"),
    ("external_id", "VirtualMachine"),
    ("members", "PolicyExcludeList"),
)


class Catalogue:
    """Everything of a load, typed. has_machines: a list of virtual machines was given, even an empty one."""

    def __init__(self, options: ImportOptions) -> None:
        self.lenient = not options.strict
        self.limits = Limits(document_bytes=options.document_bytes, nodes=options.document_nodes)
        self.policies: list[objects.Policy] = []
        self._policies_by_path: dict[str, objects.Policy] = {}
        self.groups: dict[str, objects.Group] = {}
        self.services: dict[str, objects.Service] = {}
        self.machines: dict[str, objects.Machine] = {}
        self.interfaces: list[objects.Interface] = []
        self._interfaces_by_id: dict[str, objects.Interface] = {}
        self.segments: dict[str, objects.Segment] = {}
        self.ports: dict[str, objects.Port] = {}
        self.excluded: list[tuple[Object, str]] = []
        self.gateway_policies: list[objects.Policy] = []
        self.redirection_policies: list[objects.Policy] = []
        # By path; a profile that cannot be read is the error, for the rules that name it.
        self.profiles: dict[str, Profile | AccessProfile | PolicyError] = {}
        self.schedules: dict[str, Object] = {}
        self.service_chains: dict[str, Object] = {}
        self.labels: dict[str, Object] = {}
        self.gateways: dict[str, tuple[str, Object]] = {}  # Tier0 or Tier1
        self.gateway_interfaces: dict[str, Object] = {}
        self.static_routes: dict[str, Object] = {}
        self.nat_rules: dict[str, Object] = {}
        self.spoofguard_profiles: dict[str, Object] = {}
        self.bindings: list[tuple[str, Object]] = []  # (segment or port, binding map)
        self.url_categories: dict[str, list[str]] = {}
        self.sessions: dict[str, ValueSet] | None = None  # identity group -> addresses of its users
        self.has_machines = False
        self.diagnostics: list[Diagnostic] = []
        self._loose_rules: list[tuple[Object, objects.Rule]] = []
        self._pages: list[tuple[Object, int, int, bool]] = []

    @classmethod
    def of(cls, sources: Sequence[SourceFile], options: ImportOptions) -> Catalogue:
        """raises  PolicyError"""
        self = cls(options)
        for source in sources:
            self._add_any(read_json(source.text, source.name, self.limits), "", source.name)
        self._attach_loose_rules()
        self._keep_places()
        self._check_pages()
        return self

    # Shapes

    def _add_any(self, value: Any, parent: str, file: str) -> None:
        if isinstance(value, Object):
            self._add(value, _kind_of(value), parent)
        elif isinstance(value, list):
            for element in value:
                if not isinstance(element, Object | list):
                    raise PolicyError("a list of NSX objects holds something else", where=file, hint="list objects")
                self._add_any(element, parent, file)
        else:
            raise PolicyError("not an NSX object or list", where=file, hint="give an export of the Policy API")

    def _add(self, obj: Object, kind: str, parent: str, deleted: bool = False) -> None:
        deleted = deleted or obj.get("marked_for_delete") is True
        if kind == "Results":
            self._add_results(obj, parent)
        elif kind == "Terraform":
            for inner_kind, inner in terraform.api_objects(obj):
                self._add(inner, inner_kind, "")
        elif kind == "Inventory":
            self._add_lists(obj, parent, LIST_METADATA)
        elif kind == "Infra":
            self._add_children(obj, "/infra", deleted)
        elif kind == "Domain":
            self._add_domain(obj, deleted)
        elif kind == "ChildResourceReference":
            self._add_reference(obj, parent, deleted)
        elif kind in objects.POLICY_KINDS:
            self._add_policy(obj, kind, parent, deleted)
        elif kind == "Rule":
            rule = objects.read_rule(obj, objects.label_of(obj, parent, "rules"), self.lenient, deleted)
            self._loose_rules.append((obj, rule))
        elif kind == "VirtualMachine":
            self._add_machine(obj)
        elif kind == "VirtualNetworkInterface":
            self._add_interface(obj)
        elif kind == "PolicyExcludeList":
            self._add_exclude_list(obj)
        elif kind in ELSEWHERE:
            self._note_elsewhere(obj, kind)
        elif kind.endswith("SecurityProfileBindingMap"):
            self.bindings.append((parent or str(obj.get("path", "")).rpartition("/")[0].rpartition("/")[0], obj))
        elif kind in STRUCTURE or kind.startswith(_STRUCTURE_STARTS) or kind.endswith(_STRUCTURE_ENDS):
            path = objects.label_of(obj, parent, _collection(kind))
            self._add_children(obj, path, deleted)
            self._add_gateway_lists(obj, path)
        elif deleted and kind not in STRUCTURE:
            pass  # takes no part; a rule that still names it dangles, and says so
        elif kind == "Group":
            label = objects.label_of(obj, parent, "groups")
            self._keep(self.groups, objects.read_group(obj, label, label, self.lenient))
        elif kind == "Service":
            label = objects.label_of(obj, parent or "/infra", "services")
            self._keep(self.services, objects.read_service(obj, label, label, self.lenient))
        elif kind in ("PolicyContextProfile", "L7AccessProfile"):
            self._add_profile(obj, kind)
        elif kind in ("Tier0", "Tier1"):
            path = objects.label_of(obj, parent or "/infra", _collection(kind))
            self.gateways.setdefault(path, (kind, obj))
            self._add_children(obj, path, deleted)
            self._add_gateway_lists(obj, path)
        elif kind in self._plain:
            path = objects.label_of(obj, parent or "/infra", _collection(kind))
            known = self._plain[kind].setdefault(path, obj)
            if known != obj:
                self._refuse_second(obj, known, f"'{path}'")
        elif kind == "UrlCategories":
            self._add_categories(obj)
        elif kind == "IdentitySessions":
            self._add_sessions(obj)
        elif kind == "Segment":
            self._add_segment(obj, parent)
        elif kind == "SegmentPort":
            self._add_port(obj, parent)
        else:
            self._refuse_kind(obj, kind)

    @property
    def _plain(self) -> dict[str, dict[str, Object]]:
        """Kinds that are kept as they are, by path."""
        return {
            "PolicyFirewallScheduler": self.schedules,
            "PolicyServiceChain": self.service_chains,
            "PolicyServiceInstance": self.service_chains,  # what north-south policies redirect to
            "PolicyLabel": self.labels,
            "StaticRoutes": self.static_routes,
            "PolicyNatRule": self.nat_rules,
            "SpoofGuardProfile": self.spoofguard_profiles,
            **dict.fromkeys(_INTERFACES, self.gateway_interfaces),
        }

    def _add_gateway_lists(self, obj: Object, path: str) -> None:
        for key, kind in GATEWAY_LISTS.items():
            listed = obj.get(key)
            for element in listed if isinstance(listed, list) else []:
                if isinstance(element, Object):
                    self._add(element, kind, path)

    def _add_profile(self, obj: Object, kind: str) -> None:
        collection = "context-profiles" if kind == "PolicyContextProfile" else "l7-access-profiles"
        path = objects.label_of(obj, "/infra", collection)
        try:
            read = read_profile(obj, path) if kind == "PolicyContextProfile" else read_access_profile(obj, path)
        except PolicyError as error:
            if not self.lenient:
                raise
            self.profiles[path] = error
        else:
            known = self.profiles.setdefault(path, read)
            if not isinstance(known, PolicyError) and known.obj != obj:
                self._refuse_second(obj, known.obj, f"'{path}'")

    def _add_categories(self, obj: Object) -> None:
        f = Fields(obj, "UrlCategories", "")
        categories = f.object("categories")
        f.finish()
        for name in categories or ():
            domains = Fields(categories, "categories", "").texts(name) if categories is not None else []
            self.url_categories.setdefault(name, []).extend(domain.lower() for domain in domains)

    def _add_sessions(self, obj: Object) -> None:
        """Who is logged in where: addresses, and the directory groups of the users there."""
        f = Fields(obj, "IdentitySessions", "")
        self.sessions = self.sessions or {}
        for session in f.objects("sessions"):
            s = Fields(session, "session", "")
            text = s.text("address")
            try:
                addresses = address_set([parse_range(text)])
            except ModelError as error:
                raise PolicyError(str(error), where=session.where("address"), hint="correct the address") from None
            for group in s.texts("groups"):
                key = group.lower()
                self.sessions[key] = self.sessions.get(key, ValueSet()).union(addresses)
            s.ignore("user")
            s.finish()
        f.finish()

    def _refuse_kind(self, obj: Object, kind: str) -> None:
        error = PolicyError(
            f"objects of kind '{kind}' are not known; this one could be policy",
            where=obj.where("resource_type" if "resource_type" in obj else None),
            obj=str(obj.get("path") or obj.get("display_name") or obj.get("id") or ""),
            hint="leave it out of the export if it is not, or import with --lenient",
        )
        if not self.lenient:
            raise error
        self.diagnostics.append(unsupported(error))

    def _add_results(self, obj: Object, parent: str) -> None:
        f = Fields(obj, "API answer", "")
        results = f.objects("results")
        count = f.number("result_count", 0, 2**53)
        f.ignore(*LIST_METADATA)
        f.finish()
        if count is not None:
            self._pages.append((obj, count, len(results), bool(f.text("cursor"))))
        if _lists_machines(results):
            self.has_machines = True
        for result in results:
            self._add(result, _kind_of(result), parent)

    def _add_lists(self, obj: Object, parent: str, ignored: frozenset[str] = frozenset()) -> None:
        f = Fields(obj, "inventory", parent)
        for key, kind in LISTS.items():
            if kind == "VirtualMachine" and obj.get(key) is not None:
                self.has_machines = True
            for element in f.objects(key):
                self._add(element, kind, parent)
        for key in ("exclude_list", "exclusion_list"):
            f.ignore(key)
            if isinstance(obj.get(key), Object):
                self._add_exclude_list(obj[key])
        f.ignore(*ignored)
        f.finish()

    def _add_children(self, obj: Object, path: str, deleted: bool) -> None:
        for child in Fields(obj, str(obj.get("resource_type")), path).objects("children"):
            f = Fields(child, "child", path)
            wrapper = f.text("resource_type")
            gone = deleted or f.flag("marked_for_delete")
            if wrapper == "ChildResourceReference":
                self._add_reference(child, path, gone)
                continue
            kind = wrapper.removeprefix("Child")
            inner = child.get(kind)
            if not wrapper.startswith("Child") or not isinstance(inner, Object):
                f.fail(f"a child of type '{wrapper}' holds no object '{kind}'", hint="export the body whole")
            else:
                own = inner.get("resource_type")  # a child of a general kind may hold one of a special kind
                self._add(inner, own if isinstance(own, str) and own else kind, path, gone)

    # Kinds

    def _add_reference(self, obj: Object, parent: str, deleted: bool) -> None:
        kind = obj.get("target_type")
        if kind == "Domain":
            self._add_children(obj, f"/infra/domains/{obj.get('id', 'default')}", deleted)
        else:
            self._add_children(obj, objects.label_of(obj, parent, _collection(str(kind))), deleted)

    def _add_domain(self, obj: Object, deleted: bool) -> None:
        f = Fields(obj, "Domain", str(obj.get("display_name", "")))
        path = f.text("path") or f"/infra/domains/{f.text('id') or f.text('display_name') or 'default'}"
        resources = obj.get("resources")
        f.ignore("resources")
        f.finish()
        if isinstance(resources, Object):
            self._add_lists(resources, path)
        elif resources is not None:
            f.fail("Domain.resources must be an object", "resources")
        self._add_children(obj, path, deleted)

    def _add_policy(self, obj: Object, kind: str, parent: str, deleted: bool) -> None:
        label = objects.label_of(obj, parent, objects.POLICY_KINDS[kind].collection)
        f = Fields(obj, kind, label)
        found = [(rule, deleted) for rule in f.objects("rules")]
        for child in f.objects("children"):
            wrapper = str(child.get("resource_type"))
            rule = child.get(wrapper.removeprefix("Child"))
            if wrapper not in ("ChildRule", "ChildRedirectionRule") or not isinstance(rule, Object):
                f.fail(f"children of a {kind} must be rules", hint="export the body whole")
            else:
                found.append((rule, deleted or child.get("marked_for_delete") is True))
        rules = [
            objects.read_rule(rule, objects.label_of(rule, label, "rules"), self.lenient, gone, kind)
            for rule, gone in found
        ]
        policy = objects.read_policy(obj, label, rules, self.lenient, deleted, kind)
        if label.startswith("/orgs/"):
            error = PolicyError(
                "a project's policy holds for the vNICs of that project only, which is not evaluated",
                where=obj.where(),
                obj=label,
                hint=LENIENT_HINT,
            )
            if not self.lenient:
                raise error
            policy.problems.append(error)
        known = self._policies_by_path.setdefault(label, policy) if "path" in obj or "id" in obj else policy
        if known is policy:
            lists = {"GatewayPolicy": self.gateway_policies, "RedirectionPolicy": self.redirection_policies}
            lists.get(kind, self.policies).append(policy)
        elif _without_rules(known.obj) != _without_rules(obj) or (known.rules and rules and known.obj != obj):
            self._refuse_second(obj, known.obj, f"policy '{label}'")
        elif not known.rules:  # a list of policies came first, without their rules
            known.rules.extend(rules)

    def _keep_places(self) -> None:
        """A policy that cannot be read, and shows no rules, may have some: one that nobody can read stands for them."""
        for policy in self._policies_by_path.values():
            if policy.problems and not policy.rules:
                unread = Object({"display_name": f"{policy.label}: what it holds"})
                unread.document, unread.offset = policy.obj.document, policy.obj.offset
                policy.rules.append(objects.read_rule(unread, policy.label, True, kind=policy.kind))

    def _attach_loose_rules(self) -> None:
        """Rules that came by themselves (an answer of .../rules) join the policy that their path names."""
        for obj, rule in self._loose_rules:
            parent = obj.get("parent_path") or rule.label.rpartition("/rules/")[0]
            policy = self._policies_by_path.get(parent) if isinstance(parent, str) else None
            if policy is None:
                raise PolicyError(
                    f"the policy '{parent}' of this rule is in no file",
                    where=obj.where(),
                    obj=rule.label,
                    hint="add the answer of .../security-policies to the same load",
                )
            if not any(known.label == rule.label for known in policy.rules):
                policy.rules.append(rule)

    def _add_machine(self, obj: Object) -> None:
        self.has_machines = True
        machine = objects.read_machine(obj)
        known = self.machines.setdefault(machine.id, machine)
        if known.obj != obj:
            self._refuse_second(obj, known.obj, f"virtual machine '{machine.id}'")

    def _add_interface(self, obj: Object) -> None:
        interface = objects.read_interface(obj, len(self.interfaces))
        external_id = obj.get("external_id")  # sparse dumps have none, and repeat attachments
        known = self._interfaces_by_id.setdefault(external_id, interface) if external_id else interface
        if known is interface:
            self.interfaces.append(interface)
        elif known.obj != obj:
            self._refuse_second(obj, known.obj, f"interface '{interface.id}'")

    def _add_segment(self, obj: Object, parent: str) -> None:
        path = objects.label_of(obj, parent or "/infra", "segments")
        self._keep(self.segments, objects.read_segment(obj, path))
        f = Fields(obj, "Segment", path)
        for port in f.objects("segment_ports"):
            self._add_port(port, path)
        self._add_children(obj, path, False)

    def _add_port(self, obj: Object, parent: str) -> None:
        own_parent = obj.get("parent_path")
        parent = parent or (own_parent if isinstance(own_parent, str) else "")
        path = objects.label_of(obj, parent, "ports")
        self._keep(self.ports, objects.read_port(obj, path, parent or path.rpartition("/ports/")[0]))

    def _keep(self, known: dict[str, Any], new: Any) -> None:
        first = known.setdefault(new.path, new)
        if first is not new and first.obj != new.obj:
            self._refuse_second(new.obj, first.obj, f"'{new.path}'")

    def _refuse_second(self, obj: Object, first: Object, what: str) -> None:
        raise PolicyError(
            f"{what} is defined twice, first at {first.where()}, with different content",
            where=obj.where(),
            hint="load files of one export only",
        )

    def _add_exclude_list(self, obj: Object) -> None:
        """The Policy API lists paths, the manager API objects with target_id."""
        members = obj.get("members")
        for index, member in enumerate(members if isinstance(members, list) else []):
            target = member.get("target_id") or member.get("path") if isinstance(member, Object) else member
            if not isinstance(target, str):
                raise PolicyError("an exclusion list member must be a path", where=obj.where("members", index))
            self.excluded.append((obj, target))

    def _note_elsewhere(self, obj: Object, kind: str) -> None:
        self.diagnostics.append(
            Diagnostic(
                "not-evaluated",
                f"{kind} is enforced elsewhere than at the vNIC and is not part of this layer",
                where=obj.where(),
                obj=str(obj.get("path") or obj.get("display_name") or obj.get("id") or ""),
                level="note",
            )
        )

    def _check_pages(self) -> None:
        """A list of which pages are missing lacks policy; it is refused."""
        for obj, count, _, _ in self._pages:
            same = [page for page in self._pages if page[1] == count]
            ends = sum(not more for _, _, _, more in same)
            if sum(held for _, _, held, _ in same) < count * max(ends, 1):
                raise PolicyError(
                    f"this list has {count} results, but the files hold fewer",
                    where=obj.where("result_count"),
                    hint="fetch the remaining pages (?cursor=...) and load them together",
                )


def unsupported(error: PolicyError) -> Diagnostic:
    """A clause that cannot be expressed exactly, kept as undecided."""
    hint = "" if error.hint == LENIENT_HINT else error.hint.removesuffix(", or import with --lenient")
    if hint.startswith("import with --lenient"):
        hint = ""
    return Diagnostic("unsupported", error.message, where=error.where, obj=error.obj, hint=hint)


def _kind_of(obj: Object) -> str:
    kind = obj.get("resource_type")
    if isinstance(kind, str):
        return kind
    if terraform.is_terraform(obj):
        return "Terraform"
    for key, told in _TELLTALE:
        if key in obj:
            return told if key != "services" or "action" in obj else "Inventory"
    raise PolicyError(
        "cannot tell which kind of NSX object this is",
        where=obj.where(),
        hint="give it a resource_type, such as SecurityPolicy, Group or Service",
    )


def _without_rules(policy: Object) -> dict[str, Any]:
    """What two answers about one policy have in common: one may leave out the rules."""
    return {key: value for key, value in policy.items() if key not in ("rules", "children", "rule_count", "_links")}


def _lists_machines(results: list[Object]) -> bool:
    return bool(results) and _kind_of(results[0]) == "VirtualMachine"


def _collection(kind: str) -> str:
    """The collection's name in a path: Tier1 -> tier-1s."""
    known = {"Tier0": "tier-0s", "Tier1": "tier-1s", "PolicyNat": "nat", "PolicyNatRule": "nat-rules"}
    known |= {"LocaleServices": "locale-services", "StaticRoutes": "static-routes"}
    known |= {"PolicyServiceChain": "service-chains", "PolicyFirewallScheduler": "firewall-schedulers"}
    known |= {"PolicyServiceInstance": "service-instances", "PolicyLabel": "labels"}
    known |= {"SpoofGuardProfile": "spoofguard-profiles", **dict.fromkeys(_INTERFACES, "interfaces")}
    return known.get(kind, kind.lower() + "s")
