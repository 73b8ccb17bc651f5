"""Terraform state of the nsxt provider, rewritten as the Policy API objects that it stands for.

Read    ``terraform show -json`` (of a state or a plan) and state files of version 4. Attributes are renamed and blocks
        unfolded; attributes that are not known here go on unchanged, so that reading the object refuses them.
Plans   What is known only after it is applied is filled in where the configuration says which resource it refers to;
        a plan that leaves anything else open in an object of the firewall is refused, for an unknown list of sources
        would read as "any".
Source  Names of resources and attributes: documentation of vmware/terraform-provider-nsxt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.fields import words

# Attributes that say how Terraform keeps an object, and texts for people.
_BOOKKEEPING = words("nsx_id revision tag context domain log_label comments")
# What a plan may leave open: NSX assigns it, and no rule depends on it.
_ASSIGNED = words("id path nsx_id revision rule_id default_rule_id context domain tag")
_ELSEWHERE = {
    "nsxt_policy_gateway_redirection_policy": "ForwardingPolicy",
    "nsxt_policy_intrusion_service_policy": "IdsSecurityPolicy",
    "nsxt_policy_intrusion_service_gateway_policy": "IdsGatewayPolicy",
}
# Resources that decide nothing at the vNIC, by the start of their type after "nsxt_policy_".
_HARMLESS = tuple(
    f"nsxt_policy_{name}"
    for name in words(
        "tier0_gateway_ha tier0_gateway_gre lb_ dhcp ip_ bgp context_profile_custom vm_tags "
        "dns qos transport_zone edge domain project "
        "segment_security mac_discovery"
    )
)


def is_terraform(obj: Object) -> bool:
    return "terraform_version" in obj


def api_objects(document: Object) -> Iterator[tuple[str, Object]]:
    """(kind, object) of everything in the document that the nsxt provider manages.

    raises  PolicyError for a plan that leaves values open, and for a document that holds no resources
    """
    if isinstance(document.get("resource_changes"), list):
        _close_values(document)
    for resource, attributes in _resources(document):
        kind = str(resource.get("type"))
        if kind in _CONVERT:
            yield _CONVERT[kind](attributes)
        elif kind in _ELSEWHERE:
            yield _ELSEWHERE[kind], attributes
        elif kind.startswith("nsxt_") and not kind.startswith(_HARMLESS):
            yield kind, attributes  # a kind that the catalogue does not know, and says so


def _resources(document: Object) -> Iterator[tuple[Object, Object]]:
    """(resource, its attributes), those that Terraform manages only."""
    if isinstance(document.get("resources"), list):  # a state file
        for resource in _objects(document, "resources"):
            for instance in _objects(resource, "instances"):
                if resource.get("mode") == "managed" and isinstance(instance.get("attributes"), Object):
                    yield resource, instance["attributes"]
        return
    values = document.get("planned_values") or document.get("values")
    root = values.get("root_module") if isinstance(values, Object) else None
    if not isinstance(root, Object):
        raise PolicyError(
            "a Terraform document without resources",
            where=document.where(),
            hint="give a state file, or the output of: terraform show -json",
        )
    modules = [root]
    while modules:
        module = modules.pop(0)
        modules += _objects(module, "child_modules")
        for resource in _objects(module, "resources"):
            if resource.get("mode") == "managed" and isinstance(resource.get("values"), Object):
                yield resource, resource["values"]


def _objects(obj: Object, key: str) -> list[Object]:
    """The objects of a list; absent and null are none."""
    found = obj.get(key)
    return [element for element in found if isinstance(element, Object)] if isinstance(found, list) else []


def _close_values(document: Object) -> None:
    """Fill in what a plan will only know when it is applied, as far as its configuration says what it refers to.

    A resource without a path yet gets its address as one; a list of ``other.path`` references gets those.
    raises  PolicyError for a value of the firewall that stays open
    """
    planned = {str(r.get("address")): (r, values) for r, values in _resources(document)}
    for address, (_, values) in planned.items():
        if not isinstance(values.get("path"), str):
            values["path"] = address
    configuration = document.get("configuration")
    expressions = (
        dict(_expressions_of(configuration.get("root_module"), "")) if isinstance(configuration, Object) else {}
    )
    for change in _objects(document, "resource_changes"):
        inner = change.get("change")
        unknown = inner.get("after_unknown") if isinstance(inner, Object) else None
        address = str(change.get("address"))
        if str(change.get("type")) not in _CONVERT or not isinstance(unknown, Object):
            continue
        values = planned[address][1] if address in planned else Object()
        module = address.rpartition("nsxt_")[0]
        name = _close(values, unknown, expressions.get(address.partition("[")[0], {}), module, planned)
        if name:
            raise PolicyError(
                f"the plan does not know '{name}' yet",
                where=change.where(),
                obj=address,
                hint="apply it, and give the output of: terraform show -json",
            )


def _expressions_of(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """(address, expressions) of every resource that the configuration declares."""
    if not isinstance(module, Object):
        return
    for resource in _objects(module, "resources"):
        yield prefix + str(resource.get("address")), resource.get("expressions") or {}
    calls = module.get("module_calls")
    for name, call in calls.items() if isinstance(calls, Object) else ():
        yield from _expressions_of(call.get("module") if isinstance(call, Object) else None, f"{prefix}module.{name}.")


Planned = Mapping[str, tuple[Object, Object]]


def _close(values: Object, unknown: Any, expressions: Any, module: str, planned: Planned) -> str:
    """Fill the unknown attributes of one object; the first one that stays open and matters, "" if there is none."""
    for key, open_ in unknown.items() if isinstance(unknown, Object) else ():
        if key in _ASSIGNED or not open_:
            continue
        expression = expressions.get(key) if isinstance(expressions, dict) else None
        if isinstance(open_, list) and any(isinstance(part, Object) for part in open_):
            blocks = _objects(values, key)
            parts = expression if isinstance(expression, list) else []
            for i, part in enumerate(open_):
                block = blocks[i] if i < len(blocks) else Object()
                if name := _close(block, part, parts[i] if i < len(parts) else {}, module, planned):
                    return name
            continue
        if not _is_open(open_):
            continue
        paths = _referred(expression, module, planned)
        known = values.get(key) if isinstance(values.get(key), list) else []
        places = [i for i, part in enumerate(open_) if part is True] if isinstance(open_, list) else []
        if open_ is True and paths is not None:
            values[key] = paths if key.endswith("s") or key == "scope" else paths[0]
        elif paths is not None and isinstance(known, list) and len(places) == len(paths) and len(known) == len(open_):
            for place, path in zip(places, paths, strict=True):
                known[place] = path
        else:
            return str(key)
    return ""


def _is_open(unknown: Any) -> bool:
    if isinstance(unknown, list | Object):
        return any(map(_is_open, unknown.values() if isinstance(unknown, Object) else unknown))
    return unknown is True


def _referred(expression: Any, module: str, planned: Planned) -> list[str] | None:
    """The paths of the resources that an expression refers to; None where it refers to something else."""
    references = expression.get("references") if isinstance(expression, Object) else None
    paths: list[str] = []
    for reference in references if isinstance(references, list) else []:
        address, dot, attribute = str(reference).rpartition(".")
        if not dot or address.count(".") < 1:
            continue
        if module + str(reference) in planned:
            continue  # the resource itself, named again behind its attribute
        if attribute not in ("path", "id") or module + address not in planned:
            return None
        paths.append(str(planned[module + address][1]["path"]))
    return paths or None


# Rewriting. A rewritten object stands where the Terraform object stands.


def _rewritten(origin: Object, drop: frozenset[str] = frozenset(), **fields: Any) -> Object:
    out = Object({k: v for k, v in origin.items() if k not in _BOOKKEEPING and k not in drop})
    out.update(fields)
    out.document, out.offset = origin.document, origin.offset
    return out


def _policy(policy: Object) -> tuple[str, Object]:
    rules = [_rule(rule) for rule in _objects(policy, "rule")]
    return "SecurityPolicy", _rewritten(policy, frozenset({"rule"}), rules=rules)


# Sections that NSX ships, by the end of their path; their category is no attribute.
_PREDEFINED = {
    "default-layer2-section": "Ethernet",
    "default-layer3-section": "Application",
    "default-malicious-ip-block-rules": "Infrastructure",
}


def _predefined_policy(policy: Object) -> tuple[str, Object]:
    """A section that NSX ships, with the rules that are added to it and its default rule."""
    name = str(policy.get("path", "")).rpartition("/")[2]
    if name not in _PREDEFINED and not policy.get("category"):
        raise PolicyError(
            f"the category of the predefined section '{name}' is not known",
            where=policy.where(), obj=str(policy.get("path", "")), hint="add its answer of the Policy API instead",
        )  # fmt: skip
    defaults = [_default_rule(rule) for rule in _objects(policy, "default_rule")]
    rules = [_rule(rule) for rule in _objects(policy, "rule")] + defaults
    category = policy.get("category") or _PREDEFINED[name]
    return "SecurityPolicy", _rewritten(policy, frozenset({"rule", "default_rule"}), rules=rules, category=category)


def _default_rule(rule: Object) -> Object:
    """The rule at the end of a predefined section; the scope of a gateway's is one path."""
    scope = rule.get("scope")
    fields: dict[str, Any] = {"display_name": "default rule", "is_default": True}
    if isinstance(scope, str) and scope:
        fields["scope"] = [scope]
    return _rewritten(rule, **fields)


def _single_rule(rule: Object) -> tuple[str, Object]:
    return "Rule", _rewritten(_rule(rule), frozenset({"policy_path"}), parent_path=rule.get("policy_path"))


def _rule(rule: Object) -> Object:
    version = rule.get("ip_version")
    entries = [entry for block in _objects(rule, "service_entries") for entry in _entries(block)]
    renamed: dict[str, Any] = {"ip_protocol": None if version == "NONE" else version, "service_entries": entries}
    return _rewritten(rule, frozenset({"ip_version"}), **renamed)


def _group(group: Object) -> tuple[str, Object]:
    members = [_criteria(criteria) for criteria in _objects(group, "criteria")]
    expression: list[Object] = members[:1]
    conjunctions = _objects(group, "conjunction")
    for conjunction, member in zip(conjunctions, members[1:], strict=False):
        operator = {"resource_type": "ConjunctionOperator", "conjunction_operator": conjunction.get("operator")}
        expression += [_rewritten(conjunction, frozenset({"operator"}), **operator), member]
    if len(members) != len(conjunctions) + 1 and (members or conjunctions):
        raise PolicyError(
            f"{len(members)} criteria are joined by {len(conjunctions)} conjunctions; there must be one fewer",
            where=group.where(),
            obj=str(group.get("path", "")),
            hint="correct the resource",
        )
    kind = group.get("group_type")
    return "Group", _rewritten(
        group,
        frozenset({"criteria", "conjunction", "extended_criteria"}),
        expression=expression,
        extended_expression=_objects(group, "extended_criteria"),
        group_type=[kind] if kind else [],
    )


def _criteria(criteria: Object) -> Object:
    """One member of an expression: conditions of one block are joined by AND."""
    found: list[Object] = []
    for block, kind, renames in _EXPRESSIONS:
        for part in _objects(criteria, block):
            fields = {new: part.get(old) for old, new in renames.items()}
            found.append(_rewritten(part, frozenset(renames), resource_type=kind, **fields))
    unknown = [key for key, value in criteria.items() if value and key not in {block for block, _, _ in _EXPRESSIONS}]
    conditions = [part for part in found if part["resource_type"] == "Condition"]
    if unknown or not found or (len(found) > 1 and len(conditions) < len(found)):
        raise PolicyError(
            f"a block of criteria holds {', '.join(unknown) or 'nothing, or parts of several kinds'}",
            where=criteria.where(),
            hint="give each kind its own block",
        )
    if len(found) == 1:
        return found[0]
    joined = found[:1]
    for condition in found[1:]:
        joined += [
            _rewritten(criteria, frozenset(criteria), resource_type="ConjunctionOperator", conjunction_operator="AND"),
            condition,
        ]
    return _rewritten(criteria, frozenset(criteria), resource_type="NestedExpression", expressions=joined)


_EXPRESSIONS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("condition", "Condition", {}),
    ("ipaddress_expression", "IPAddressExpression", {}),
    ("macaddress_expression", "MACAddressExpression", {}),
    ("external_id_expression", "ExternalIDExpression", {}),
    ("path_expression", "PathExpression", {"member_paths": "paths"}),
)


def _service(service: Object) -> tuple[str, Object]:
    return "Service", _rewritten(service, frozenset(_ENTRIES), service_entries=list(_entries(service)))


def _entries(block: Object) -> Iterator[Object]:
    """The service entries of a service, or of a rule's ``service_entries`` block."""
    for name, (kind, renames) in _ENTRIES.items():
        for entry in _objects(block, name):
            fields = {new: _shaped(new, entry.get(old)) for old, new in renames.items()}
            yield _rewritten(entry, frozenset(renames), resource_type=kind, **fields)


def _shaped(name: str, value: Any) -> Any:
    """Terraform writes numbers of ICMP as texts ("" = any), and the one port of an ALG without a list."""
    if name in ("icmp_type", "icmp_code"):
        if value in ("", None):
            return None
        return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else value
    return [value] if name == "destination_ports" and isinstance(value, str) else value


_ENTRIES: Mapping[str, tuple[str, dict[str, str]]] = {
    "l4_port_set_entry": ("L4PortSetServiceEntry", {"protocol": "l4_protocol"}),
    "icmp_entry": ("ICMPTypeServiceEntry", {"icmp_type": "icmp_type", "icmp_code": "icmp_code"}),
    "igmp_entry": ("IGMPTypeServiceEntry", {}),
    "ip_protocol_entry": ("IPProtocolServiceEntry", {"protocol": "protocol_number"}),
    "ether_type_entry": ("EtherTypeServiceEntry", {}),
    "algorithm_entry": ("ALGTypeServiceEntry", {"algorithm": "alg", "destination_port": "destination_ports"}),
    "nested_service_entry": ("NestedServiceServiceEntry", {}),
}


def _segment(segment: Object) -> tuple[str, Object]:
    subnets = [_rewritten(block, gateway_address=block.get("cidr")) for block in _objects(segment, "subnet")]
    return "Segment", _rewritten(segment, frozenset({"subnet"}), tags=segment.get("tag"), subnets=subnets)


def _gateway_policy(policy: Object) -> tuple[str, Object]:
    defaults = [_default_rule(rule) for rule in _objects(policy, "default_rule")]
    rules = [_rule(rule) for rule in _objects(policy, "rule")] + defaults
    category = policy.get("category") or ("Default" if defaults else None)
    return "GatewayPolicy", _rewritten(policy, frozenset({"rule", "default_rule"}), rules=rules, category=category)


def _gateway(tier: int) -> Callable[[Object], tuple[str, Object]]:
    def convert(gateway: Object) -> tuple[str, Object]:
        off = gateway.get("enable_firewall") is False
        return f"Tier{tier}", _rewritten(gateway, frozenset({"enable_firewall"}), disable_firewall=off)

    return convert


def _gateway_interface(interface: Object) -> tuple[str, Object]:
    """Subnets are texts, address and length together; those of a Tier-1 are service interfaces."""
    subnets = []
    texts = interface.get("subnets")
    for text in texts if isinstance(texts, list) else []:
        address, _, length = str(text).partition("/")
        if not (length.isascii() and length.isdecimal()):
            raise PolicyError(
                f"'{text}' is no address with a prefix length",
                where=interface.where("subnets"), obj=str(interface.get("path", "")), hint="correct it",
            )  # fmt: skip
        subnets.append(_rewritten(interface, frozenset(interface), ip_addresses=[address], prefix_len=int(length)))
    kind = interface.get("type") or ("SERVICE" if "/tier-1s/" in str(interface.get("path", "")) else "EXTERNAL")
    return "Tier0Interface", _rewritten(interface, subnets=subnets, type=kind)


def _excluded(member: Object) -> tuple[str, Object]:
    return "PolicyExcludeList", _rewritten(member, frozenset(member), members=[member.get("member")])


def _nat_rule(rule: Object) -> tuple[str, Object]:
    networks = {f"{end}_network": rule.get(f"{end}_networks") for end in ("source", "destination", "translated")}
    renamed = frozenset(f"{name}s" for name in networks)
    return "PolicyNatRule", _rewritten(rule, renamed, **networks)


def _static_route(route: Object) -> tuple[str, Object]:
    hops = [_rewritten(hop, admin_distance=hop.get("admin_distance")) for hop in _objects(route, "next_hop")]
    return "StaticRoutes", _rewritten(route, frozenset({"next_hop"}), next_hops=hops)


_PROFILE_KEYS = {
    "app_id": "APP_ID", "domain_name": "DOMAIN_NAME", "url_category": "URL_CATEGORY", "custom_url": "CUSTOM_URL",
}  # fmt: skip


def _attributes(block: Object) -> list[Object]:
    out = []
    for name, key in _PROFILE_KEYS.items():
        for attribute in _objects(block, name):
            subs = [
                _rewritten(sub, frozenset(sub), key=sub_name.upper(), value=sub[sub_name])
                for sub in _objects(attribute, "sub_attribute")
                for sub_name in ("tls_version", "tls_cipher_suite", "cifs_smb_version")
                if sub.get(sub_name)
            ]
            fields = {"key": key, "value": attribute.get("value"), "sub_attributes": subs}
            out.append(_rewritten(attribute, frozenset(attribute), **fields))
    return out


def _context_profile(profile: Object) -> tuple[str, Object]:
    return "PolicyContextProfile", _rewritten(profile, frozenset(_PROFILE_KEYS), attributes=_attributes(profile))


def _access_profile(profile: Object) -> tuple[str, Object]:
    entries = [
        _rewritten(entry, frozenset(_PROFILE_KEYS), attributes=_attributes(entry))
        for entry in _objects(profile, "l7_access_entry")
    ]
    return "L7AccessProfile", _rewritten(profile, frozenset({"l7_access_entry"}), l7_access_entries=entries)


def _of_kind(kind: str) -> Callable[[Object], tuple[str, Object]]:
    return lambda obj: (kind, _rewritten(obj))


_CONVERT: Mapping[str, Callable[[Object], tuple[str, Object]]] = {
    "nsxt_policy_security_policy": _policy,
    "nsxt_policy_parent_security_policy": _policy,
    "nsxt_policy_security_policy_rule": _single_rule,
    "nsxt_policy_predefined_security_policy": _predefined_policy,
    "nsxt_policy_firewall_exclude_list_member": _excluded,
    "nsxt_policy_group": _group,
    "nsxt_policy_service": _service,
    "nsxt_policy_segment": _segment,
    "nsxt_policy_vlan_segment": _segment,
    "nsxt_policy_fixed_segment": _segment,
    "nsxt_policy_gateway_policy": _gateway_policy,
    "nsxt_policy_predefined_gateway_policy": _gateway_policy,
    "nsxt_policy_nat_rule": _nat_rule,
    "nsxt_policy_static_route": _static_route,
    "nsxt_policy_context_profile": _context_profile,
    "nsxt_policy_l7_access_profile": _access_profile,
    "nsxt_policy_tier0_gateway": _gateway(0),
    "nsxt_policy_tier1_gateway": _gateway(1),
    "nsxt_policy_tier0_gateway_interface": _gateway_interface,
    "nsxt_policy_tier1_gateway_interface": _gateway_interface,
    "nsxt_policy_spoof_guard_profile": _of_kind("SpoofGuardProfile"),
}
