"""From AuthorizationPolicy to rules, as Istio's control plane does it for Envoy.

What    A rule is principals x permissions: its sources and the ``when`` keys about the caller on one side, operations
        and the keys about the callee on the other; the ``when`` conditions stand in every alternative.
Traps   A value that no proxy can use, and on TCP a field that only HTTP has: an ALLOW rule that holds one is dropped;
        of a DENY, AUDIT or CUSTOM rule only the value (the field) is, so that it takes more, and a list left without
        values is no condition. A rule with an unknown condition key is dropped whatever its action.
        A leading ``*`` makes a suffix test even if another ``*`` follows.
Source  istio/istio pilot/pkg/security/authz/{model,matcher} and pilot/pkg/security/trustdomain.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from meshsieve.authz.model import (
    DESTINATION_IP,
    DESTINATION_PORT,
    HOST,
    METHOD,
    NEVER,
    PATH,
    PEER,
    REMOTE_IP,
    SNI,
    SOURCE_IP,
    Action,
    Alternatives,
    Clause,
    Condition,
    Conjunction,
    Field,
    Group,
    Matcher,
    Network,
    Pattern,
    Ports,
    Present,
    Rule,
    Test,
    Text,
)
from meshsieve.authz.path_template import is_template, template_regex
from meshsieve.authz.policy import Fields, Policy, RuleSpec, When
from meshsieve.errors import ModelError

SCHEME = "spiffe://"
ANY_TEXT = Pattern(".+", "any")
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
METADATA_KEY = "experimental.envoy.filters."


class Unusable(ModelError):
    """A value or key that no proxy can use where it stands."""


class UnknownKey(ModelError):
    """A condition key that Istio does not know."""


def _ignore(spec: RuleSpec, error: ModelError) -> None:
    pass


class Generator:
    """Rules for one mesh.

    trust_domains  the mesh's own first, then its aliases
    """

    def __init__(self, trust_domains: Sequence[str]) -> None:
        self.trust_domains = tuple(trust_domains)

    def rules(
        self, policy: Policy, *, tcp: bool, dropped: Callable[[RuleSpec, ModelError], None] = _ignore
    ) -> Iterator[Rule]:
        """The rules of a policy that can be enforced; ``dropped`` is told of each part that cannot, and why."""
        if not policy.rules:
            yield Rule(f"{policy.title}-rule[0]", NEVER, NEVER, policy.source)
        for i, spec in enumerate(policy.rules):
            if spec is None:
                continue
            try:
                principals, permissions = self._sides(policy, spec, tcp, partial(dropped, spec))
            except (Unusable, UnknownKey) as error:
                dropped(spec, error)
                continue
            yield Rule(f"{policy.title}-rule[{i}]", principals, permissions, spec.source)

    def clause(self, key: str, values: Sequence[str], namespace: str) -> Clause:
        """One condition on HTTP: any of the values.

        raises  Unusable for a value or key that no proxy can use
        """
        return any_of([c for value in values for c in self._condition(key, value, namespace, False)], False)

    def _sides(
        self, policy: Policy, spec: RuleSpec, tcp: bool, tell: Callable[[ModelError], None]
    ) -> tuple[Alternatives, Alternatives]:
        for when in spec.when:
            if not is_known_key(when.key):
                raise UnknownKey(f"there is no condition key {when.key!r}")
        namespace = policy.attachment.namespace
        who = [(w.key, w.values, w.not_values) for w in spec.when if not is_permission_key(w)]
        what = [(w.key, w.values, w.not_values) for w in spec.when if is_permission_key(w)]

        def conjunctions(parts: Sequence[Fields], keys: dict[str, str], when: list[Entry]) -> Alternatives:
            entries = [[(keys[name], *values) for name, values in part.items()] for part in parts] or [[]]
            return tuple(tuple(self._clauses([*e, *when], namespace, policy.action, tcp, tell)) for e in entries)

        principals = conjunctions(spec.sources, SOURCE_KEYS, who)
        permissions = conjunctions(spec.operations, OPERATION_KEYS, what)
        if spec.condition is not None:
            strict = policy.action is not Action.ALLOW and policy.action is not Action.AUDIT
            condition = Condition(spec.condition, on_error=strict)
            permissions = tuple((*conjunction, condition) for conjunction in permissions)
        return principals, permissions

    def _clauses(
        self,
        entries: Iterable[Entry],
        namespace: str,
        action: Action,
        tcp: bool,
        tell: Callable[[ModelError], None],
    ) -> Iterator[Clause]:
        for key, values, nots in entries:
            for given, negated in ((values, False), (nots, True)):
                good = []
                for value in given:
                    try:
                        good += self._condition(key, value, namespace, tcp)
                    except Unusable as error:
                        if action is Action.ALLOW:
                            raise
                        tell(error)
                if good:
                    yield any_of(good, negated)

    def _condition(self, key: str, value: str, namespace: str, tcp: bool) -> Conjunctions:
        """One value of a condition: alternatives, each a conjunction of tests.

        raises  Unusable
        """
        if key == "source.principal":
            return [(Test(PEER, (m,)),) for m in map(peer_matcher, self.expand_principal(value))]
        if key == "source.trustDomain":
            domains = self.trust_domains if value in self.trust_domains else (value,)
            return [(Test(PEER, (trust_domain_matcher(domain),)),) for domain in domains]
        if key == "source.serviceAccount":
            return [(Test(PEER, (service_account_matcher(value, namespace),)),)]
        if key in _PLAIN:
            field, matcher = _PLAIN[key]
            if tcp and field in (HOST, METHOD, PATH):
                raise Unusable(f"{key} can be tested on HTTP only")
            return [(Test(field, (matcher(value),)),)]
        if key.startswith(METADATA_KEY):
            return [(metadata_test(key, value),)]
        return self._http_condition(key, value, tcp)

    def _http_condition(self, key: str, value: str, tcp: bool) -> Conjunctions:
        if tcp:
            raise Unusable(f"{key} can be tested on HTTP only")
        kind = next(k for k in _HTTP_KEYS if key.startswith(k))
        match kind:
            case "request.headers":
                name = in_brackets(key.removeprefix(kind), key).lower()
                return [(Test(Field("header", (name,)), (Present() if value == "*" else text_matcher(value),)),)]
            case "request.auth.claims":
                path = claim_path(key.removeprefix(kind), key)
            case "request.auth.audiences":
                path = ("aud",)
            case "request.auth.presenter":
                path = ("azp",)
            case _:
                return [request_principal_tests(value)]
        return [(Test(Field("claim", path), (text_matcher(value),)),)]

    def expand_principal(self, principal: str) -> list[str]:
        """The principal under every name of the mesh's trust domain."""
        parts = principal.split("/")
        domain = parts[0]
        if len(parts) != 5 or domain == "*":
            return [principal]
        if domain != "cluster.local" and not any(_wildcard_equal(domain, own) for own in self.trust_domains):
            return [principal]
        covered = domain.startswith("*")
        names = (domain if covered and own.endswith(domain[1:]) else own for own in self.trust_domains)
        return list(dict.fromkeys("/".join([name, *parts[1:]]) for name in names))


Entry = tuple[str, tuple[str, ...], tuple[str, ...]]  # condition key, values, values of the not-form
Conjunctions = list[Conjunction]

SOURCE_KEYS = {
    "principals": "source.principal",
    "requestPrincipals": "request.auth.principal",
    "namespaces": "source.namespace",
    "serviceAccounts": "source.serviceAccount",
    "trustDomains": "source.trustDomain",
    "ipBlocks": "source.ip",
    "remoteIpBlocks": "remote.ip",
}
OPERATION_KEYS = {"hosts": "hosts", "methods": "methods", "paths": "paths", "ports": "destination.port"}
_KEYED = ("request.headers", "request.auth.claims")
_HTTP_KEYS = ("request.auth.principal", "request.auth.audiences", "request.auth.presenter", *_KEYED)


def is_permission_key(when: When) -> bool:
    return when.key in ("destination.ip", "destination.port", "connection.sni") or when.key.startswith(METADATA_KEY)


def is_known_key(key: str) -> bool:
    """Whether Istio knows a condition key (its brackets may still be malformed)."""
    if key in OPERATION_KEYS:
        return False
    identity = ("source.principal", "source.trustDomain", "source.serviceAccount")
    return key in (*_PLAIN, *identity, *_HTTP_KEYS) or key.startswith((METADATA_KEY, *_KEYED))


def any_of(alternatives: Conjunctions, negated: bool) -> Clause:
    """One Test where all alternatives are plain tests of one field."""
    tests = [c[0] for c in alternatives if len(c) == 1 and isinstance(c[0], Test) and not c[0].negated]
    if len(tests) == len(alternatives) and len({test.field for test in tests}) == 1:
        return Test(tests[0].field, tuple(dict.fromkeys(m for test in tests for m in test.matchers)), negated)
    return Group(tuple(alternatives), negated)


def _wildcard_equal(pattern: str, text: str) -> bool:
    return (
        pattern == text
        or text == "*"
        or (pattern.startswith("*") and text.endswith(pattern[1:]))
        or (pattern.endswith("*") and text.startswith(pattern[:-1]))
    )


# --- one value to one matcher


def quoted(text: str) -> str:
    return _META.sub(lambda m: "\\" + m.group(), text)


def text_matcher(value: str, ignore_case: bool = False) -> Matcher:
    if value == "*":
        return ANY_TEXT
    if value.startswith("*"):
        return Text("suffix", value[1:], ignore_case)
    if value.endswith("*"):
        return Text("prefix", value[:-1], ignore_case)
    return Text("exact", value, ignore_case)


def peer_matcher(value: str) -> Matcher:
    if value == "*":
        return ANY_TEXT
    if value.startswith("*"):
        return Pattern(f"{SCHEME}.*{quoted(value[1:])}", "peer_suffix", (value[1:],))
    if value.endswith("*"):
        return Text("prefix", SCHEME + value[:-1])
    return Text("exact", SCHEME + value)


def namespace_matcher(value: str) -> Matcher:
    pieces = tuple(value.split("*"))
    return Pattern(f".*/ns/{'.*'.join(map(quoted, pieces))}/.*", "namespace", pieces)


def service_account_matcher(value: str, own_namespace: str) -> Matcher:
    namespace, slash, name = value.partition("/")
    if not slash:
        namespace, name = own_namespace, value
    regex = f"{SCHEME}.+/ns/{quoted(namespace)}/(.+/|)sa/{quoted(name)}(/.+)?"
    return Pattern(regex, "service_account", (namespace, name))


def trust_domain_matcher(value: str) -> Matcher:
    if value == "*":
        return Text("prefix", SCHEME)
    before, star, after = value.partition("*")
    if not star:
        return Text("prefix", f"{SCHEME}{value}/")
    return Pattern(f"{SCHEME}{quoted(before)}[^/]*{quoted(after)}/.*", "trust_domain", (before, after))


def network_matcher(value: str) -> Matcher:
    try:
        return Network.parse(value)
    except ModelError as error:
        raise Unusable(str(error)) from None


def port_matcher(value: str) -> Matcher:
    if not re.fullmatch(r"[0-9]{1,20}", value, re.ASCII) or int(value) > 65535:
        raise Unusable(f"{value!r} is no port")
    return Ports(int(value), int(value))


def path_matcher(value: str) -> Matcher:
    return Pattern(template_regex(value), "template", (value,)) if is_template(value) else text_matcher(value)


def host_matcher(value: str) -> Matcher:
    return text_matcher(value, ignore_case=True)


_PLAIN: dict[str, tuple[Field, Callable[[str], Matcher]]] = {
    "source.namespace": (PEER, namespace_matcher),
    "source.ip": (SOURCE_IP, network_matcher),
    "remote.ip": (REMOTE_IP, network_matcher),
    "destination.ip": (DESTINATION_IP, network_matcher),
    "destination.port": (DESTINATION_PORT, port_matcher),
    "connection.sni": (SNI, text_matcher),
    "hosts": (HOST, host_matcher),
    "methods": (METHOD, text_matcher),
    "paths": (PATH, path_matcher),
}


def request_principal_tests(value: str) -> Conjunction:
    """``iss/sub``, split at the last slash: what each of the two claims, which must be texts, has to be."""
    issuer, slash, subject = value.rpartition("/")
    if not slash:
        issuer, subject = value, ""
    iss: Matcher
    sub: Matcher
    if value == "*":
        iss = sub = ANY_TEXT
    elif value.startswith("*"):
        iss = ANY_TEXT if not slash or issuer == "*" else Text("suffix", issuer[1:])
        sub = Text("exact", subject) if slash else Text("suffix", value[1:])
    elif value.endswith("*"):
        iss = Text("exact", issuer) if slash else Text("prefix", value[:-1])
        sub = ANY_TEXT if not slash or subject == "*" else Text("prefix", subject[:-1])
    else:
        iss, sub = Text("exact", issuer), Text("exact", subject)
    return Test(Field("claim_text", ("iss",)), (iss,)), Test(Field("claim_text", ("sub",)), (sub,))


def in_brackets(text: str, key: str) -> str:
    if not (len(text) >= 2 and text.startswith("[") and text.endswith("]")):
        raise Unusable(f"the key {key!r} lacks its name in brackets")
    return text[1:-1]


def claim_path(text: str, key: str) -> tuple[str, ...]:
    """``[a][b]`` as (a, b); () for no brackets at all, which is the whole payload."""
    if re.fullmatch(r"(\[[^\[\]]*\])*", text):
        return tuple(re.findall(r"\[([^\[\]]*)\]", text))
    return (in_brackets(text, key),)


def metadata_test(key: str, value: str) -> Test:
    """``experimental.envoy.filters.<filter>[<key>]``; a value in brackets asks for an element of a list."""
    name, bracket, inner = key.removeprefix("experimental.").removesuffix("]").partition("[")
    if not bracket:
        raise Unusable(f"the key {key!r} lacks its name in brackets")
    if value.startswith("[") and value.endswith("]"):
        return Test(Field("metadata_list", (name, inner)), (text_matcher(value.strip("[]")),))
    return Test(Field("metadata", (name, inner)), (text_matcher(value),))
