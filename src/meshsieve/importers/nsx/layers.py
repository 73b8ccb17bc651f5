"""A packet's way through NSX as one layer: its points, in the order in which they are met."""

from __future__ import annotations

from collections.abc import Sequence

from meshsieve.importers.nsx.catalogue import Catalogue
from meshsieve.importers.nsx.edges import redirection_points, spoofguard_points
from meshsieve.importers.nsx.firewall import Firewall
from meshsieve.importers.nsx.gateways import Gateways
from meshsieve.importers.nsx.groups import Groups
from meshsieve.importers.nsx.profiles import AccessProfile, Names, Profile
from meshsieve.importers.nsx.rules import RuleTranslator
from meshsieve.policy import ImportOptions, ImportResult, Layer


def layers_of(catalogue: Catalogue, options: ImportOptions) -> ImportResult:
    """raises  PolicyError"""
    groups = Groups(catalogue, options.recompute_groups)
    translator = RuleTranslator(catalogue, groups, _names(catalogue), options)
    out, into = Firewall(translator).points()
    points = (
        *spoofguard_points(translator),
        out,
        *redirection_points(translator),
        *Gateways(translator).points(),
        into,
    )
    layer = Layer("nsx-dfw", points, groups.machines.inventory)
    found = (catalogue.diagnostics, translator.diagnostics, groups.diagnostics, translator.services.diagnostics)
    return ImportResult((layer,), tuple(d for listed in found for d in listed))


def _names(catalogue: Catalogue) -> Names:
    profiles: list[Profile] = []
    for profile in catalogue.profiles.values():
        if isinstance(profile, Profile):
            profiles.append(profile)
        elif isinstance(profile, AccessProfile):
            profiles += [condition for _, condition, _ in profile.entries]
    macs = {interface.mac for interface in catalogue.interfaces if interface.mac}
    for group in catalogue.groups.values():
        macs.update(_macs_in(group.expression))
    return Names(profiles, catalogue.url_categories, macs)


def _macs_in(parts: Sequence[object]) -> set[str]:
    return {
        mac.lower().replace("-", ":")
        for part in parts
        if isinstance(part, dict)
        for mac in part.get("mac_addresses") or ()
        if isinstance(mac, str)
    }.union(*(_macs_in(part.get("expressions") or []) for part in parts if isinstance(part, dict)))
