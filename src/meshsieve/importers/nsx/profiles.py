"""What rules ask beyond addresses and ports: applications, domain names, L7 access, MAC addresses.

What    A context profile becomes alternatives over the fields ``app``, ``fqdn``, ``tls_version``, ``tls_cipher`` and
        ``smb_version``: inside one attribute values are ORed, attributes of one key too, different keys are ANDed, and
        several profiles of one rule are ORed. A URL category is the list of its domains, given as data (an object
        ``{"resource_type": "UrlCategories", "categories": {"News": ["*.news.example"]}}`` in any file of the load).
Why     The fields are missing until the application is recognised, so a rule is then UNKNOWN by these fields alone,
        which is PENDING (decision.py), and decided as soon as they are known: the two-phase walk needs no more.
Limits  CUSTOM_URL and categories are compared by the host. Where a pattern has a path, which each request has its own
        of, flows to the host are undecided and all others are not.
Source  docs of vmware/terraform-provider-nsxt for the attributes; NSX 4.0 documentation of context profiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from meshsieve.errors import PolicyError
from meshsieve.importers.json_source import Object
from meshsieve.importers.nsx.fields import Fields
from meshsieve.model import Action, Match, NameCodes, ValueSet
from meshsieve.nsx_app_ids import NSX_APP_IDS, NSX_SMB_VERSIONS, NSX_TLS_VERSIONS, NsxAppId

KEYS = ("APP_ID", "DOMAIN_NAME", "URL_CATEGORY", "CUSTOM_URL")
APP_FIELDS = ("app", "fqdn", "tls_version", "tls_cipher", "smb_version")
_ANY_NUMBER = ValueSet.numbers((0, 2**32 - 1))
_SUB_FIELDS = {"TLS_VERSION": "tls_version", "TLS_CIPHER_SUITE": "tls_cipher", "CIFS_SMB_VERSION": "smb_version"}
_SUB_OF = {"TLS_VERSION": "SSL", "TLS_CIPHER_SUITE": "SSL", "CIFS_SMB_VERSION": "CIFS"}


def _meaning(app_id: str) -> NsxAppId:
    """What an APP_ID means here; one that NSX does not ship is the name of a user's signature."""
    return NSX_APP_IDS.get(app_id.upper(), NsxAppId((app_id,)))


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a profile. subs: (sub key, values)"""

    key: str
    values: tuple[str, ...]
    subs: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A PolicyContextProfile; also the condition of one entry of an L7AccessProfile."""

    obj: Object
    label: str
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class AccessProfile:
    """An L7AccessProfile: (name, condition, action) by sequence number, then the default action."""

    obj: Object
    label: str
    entries: tuple[tuple[str, Profile, Action], ...]
    default: Action


_ACCESS_ACTIONS = {"ALLOW": Action.ALLOW, "REJECT": Action.REJECT, "REJECT_WITH_RESPONSE": Action.REJECT}


def read_profile(obj: Object, label: str, kind: str = "PolicyContextProfile") -> Profile:
    """raises  PolicyError"""
    f = Fields(obj, kind, label)
    attributes = tuple(_read_attributes(f))
    f.ignore("name", "action", "sequence_number", "logged", "disabled")
    f.finish()
    return Profile(obj, label, attributes)


def _read_attributes(f: Fields) -> Iterator[Attribute]:
    found = f.objects("attributes")
    if not found:
        f.fail("a profile without attributes matches nothing", hint="give it an attribute")
    for obj in found:
        a = Fields(obj, "attribute", f.label)
        key = a.choice("key", KEYS)
        values = a.texts("value")
        subs = []
        for sub in a.objects("sub_attributes"):
            s = Fields(sub, "sub_attribute", f.label)
            sub_key = s.choice("key", tuple(_SUB_FIELDS))
            s.ignore("datatype", "attribute_source")
            subs.append((sub_key or "", tuple(s.texts("value"))))
            if sub_key and (key != "APP_ID" or values != [_SUB_OF[sub_key]]):
                a.fail(f"{sub_key} can stand under the one APP_ID {_SUB_OF[sub_key]} only")
            s.finish()
        if key is None or not values:
            a.fail("an attribute needs a key and values")
        a.ignore("datatype", "attribute_source", "isALGType", "description", "metadata", "custom_url_partial_match")
        a.finish()
        yield Attribute(key or "", tuple(values), tuple(subs))


def read_access_profile(obj: Object, label: str) -> AccessProfile:
    """raises  PolicyError"""
    f = Fields(obj, "L7AccessProfile", label)
    entries = []
    for entry in f.objects("l7_access_entries"):
        e = Fields(entry, "L7AccessEntry", label)
        number = e.number("sequence_number", 0, 2**31 - 1) or 0
        action = _ACCESS_ACTIONS[e.choice("action", tuple(_ACCESS_ACTIONS), "ALLOW") or "ALLOW"]
        if not e.flag("disabled"):
            name = e.text("display_name") or e.text("id") or f"entry {number}"
            entries.append((number, name, read_profile(entry, label, "L7AccessEntry"), action))
    default = _ACCESS_ACTIONS[f.choice("default_action", tuple(_ACCESS_ACTIONS), "ALLOW") or "ALLOW"]
    f.ignore("default_action_logged", "entry_count")
    f.finish()
    entries.sort(key=lambda entry: entry[0])
    return AccessProfile(obj, label, tuple(entry[1:] for entry in entries), default)


class Names:
    """Numbers for the texts that rules name, shared by every rule list of one load."""

    def __init__(self, profiles: Iterable[Profile], categories: Mapping[str, list[str]], macs: Iterable[str]) -> None:
        exact: dict[str, set[str]] = {name: set() for name in ("app", "tls_version", "tls_cipher", "smb_version")}
        domains: list[str] = [domain.partition("/")[0] for listed in categories.values() for domain in listed]
        for profile in profiles:
            for attribute in profile.attributes:
                if attribute.key == "APP_ID":
                    for meaning in map(_meaning, attribute.values):
                        exact["app"].update(meaning.apps)
                        domains += [f"*{host}" for host in meaning.hosts]
                elif attribute.key != "URL_CATEGORY":
                    domains += (_host(value).partition("/")[0] for value in attribute.values)
                for key, values in attribute.subs:
                    exact[_SUB_FIELDS[key]].update(v for value in values for v in _sub_names(key, value))
        self.categories = {name.upper(): listed for name, listed in categories.items()}
        exact["app"].add("dns")
        self.codes = {name: NameCodes.of(exact=["", *texts]) for name, texts in exact.items()}
        whole = [d for d in domains if not d.startswith("*")]
        endings = [d.lstrip("*") for d in domains if d.strip("*")]
        self.codes["fqdn"] = NameCodes.of(exact=["", *whole], prefixes=[e for e in endings if e], from_end=True)
        mac_codes = NameCodes.of(exact=macs)
        self.codes |= {"src_mac": mac_codes, "dst_mac": mac_codes}

    def macs(self, macs: Iterable[str]) -> ValueSet:
        return ValueSet().union(*(self.codes["src_mac"].exact(mac) for mac in macs))

    def alternatives(self, profile: Profile) -> tuple[tuple[Match, ...], tuple[Match, ...]]:
        """(alternatives, those that hold only if a request's path does)

        raises  PolicyError for what cannot be known
        """
        by_key: dict[str, list[tuple[Match, bool]]] = {}
        for attribute in profile.attributes:
            by_key.setdefault(attribute.key, []).extend(self._attribute(attribute, profile))
        found: tuple[list[Match], list[Match]] = ([], [])
        for parts in product(*by_key.values()):
            found[any(by_path for _, by_path in parts)].append(_both(match for match, _ in parts))
        return tuple(found[0]), tuple(found[1])

    def _attribute(self, attribute: Attribute, profile: Profile) -> Iterator[tuple[Match, bool]]:
        """Alternatives, and whether each asks for a request's path as well."""
        if attribute.key != "APP_ID":
            domains = self._domains(attribute, profile)
            for by_path in (False, True):
                named = [domain.partition("/")[0] for domain in domains if ("/" in domain) == by_path]
                if named:
                    yield {"fqdn": ValueSet().union(*map(self._domain, named))}, by_path
            return
        subs: dict[str, ValueSet] = {}
        for key, values in attribute.subs:
            codes = self.codes[_SUB_FIELDS[key]]
            subs[_SUB_FIELDS[key]] = ValueSet().union(*(codes.exact(t) for v in values for t in _sub_names(key, v)))
        plain: list[ValueSet] = []
        for app_id in attribute.values:
            meaning = _meaning(app_id)
            if not meaning.apps:
                raise self._unknown(
                    profile, f"no flow is recognised as {app_id}", "leave it out, or import with --lenient"
                )
            apps = ValueSet().union(*map(self.codes["app"].exact, meaning.apps))
            if meaning.hosts:
                hosts = ValueSet().union(*(self._domain(f"*{host}") for host in meaning.hosts))
                yield {"app": apps, "fqdn": hosts, **subs}, False
            else:
                plain.append(apps)
        if plain:
            yield {"app": ValueSet().union(*plain), **subs}, False

    def _domains(self, attribute: Attribute, profile: Profile) -> list[str]:
        domains: list[str] = []
        for value in attribute.values:
            if attribute.key != "URL_CATEGORY":
                domains.append(_host(value))
            elif value.upper() in self.categories:
                domains += self.categories[value.upper()]
            else:
                what = f"which domains are in URL category '{value}' is not known"
                hint = 'add {"resource_type": "UrlCategories", "categories": {...}}, or import with --lenient'
                raise self._unknown(profile, what, hint)
        return domains

    @staticmethod
    def _unknown(profile: Profile, message: str, hint: str) -> PolicyError:
        return PolicyError(message, where=profile.obj.where(), obj=profile.label, hint=hint)

    def _domain(self, pattern: str) -> ValueSet:
        codes = self.codes["fqdn"]
        if not pattern.startswith("*"):
            return codes.exact(pattern)
        ending = pattern.lstrip("*")
        # "*" alone is any name, but not "no name".
        return codes.prefix(ending) if ending else codes.exact("").complement("fqdn")


# (name, alternatives, action, texts of what nobody knows)
Variant = tuple[str, tuple[Match, ...], Action, tuple[str, ...]]
BY_PATH = "the path of each request"


def access_rules(names: Names, profile: AccessProfile) -> Iterator[Variant]:
    """The entries in their order; the default waits until the application is known."""
    for name, condition, action in profile.entries:
        yield from variants(name, names.alternatives(condition), action)
    yield "default", ({"app": _ANY_NUMBER},), profile.default, ()


def variants(name: str, found: tuple[tuple[Match, ...], tuple[Match, ...]], action: Action) -> Iterator[Variant]:
    """One for what is known, one for what depends on paths."""
    for alternatives, unknown in zip(found, ((), (BY_PATH,)), strict=True):
        if alternatives:
            yield name, alternatives, action, unknown


def both_of(one: tuple[Match, ...], other: tuple[Match, ...]) -> tuple[Match, ...]:
    """Two disjunctions that must both hold; () = no condition."""
    if not one or not other:
        return one or other
    return tuple(_both(parts) for parts in product(one, other))


def _both(parts: Iterable[Match]) -> Match:
    out: dict[str, ValueSet] = {}
    for part in parts:
        for name, values in part.items():
            out[name] = out[name].intersection(values) if name in out else values
    return out


def _sub_names(key: str, value: str) -> tuple[str, ...]:
    """The texts under which flows carry a sub-attribute's value."""
    if key == "CIFS_SMB_VERSION":
        return tuple(NSX_SMB_VERSIONS.get(value, (value,)))
    return (NSX_TLS_VERSIONS.get(value, value),) if key == "TLS_VERSION" else (value,)


def _host(url: str) -> str:
    """The host of a CUSTOM_URL or the text of a DOMAIN_NAME; a path stays, so that it is seen."""
    host = url.split("://", 1)[-1]
    return host.rstrip("/").lower()
