"""NSX load balancer: from a connection or request to a pool member, with persistence, SNAT and rules.

The state (health as the monitors see it, active connections, persistence, where each rotation stands) is an input: a
``LbState`` that ``decide`` advances. Decisions of round robin and least connection are exact for their state.

Three-valued: a condition that cannot be known here (a body, a client certificate, a pattern that needs back-references)
is unknown, and a decision that depends on it is UNDECIDED, never guessed.

Source: NSX Policy API and VMware's administration pages on server pools and persistence; what they leave open is
decided in docs/balance.md and marked there.
"""

from __future__ import annotations

import copy
import ipaddress
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

from meshsieve import _core
from meshsieve.balance.decision import Decision, Outcome, Snat
from meshsieve.balance.hash_policy import cookie_value
from meshsieve.balance.hosts import Host, canonical_address
from meshsieve.balance.keys import hash_key
from meshsieve.balance.nsx_objects import (
    PHASES,
    Condition,
    LbObjects,
    LbRule,
    Member,
    PersistenceProfile,
    Pool,
    VirtualServer,
    read_objects,
)
from meshsieve.balance.tables import HashBalancer
from meshsieve.errors import BalanceError, ModelError
from meshsieve.importers.nsx.addresses import parse_range
from meshsieve.importers.sources import find_files, read_source
from meshsieve.policy import Diagnostic
from meshsieve.request import Request

FINAL = ("select_pool", "http_redirect", "http_reject", "connection_drop", "ssl_mode")
REWRITE_PHASES = ("HTTP_REQUEST_REWRITE", "HTTP_RESPONSE_REWRITE")
# What the walk before the backend runs, in order.
REQUEST_PHASES = PHASES[:4]
TABLE_LIMIT = 65536


@dataclass
class LbState:
    """Everything that changes: copy it to try something out.

    down              (pool path, member name) of members that a monitor holds for down
    active            connections now, by (pool path, member name)
    server_active     connections now, by virtual server path
    new_connections   of the current second, by virtual server path
    tables            persistence entries, by table: key -> (member name, time of the last use)
    """

    down: set[tuple[str, str]] = field(default_factory=set)
    active: Counter[tuple[str, str]] = field(default_factory=Counter)
    server_active: Counter[str] = field(default_factory=Counter)
    new_connections: Counter[str] = field(default_factory=Counter)
    tables: dict[str, dict[str, tuple[str, float]]] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    current: dict[str, dict[str, int]] = field(default_factory=dict)

    def copy(self) -> LbState:
        return copy.deepcopy(self)


@dataclass(frozen=True)
class _Walk:
    """What the rules made of a request."""

    request: Request
    variables: Mapping[str, str] = field(default_factory=dict)
    pool: str = ""
    answer: Decision | None = None
    persistence: tuple[str, str] | None = None  # key, profile path
    steps: tuple[str, ...] = ()


class NsxBalancer:
    """All virtual servers of a configuration."""

    def __init__(self, objects: LbObjects) -> None:
        self.objects = objects

    def decide(self, request: Request, state: LbState, *, protocol: str = "TCP", time: float = 0.0) -> Decision | None:
        """The decision for a new connection (L4) or request (L7); None if no virtual server has the address and port.

        request   destination_ip and destination_port name the virtual server; source_ip is the client
        state     read, and advanced: rotations step and persistence entries are made
        """
        found = self._server(request, protocol)
        if found is None:
            return None
        server, kind = found
        steps = (f"virtual server {server.name} ({server.where})",)
        refused = self._admission(server, request, state)
        if refused is not None:
            return replace(refused, explain=(*steps, *refused.explain), source=server.where)
        walk = _Walk(request, pool=server.pool, steps=steps)
        if kind == "http":
            walk = self._run_rules(server, walk)
            if walk.answer is not None:
                return replace(walk.answer, explain=(*walk.steps, *walk.answer.explain))
        return self._from_pools(server, walk, state, time)

    def _server(self, request: Request, protocol: str) -> tuple[VirtualServer, str] | None:
        if request.destination_ip is None or request.destination_port is None:
            raise BalanceError("a decision needs destination_ip and destination_port")
        address = canonical_address(request.destination_ip)
        for server in self.objects.servers.values():
            profile = self.objects.profiles.get(server.profile)
            kind = profile.kind if profile else "tcp"
            if (
                server.enabled
                and server.address == address
                and any(low <= request.destination_port <= high for low, high in server.ports)
                and (kind == "udp") == (protocol == "UDP")
            ):
                return server, kind
        return None

    def _admission(self, server: VirtualServer, request: Request, state: LbState) -> Decision | None:
        if server.access_action:
            inside = self._in_group(request.source_ip, server.access_group)
            if inside is None:
                return Decision(Outcome.UNDECIDED, explain=(f"members of {server.access_group} are not known",))
            if inside != (server.access_action == "ALLOW"):
                return Decision(Outcome.DROP, explain=(f"access list: {server.access_action} {server.access_group}",))
        if server.max_connections is not None and state.server_active[server.path] >= server.max_connections:
            return Decision(Outcome.DROP, limits=("max_concurrent_connections",))
        if server.max_rate is not None and state.new_connections[server.path] >= server.max_rate:
            return Decision(Outcome.DROP, limits=("max_new_connection_rate",))
        return None

    def _in_group(self, address: str | None, group: str) -> bool | None:
        if group not in self.objects.groups or address is None:
            return None
        ip = _ip(address)
        return any(v == ip.version and low <= int(ip) <= high for v, low, high in self.objects.groups[group])

    # Rules

    def _run_rules(self, server: VirtualServer, walk: _Walk) -> _Walk:
        for phase in REQUEST_PHASES:
            if phase == "HTTP_FORWARDING":
                walk = self._profile_redirect(server, walk)
                if walk.answer is not None:
                    return walk
            for rule in server.rules:
                if rule.phase != phase:
                    continue
                matched, variables = self._matches(rule, walk)
                if matched is None:
                    answer = Decision(
                        Outcome.UNDECIDED, explain=(f"rule {rule.name} ({rule.where}) cannot be decided",)
                    )
                    return replace(walk, answer=answer)
                if not matched:
                    continue
                walk = replace(
                    walk,
                    variables={**walk.variables, **variables},
                    steps=(*walk.steps, f"{phase}: rule {rule.name} ({rule.where})"),
                )
                walk, final = self._apply(rule, walk)
                if walk.answer is not None:
                    return walk
                if final and phase not in REWRITE_PHASES:
                    break
        return walk

    def _profile_redirect(self, server: VirtualServer, walk: _Walk) -> _Walk:
        profile = self.objects.profiles[server.profile]
        location = profile.redirect_to
        if profile.redirect_to_https:
            location = f"https://{_host_without_port(walk.request.authority)}{walk.request.path}"
        if not location:
            return walk
        answer = Decision(Outcome.REDIRECT, status=302, location=location, explain=(f"profile {profile.path}",))
        return replace(walk, answer=answer)

    def _matches(self, rule: LbRule, walk: _Walk) -> tuple[bool | None, dict[str, str]]:
        """True, False or None (unknown), and the variables that named groups captured."""
        variables: dict[str, str] = {}
        results = []
        for condition in rule.conditions:
            result, captured = self._test(condition, walk)
            if result and not condition.inverse:
                variables |= captured
            results.append(None if result is None else result != condition.inverse)
        if not results:
            return True, {}
        decisive = not rule.match_all
        if decisive in results:
            return decisive, variables
        return (None if None in results else not decisive), variables

    def _test(self, condition: Condition, walk: _Walk) -> tuple[bool | None, dict[str, str]]:
        if condition.kind == "ip":
            return self._test_source(condition, walk.request.source_ip), {}
        texts = _texts(condition, walk)
        if texts is None:
            return None, {}
        for text in texts:
            result, captured = _match_text(condition, text)
            if result is not False:
                return result, captured
        return False, {}

    def _test_source(self, condition: Condition, address: str | None) -> bool | None:
        if condition.name:
            return self._in_group(address, condition.name)
        if address is None:
            return None
        version, low, high = parse_range(condition.value)
        ip = _ip(address)
        return ip.version == version and low <= int(ip) <= high

    def _apply(self, rule: LbRule, walk: _Walk) -> tuple[_Walk, bool]:
        final = False
        for action in rule.actions:
            value = {key: _expand(text, walk.variables) for key, text in action.values.items()}
            request = walk.request
            final = final or action.kind in FINAL
            if action.kind == "select_pool":
                walk = replace(walk, pool=value.get("pool_path") or value.get("pool_id", ""))
            elif action.kind == "http_redirect":
                status = int(value.get("redirect_status", "302"))
                answer = Decision(Outcome.REDIRECT, status=status, location=value.get("redirect_url", ""))
                walk = replace(walk, answer=replace(answer, source=action.where))
            elif action.kind == "http_reject":
                answer = Decision(Outcome.REJECT, status=int(value.get("reply_status", "403")), source=action.where)
                walk = replace(walk, answer=answer)
            elif action.kind == "connection_drop":
                walk = replace(walk, answer=Decision(Outcome.DROP, source=action.where))
            elif action.kind == "jwt_auth":
                answer = Decision(Outcome.UNDECIDED, explain=("whether the token is valid is not known here",))
                walk = replace(walk, answer=replace(answer, source=action.where))
            elif action.kind == "uri_rewrite":
                query = value.get("uri_arguments", request.path.partition("?")[2])
                path = value.get("uri", request.path.partition("?")[0])
                walk = replace(walk, request=replace(request, path=path + (f"?{query}" if query else "")))
            elif action.kind in ("header_rewrite", "header_delete"):
                name = value.get("header_name", "")
                kept = tuple((k, v) for k, v in request.headers if k.lower() != name.lower())
                added = ((name, value.get("header_value", "")),) if action.kind == "header_rewrite" else ()
                walk = replace(walk, request=replace(request, headers=kept + added))
            elif action.kind == "variable_assignment":
                name = value.get("variable_name", "")
                walk = replace(walk, variables={**walk.variables, name: value.get("variable_value", "")})
            elif action.kind == "persistence_on":
                key = walk.variables.get(action.values.get("variable_name", ""), "")
                if key:
                    walk = replace(walk, persistence=(key, action.values.get("persistence_profile_path", "")))
        return walk, final

    # Pools

    def _from_pools(self, server: VirtualServer, walk: _Walk, state: LbState, time: float) -> Decision:
        steps = list(walk.steps)
        for path in (walk.pool, server.sorry_pool):
            if not path:
                continue
            if path not in self.objects.pools:
                raise BalanceError(f"{server.where}: {server.path} refers to {path}, which is not defined")
            pool = self.objects.pools[path]
            steps.append(f"pool {pool.path} ({pool.where})")
            decision = self._from_pool(server, pool, walk, state, time)
            if decision.outcome is not Outcome.NO_ENDPOINT:
                return replace(decision, explain=(*steps, *decision.explain))
            steps += decision.explain
        profile = self.objects.profiles.get(server.profile)
        status = 503 if profile is not None and profile.kind == "http" else None
        return Decision(Outcome.NO_ENDPOINT, status=status, explain=tuple(steps), source=server.where)

    def _from_pool(self, server: VirtualServer, pool: Pool, walk: _Walk, state: LbState, time: float) -> Decision:
        table, key, profile = self._persistence(server, pool, walk)
        member, persistence, class_, note = None, "none", "replay", ""
        if profile is not None and key:
            entries = state.tables.setdefault(table, {})
            entry = entries.get(key)
            if profile.kind == "cookie":
                known = entry[0] if entry is not None else _named_by_cookie(pool, key, profile)
                if known is None and profile.cookie_garble:
                    text = f"cookie {profile.cookie_name} hides its server and is not in the table"
                    return Decision(Outcome.UNDECIDED, explain=(text,))
                member = None if known is None else _persistent(pool, known, state)
            elif entry is not None and time - entry[1] <= profile.timeout:
                member = _persistent(pool, entry[0], state)
            if member is not None:
                persistence = "hit"
            elif profile.kind == "cookie" and not profile.cookie_fallback:
                return Decision(
                    Outcome.REJECT, status=503, explain=("the cookie's server cannot be used, no fallback",)
                )
        if member is None:
            usable = usable_members(pool, state)
            if not usable:
                return Decision(Outcome.NO_ENDPOINT, explain=("no usable member",))
            member, class_, note = self._choose(pool, usable, walk.request, state)
            persistence = "new" if profile is not None and (key or profile.kind == "cookie") else "none"
        # A cookie carries its own record; the table holds only the hidden ones that the caller knows.
        if profile is not None and key and profile.kind != "cookie":
            _remember(state.tables.setdefault(table, {}), key, member.name, time, profile)
        app = self.objects.profiles.get(server.profile)
        port = member.port or _member_port(server, walk.request.destination_port or 0)
        host = Host(member.address, port, member.weight)
        notes = [f"member {member.name}, {pool.algorithm}"] + ([note] if note else [])
        return Decision(
            Outcome.ENDPOINT,
            ((host, Fraction(1)),),
            pool.path,
            class_,
            snat=Snat(pool.snat, pool.snat_addresses, app.x_forwarded_for if app else ""),
            persistence=persistence,
            explain=tuple(notes),
            source=pool.where,
        )

    def _persistence(
        self, server: VirtualServer, pool: Pool, walk: _Walk
    ) -> tuple[str, str, PersistenceProfile | None]:
        """(table, key, profile): of a rule before the virtual server's profile. An empty key has no entry."""
        path = walk.persistence[1] if walk.persistence else server.persistence
        if not path:
            return "", "", None
        if path not in self.objects.persistence:
            raise BalanceError(f"{server.where}: {server.path} refers to {path}, which is not defined")
        profile = self.objects.persistence[path]
        owner = profile.path if profile.shared else f"{profile.path} {server.path}"
        table = f"{owner} {pool.path}"
        if walk.persistence:
            return table, walk.persistence[0], profile
        if profile.kind == "source_ip":
            return table, walk.request.source_ip or "", profile
        if profile.kind == "cookie":
            return table, cookie_value(walk.request, profile.cookie_name) or "", profile
        return table, "", profile

    def _choose(
        self, pool: Pool, usable: Sequence[Member], request: Request, state: LbState
    ) -> tuple[Member, str, str]:
        """(member, class of the answer, note)."""
        busy = [state.active[pool.path, member.name] for member in usable]
        if pool.algorithm == "ROUND_ROBIN":
            order = {member.name: i for i, member in enumerate(pool.members)}
            last = state.last.get(pool.path, -1)
            chosen = min(usable, key=lambda m: (order[m.name] - last - 1) % len(pool.members))
            state.last[pool.path] = order[chosen.name]
            return chosen, "replay", ""
        if pool.algorithm == "WEIGHTED_ROUND_ROBIN":
            current = state.current.setdefault(pool.path, {})
            for member in usable:
                current[member.name] = current.get(member.name, 0) + member.weight
            chosen = max(usable, key=lambda m: current[m.name])
            current[chosen.name] -= sum(member.weight for member in usable)
            return chosen, "replay", "smooth variant"
        if pool.algorithm == "LEAST_CONNECTION":
            return usable[busy.index(min(busy))], "replay", ""
        if pool.algorithm == "WEIGHTED_LEAST_CONNECTION":
            loads = [Fraction(count, member.weight) for count, member in zip(busy, usable, strict=True)]
            return usable[loads.index(min(loads))], "replay", ""
        if request.source_ip is None:
            raise BalanceError("IP_HASH needs source_ip")
        table = _core.cumulative_table([member.weight for member in usable])
        address = _ip(request.source_ip).packed
        return usable[HashBalancer((), table).pick(hash_key(address))], "distribution", "hash: assumed"


def usable_members(pool: Pool, state: LbState) -> list[Member]:
    """Members that a new connection may get. Backups join while fewer than ``min_active_members`` others are usable."""
    able = [
        member
        for member in pool.members
        if member.admin == "ENABLED"
        and (pool.path, member.name) not in state.down
        and (member.limit is None or state.active[pool.path, member.name] < member.limit)
    ]
    first = [member for member in able if not member.backup]
    return first if len(first) >= pool.min_active else able


def from_nsx(paths: Iterable[str | os.PathLike[str]], groups: Mapping[str, Iterable[str]] | None = None) -> NsxBalancer:
    """The load balancers of Policy API exports: files, folders, or "-".

    groups   addresses, prefixes or ranges of groups that are not plain addresses themselves, by path
    raises   PolicyError with file:line:column and the object
    """
    return NsxBalancer(read_objects([read_source(path) for path in find_files(paths)], groups))


def lint(objects: LbObjects) -> list[Diagnostic]:
    """Mistakes that can be seen without traffic."""
    return [*_lint_servers(objects), *_lint_pools(objects)]


def _lint_servers(objects: LbObjects) -> Iterator[Diagnostic]:
    claimed: dict[tuple[str, int], str] = {}
    for server in objects.servers.values():
        if not server.pool and not server.rules:
            yield Diagnostic("no-pool", "neither a pool nor a rule", server.where, server.path)
        profile = objects.profiles.get(server.profile)
        if server.rules and (profile is None or profile.kind != "http"):
            yield Diagnostic("l7-rule-in-l4", "rules are not run in an L4 virtual server", server.where, server.path)
        for low, high in server.ports if server.enabled else ():
            for port in range(low, high + 1):
                other = claimed.setdefault((server.address, port), server.path)
                if other != server.path:
                    text = f"{server.address}:{port} is also {other}'s"
                    yield Diagnostic("address-taken-twice", text, server.where, server.path)
                    break
        yield from _lint_rules(server)


def _lint_rules(server: VirtualServer) -> Iterator[Diagnostic]:
    closed: dict[str, str] = {}
    for rule in server.rules:
        if rule.phase in closed:
            text = f"never reached: {closed[rule.phase]} matches everything before it"
            yield Diagnostic("unreachable-rule", text, rule.where, rule.name)
        ends = any(action.kind in FINAL for action in rule.actions)
        if not rule.conditions and ends and rule.phase not in REWRITE_PHASES:
            closed.setdefault(rule.phase, rule.name)
        for condition in rule.conditions:
            if condition.match_type != "REGEX" or condition.kind == "ssl":
                continue
            if condition.value and not set(condition.value) & set("\\^$.|?*+()[]{}"):
                text = f"'{condition.value}' is a pattern that matches anywhere in the text"
                hint = "say STARTS_WITH, EQUALS or CONTAINS"
                yield Diagnostic("unanchored-regex", text, condition.where, rule.name, hint)
            elif _regex(condition.value, condition.case_sensitive) is None:
                text = f"'{condition.value}' needs more than linear time (back-references, look-around); it is unknown"
                yield Diagnostic("regex-unsupported", text, condition.where, rule.name)


def _lint_pools(objects: LbObjects) -> Iterator[Diagnostic]:
    for pool in objects.pools.values():
        if pool.min_active > len(pool.members):
            text = f"min_active_members {pool.min_active} is above its {len(pool.members)} members"
            yield Diagnostic("min-active-too-high", text, pool.where, pool.path)
        if pool.weighted and pool.algorithm in ("ROUND_ROBIN", "LEAST_CONNECTION"):
            yield Diagnostic("weight-ignored", f"{pool.algorithm} ignores weights", pool.where, pool.path)
    for server in objects.servers.values():
        main = objects.pools.get(server.pool)
        if main is not None and not server.sorry_pool and not usable_members(main, LbState()):
            text = f"pool {main.path} has no usable member, and there is no sorry pool"
            yield Diagnostic("nobody-to-serve", text, server.where, server.path)


def _named_by_cookie(pool: Pool, value: str, profile: PersistenceProfile) -> str | None:
    """The member that an open cookie value names: ``address:port``, in PREFIX mode at its beginning."""
    for member in pool.members:
        text = f"{member.address}:{member.port}" if member.port else member.address
        if value == text or (profile.cookie_mode == "PREFIX" and value.startswith(text)):
            return member.name
    return None


def _persistent(pool: Pool, name: str, state: LbState) -> Member | None:
    """The member of a persistence entry, unless it is down or disabled; one that is being drained still serves."""
    for member in pool.members:
        if member.name == name:
            return None if member.admin == "DISABLED" or (pool.path, name) in state.down else member
    return None


def _remember(
    entries: dict[str, tuple[str, float]], key: str, member: str, time: float, profile: PersistenceProfile
) -> None:
    if key not in entries and len(entries) >= TABLE_LIMIT:
        if not profile.purge:
            return
        del entries[min(entries, key=lambda k: entries[k][1])]
    entries[key] = (member, time)


def _member_port(server: VirtualServer, port: int) -> int:
    """default_pool_member_ports: one port for all, or ranges parallel to ports; else the port that the client used."""
    if not server.member_ports:
        return port
    if len(server.member_ports) == 1 and server.member_ports[0][0] == server.member_ports[0][1]:
        return server.member_ports[0][0]
    for (low, high), (member_low, member_high) in zip(server.ports, server.member_ports, strict=False):
        if low <= port <= high:
            return min(member_low + port - low, member_high)
    return port


def _texts(condition: Condition, walk: _Walk) -> list[str] | None:
    """What a condition looks at; None if it is not known here."""
    request = walk.request
    path, _, query = request.path.partition("?")
    if condition.kind == "method":
        return [request.method]
    if condition.kind == "uri":
        return [path]
    if condition.kind == "uri_arguments":
        return [query]
    if condition.kind == "header":
        return request.header(condition.name)
    if condition.kind == "cookie":
        value = cookie_value(request, condition.name)
        return [] if value is None else [value]
    if condition.kind == "sni":
        return [] if request.sni is None else [request.sni]
    if condition.kind == "variable":
        return [walk.variables[condition.name]] if condition.name in walk.variables else []
    if condition.kind == "tcp":
        return None if request.source_port is None else [str(request.source_port)]
    return None  # version, body, ssl, response headers: a request as data does not carry them


def _match_text(condition: Condition, text: str) -> tuple[bool | None, dict[str, str]]:
    if condition.match_type == "REGEX":
        compiled = _regex(condition.value, condition.case_sensitive)
        if compiled is None:
            return None, {}
        regex, names = compiled
        groups = regex.groups(text.encode("utf-8", "surrogateescape"))
        found = {name: groups[i].decode("utf-8", "surrogateescape") for name, i in names.items()} if groups else {}
        return bool(groups), found
    have, want = (text, condition.value) if condition.case_sensitive else (text.lower(), condition.value.lower())
    if condition.match_type == "STARTS_WITH":
        return have.startswith(want), {}
    if condition.match_type == "ENDS_WITH":
        return have.endswith(want), {}
    return (want in have if condition.match_type == "CONTAINS" else have == want), {}


@lru_cache(maxsize=4096)
def _regex(pattern: str, case_sensitive: bool) -> tuple[_core.Regex, dict[str, int]] | None:
    """The pattern as one that must match the whole text, and its named groups; None if RE2 refuses it."""
    spelled = pattern.replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!")
    flags = "(?s)" if case_sensitive else "(?si)"
    try:
        regex = _core.Regex(f"{flags}.*?(?:{spelled}).*".encode())
    except ModelError:
        return None
    return regex, _named_groups(spelled)


def _named_groups(pattern: str) -> dict[str, int]:
    """Name -> number of every named group: capturing parentheses are counted outside of classes and escapes."""
    names, number, i, in_class = {}, 0, 0, False
    while i < len(pattern):
        if pattern[i] == "\\":
            i += 2
            continue
        if in_class:
            in_class = pattern[i] != "]"
        elif pattern[i] == "[":
            in_class = True
            if pattern[i + 1 : i + 2] == "]":
                i += 1
        elif pattern[i] == "(":
            if pattern[i + 1 : i + 2] != "?":
                number += 1
            elif pattern[i + 1 : i + 4] == "?P<":
                number += 1
                names[pattern[i + 4 : pattern.index(">", i)]] = number
        i += 1
    return names


def _expand(text: str, variables: Mapping[str, str]) -> str:
    """$name replaced by the variable's value; the longest name wins; unknown ones stay."""
    for name in sorted(variables, key=len, reverse=True):
        text = text.replace(f"${name}", variables[name])
    return text


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise BalanceError(f"source_ip: {error}") from None


def _host_without_port(authority: str) -> str:
    head, colon, tail = authority.rpartition(":")
    return head if colon and tail.isdigit() else authority
