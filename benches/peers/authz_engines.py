"""Authorization engines under test: ``python -m benches.peers.authz_engines LIBRARY WAY FOLDER``.

LIBRARY  ours; plain_loop (the policies one by one in Python); cedarpy, casbin, oso, vakt: each given the policies in
         its own words, prepared as its documentation advises for speed
WAY      build  everything from policies that are Python objects; a pass is one build
         batch  many calls at once: ours from columns, cedarpy by is_authorized_batch, others by a loop
         one    one Python call a request
"""

from __future__ import annotations

import importlib
import ipaddress
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benches import authz_policies as written
from benches import data
from benches.authz_policies import Call, Policy
from benches.peers.serve import Answers, headers_a_pass, timed_passes

Decide = Callable[[int], Sequence[Any]]  # whether each of the first n calls is allowed
Made = tuple[Callable[[], Any], Callable[[Any], Decide]]


def main() -> None:
    answers = Answers()
    library, way, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    facts = data.about(folder)
    policies = written.policies(facts["family"], facts["rules"], facts["seed"])
    calls = written.calls(policies, facts["calls"])
    expected = data.load_expected(folder)
    try:
        build, decider = LIBRARIES[library](policies, calls, way)
    except ImportError as error:
        answers.give_up(str(error))
    start = time.process_time()
    made = build()
    facts = {"build_s": round(time.process_time() - start, 6), **about(made)}
    if way == "build":
        count, work = 1, build
    else:
        decide = decider(made)
        count = headers_a_pass(decide, len(calls), probe=16)

        def work() -> object:
            return decide(count)

    def wrong(_: int) -> dict[str, Any]:
        checked = min(len(calls), max(count, 1), int((expected >= 0).sum())) if way != "build" else 0
        got = np.array([bool(a) for a in decider(made)(checked)], np.int32)
        return {"wrong": int((got != expected[:checked]).sum()), "checked": checked}

    answers.say({**facts, "headers": count})
    answers.serve({"pass": lambda passes: timed_passes(work, passes, count), "wrong": wrong})


def about(made: Any) -> dict[str, Any]:
    stats = getattr(made, "stats", None)
    return {"bytes": stats["bytes"], "stats": stats} if isinstance(stats, dict) else {}


def _ours(policies: list[Policy], calls: list[Call], way: str) -> Made:
    compiled = importlib.import_module("meshsieve.authz.compiled")
    columns = importlib.import_module("meshsieve.request_columns").RequestColumns
    request = importlib.import_module("meshsieve.request").Request
    options = importlib.import_module("meshsieve.routes.http_options").HttpOptions
    chain = written.chain(policies)

    def decider(table: Any) -> Decide:
        if way == "one":
            claims = {group: request(claims={"groups": [group]}) for group in written.GROUPS}
            rows = [((c.method, c.path, "", c.principal, c.source_ip), claims[c.group]) for c in calls]
            check = table.check
            return lambda n: [check(*row, request=of)[0] for row, of in rows[:n]]
        by_size: dict[int, Any] = {}

        def decide(n: int) -> Sequence[Any]:
            if n not in by_size:
                by_size[n] = columns.of(written.columns(calls[:n]))
            answer: Sequence[Any] = table.batch(by_size[n]).allowed
            return answer

        return decide

    return lambda: compiled.CompiledChains([chain], options(normalize_path=True)), decider


def _plain_loop(policies: list[Policy], calls: list[Call], way: str) -> Made:
    return lambda: policies, lambda made: lambda n: [written.allowed(made, call) for call in calls[:n]]


def _cedarpy(policies: list[Policy], calls: list[Call], way: str) -> Made:
    cedar = importlib.import_module("cedarpy")
    requests = [
        {
            "principal": f'User::"{c.principal}"',
            "action": f'Action::"{c.method}"',
            "resource": 'Path::"any"',
            "context": {
                "id": c.principal,
                "path": c.path,
                "ip": {"__extn": {"fn": "ip", "arg": c.source_ip}},
                "group": c.group,
            },
        }
        for c in calls
    ]

    def build() -> Any:
        text = "\n".join(map(_cedar_policy, policies))
        return cedar.PolicySet.from_str(text), cedar.Entities.from_json_str("[]")

    def decider(made: Any) -> Decide:
        if way == "one":
            return lambda n: [cedar.is_authorized(r, *made).allowed for r in requests[:n]]
        return lambda n: [a.allowed for a in cedar.is_authorized_batch(requests[:n], *made)]

    return build, decider


def _cedar_policy(policy: Policy) -> str:
    kind, values = policy.identity
    head = "principal"
    tests = []
    if kind == "exact" and len(values) == 1:
        head = f'principal == User::"{values[0]}"'
    elif kind == "exact":
        tests.append(f"[{', '.join(map(json.dumps, values))}].contains(context.id)")
    elif kind == "prefix":
        tests.append(f'context.id like "{values[0]}*"')
    elif kind == "namespace":
        tests.append(f'context.id like "*/ns/{values[0]}/*"')
    shape, text = policy.path
    if shape == "exact":
        tests.append(f"context.path == {json.dumps(text)}")
    elif shape != "any":
        like = {"prefix": f"{text}*", "suffix": f"*{text}", "template": text.replace("{*}", "*")}[shape]
        tests.append(f"context.path like {json.dumps(like)}")
    if policy.network:
        tests.append(f'context.ip.isInRange(ip("{policy.network}"))')
    if policy.group:
        tests.append(f"context.group == {json.dumps(policy.group)}")
    actions = ", ".join(f'Action::"{m}"' for m in policy.methods)
    effect = "forbid" if policy.deny else "permit"
    return f"{effect}({head}, action in [{actions}], resource) when {{ {' && '.join(tests) or 'true'} }};"


CASBIN_MODEL = """
[request_definition]
r = sub, act, obj, ip, group
[policy_definition]
p = kind, sub, act, shape, obj, net, group, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = how(r.act, p.act) && who(r.sub, p.kind, p.sub) && at(r.obj, p.shape, p.obj) && rest(r.ip, p.net, r.group, p.group)
"""


def _casbin(policies: list[Policy], calls: list[Call], way: str) -> Made:
    casbin = importlib.import_module("casbin")

    def build() -> Any:
        model = casbin.Model()
        model.load_model_from_text(CASBIN_MODEL)
        made = casbin.Enforcer(model)
        sets: dict[str, frozenset[str]] = {}

        def of(text: str) -> frozenset[str]:
            if text not in sets:
                sets[text] = frozenset(text.split("|"))
            return sets[text]

        made.add_function("who", lambda s, kind, values: _identity(s, kind, of(values)))
        made.add_function("how", lambda act, values: act in of(values))
        made.add_function("at", _path)
        made.add_function("rest", _rest)
        rows = [
            [
                p.identity[0],
                "|".join(p.identity[1]),
                "|".join(p.methods),
                p.path[0],
                p.path[1],
                p.network,
                p.group,
                "deny" if p.deny else "allow",
            ]
            for p in policies
        ]
        made.add_policies(rows)
        return made

    def decider(made: Any) -> Decide:
        rows = [(c.principal, c.method, c.path, c.source_ip, c.group) for c in calls]
        return lambda n: [made.enforce(*row) for row in rows[:n]]

    return build, decider


_NETWORKS: dict[str, Any] = {}


def _identity(principal: str, kind: str, values: Any) -> bool:
    match kind:
        case "exact":
            return principal in values
        case "prefix":
            return any(map(principal.startswith, values))
        case "namespace":
            return principal.split("/")[2] in values
        case _:
            return True


def _path(path: str, shape: str, text: str) -> bool:
    match shape:
        case "exact":
            return path == text
        case "prefix":
            return path.startswith(text)
        case "suffix":
            return path.endswith(text)
        case "template":
            before, _, after = text.partition("{*}")
            middle = path[len(before) : len(path) - len(after)]
            return path.startswith(before) and path.endswith(after) and bool(middle) and "/" not in middle
        case _:
            return True


def _rest(ip: str, network: str, group: str, wanted: str) -> bool:
    if wanted and group != wanted:
        return False
    if not network:
        return True
    if network not in _NETWORKS:
        _NETWORKS[network] = ipaddress.ip_network(network, strict=False)
    return ipaddress.ip_address(ip) in _NETWORKS[network]


def _oso(policies: list[Policy], calls: list[Call], way: str) -> Made:
    oso = importlib.import_module("oso")

    class Test:
        """What Polar has no words for."""

        @staticmethod
        def path(path: str, shape: str, text: str) -> bool:
            return _path(path, shape, text)

        @staticmethod
        def identity(principal: str, kind: str, value: str) -> bool:
            return _identity(principal, kind, (value,))

        @staticmethod
        def rest(ip: str, network: str, group: str, wanted: str) -> bool:
            return _rest(ip, network, group, wanted)

    def build() -> Any:
        made = oso.Oso()
        made.register_class(Test)
        made.load_str("\n".join(line for policy in policies for line in _polar(policy)) + '\ndeny("", "", "", "", "");')
        return made

    def decider(made: Any) -> Decide:
        rows = [(c.principal, c.method, c.path, c.source_ip, c.group) for c in calls]

        def decide(row: tuple[str, ...]) -> bool:
            if next(iter(made.query_rule("deny", *row)), None) is not None:
                return False
            return next(iter(made.query_rule("permit", *row)), None) is not None

        return lambda n: [decide(row) for row in rows[:n]]

    return build, decider


def _polar(policy: Policy) -> list[str]:
    """One rule a principal, as a literal of its head where there is one: the engine indexes heads."""
    kind, values = policy.identity
    name = "deny" if policy.deny else "permit"
    methods = " or ".join(f"m = {json.dumps(m)}" for m in policy.methods)
    shape, text = policy.path
    lines = []
    for value in values or ("",):
        head = json.dumps(value) if kind == "exact" else "who"
        tests = [f"({methods})"]
        where = "path"
        if shape == "exact":
            where = json.dumps(text)
        elif shape != "any":
            tests.append(f"Test.path(path, {json.dumps(shape)}, {json.dumps(text)})")
        if kind not in ("exact", "any"):
            tests.append(f"Test.identity(who, {json.dumps(kind)}, {json.dumps(value)})")
        if policy.network or policy.group:
            tests.append(f"Test.rest(ip, {json.dumps(policy.network)}, group, {json.dumps(policy.group)})")
        arguments = ", ".join(
            (
                head if head != "who" or any("who" in t for t in tests) else "_who",
                "m",
                where if where != "path" or any("(path" in t for t in tests) else "_path",
                "ip" if policy.network or policy.group else "_ip",
                "group" if policy.network or policy.group else "_group",
            )
        )
        lines.append(f"{name}({arguments}) if {' and '.join(tests)};")
    return lines


def _vakt(policies: list[Policy], calls: list[Call], way: str) -> Made:
    vakt = importlib.import_module("vakt")
    rules = importlib.import_module("vakt.rules")

    def subject(policy: Policy) -> list[Any]:
        kind, values = policy.identity
        if kind == "any":
            return [rules.Any()]
        if kind == "namespace":
            return [rules.Contains(f"/ns/{v}/") for v in values]
        return [(rules.Eq if kind == "exact" else rules.StartsWith)(v) for v in values]

    def resource(shape: str, text: str) -> Any:
        match shape:
            case "exact":
                return rules.Eq(text)
            case "prefix":
                return rules.StartsWith(text)
            case "suffix":
                return rules.EndsWith(text)
            case "template":
                return rules.RegexMatch("^" + text.replace("{*}", "[^/]+") + "$")
            case _:
                return rules.Any()

    def build() -> Any:
        storage = vakt.MemoryStorage()
        for policy in policies:
            context = {}
            if policy.network:
                context["ip"] = rules.CIDR(str(ipaddress.ip_network(policy.network, strict=False)))
            if policy.group:
                context["group"] = rules.Eq(policy.group)
            made = vakt.Policy(
                policy.name,
                actions=[rules.In(*policy.methods)],
                resources=[resource(*policy.path)],
                subjects=subject(policy),
                effect=vakt.DENY_ACCESS if policy.deny else vakt.ALLOW_ACCESS,
                context=context,
            )
            storage.add(made)
        return vakt.Guard(storage, vakt.RulesChecker())

    def decider(guard: Any) -> Decide:
        inquiries = [
            vakt.Inquiry(
                action=c.method, resource=c.path, subject=c.principal, context={"ip": c.source_ip, "group": c.group}
            )
            for c in calls
        ]
        return lambda n: [guard.is_allowed(i) for i in inquiries[:n]]

    return build, decider


LIBRARIES: dict[str, Callable[[list[Policy], list[Call], str], Made]] = {
    "ours": _ours,
    "plain_loop": _plain_loop,
    "cedarpy": _cedarpy,
    "casbin": _casbin,
    "oso": _oso,
    "vakt": _vakt,
}

if __name__ == "__main__":
    main()
