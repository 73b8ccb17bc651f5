"""Compiled authorization tables against the linear reference: the same outcome, for one request and for batches."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshsieve.authz.compiled import CompiledChains
from meshsieve.authz.facts import Facts
from meshsieve.authz.generate import service_account_matcher
from meshsieve.authz.model import PEER, Action, Chain, Filter, Rule
from meshsieve.authz.model import Test as Clause
from meshsieve.authz.reference import Outcome, walk
from meshsieve.request import Request
from meshsieve.request_columns import RequestColumns
from meshsieve.routes.http_options import HttpOptions, Refusal, view
from tests.differential.authz_worlds import world

# Without the codec's refusals, so that odd bytes come through to the policies.
RAW = HttpOptions(codec=False)
BASE = HttpOptions(normalize_path=True)
OPTIONS = [RAW, BASE, HttpOptions(normalize_path=True, merge_slashes=True, codec=False)]


def reference(chain: Chain, request: Request, options: HttpOptions, proxies: int = 0) -> Outcome | Refusal:
    seen = None if chain.tcp else view(request, options)
    return seen if isinstance(seen, Refusal) else walk(chain, Facts(request, seen, trusted_proxies=proxies))


def check(chains: list[Chain], requests: list[Request], options: HttpOptions = RAW, proxies: int = 0) -> CompiledChains:
    """Every request to every chain, alone and in one batch of all."""
    table = CompiledChains(chains, options, proxies)
    columns = RequestColumns.of(requests)
    for i, chain in enumerate(chains):
        batch = table.batch(columns, chain=i)
        for row, request in enumerate(requests):
            wanted = reference(chain, request, options, proxies)
            assert table.walk(request, chain=i) == wanted, (chain, request)
            if isinstance(wanted, Refusal):
                assert batch.refused[row]
                assert not batch.allowed[row]
                continue
            rule = wanted.pending[0][1] if wanted.allowed and wanted.pending else wanted.rule
            assert batch.allowed[row] == (wanted.allowed and not wanted.pending), (chain, request)
            assert (table.rules[batch.rule[row]] if batch.rule[row] >= 0 else None) == rule, (chain, request)
            assert (table.rules[batch.audit[row]] if batch.audit[row] >= 0 else None) == wanted.audit_rule
    return table


@pytest.mark.parametrize("seed", range(30))
def test_random_chains_decide_as_the_reference_does(seed: int) -> None:
    w = world(seed)
    check([w.chain(tcp=w.chance(0.2)) for _ in range(4)], [w.request() for _ in range(40)], OPTIONS[seed % 3], seed % 3)


@pytest.mark.parametrize("seed", range(6))
def test_clauses_of_python_are_asked_and_counted(seed: int) -> None:
    w = world(1000 + seed, opaque=True)
    table = check([w.chain() for _ in range(4)], [w.request() for _ in range(40)])
    assert table.stats["opaque"] > 0


@pytest.mark.parametrize("seed", range(3))
def test_many_common_rules_go_to_bitmaps(seed: int) -> None:
    w = world(2000 + seed, depth=1)
    table = check([w.chain(rules=600)], [w.request() for _ in range(60)])
    assert table.stats["rules"] < 128 or table.stats["in_bitmaps"] > 0


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), rules=st.integers(1, 40), tcp=st.booleans())
def test_any_seed(seed: int, rules: int, tcp: bool) -> None:
    w = world(seed)
    check([w.chain(rules, tcp)], [w.request() for _ in range(10)])


@settings(max_examples=60, deadline=None)
@given(
    principal=st.one_of(
        st.none(),
        st.lists(st.sampled_from(["ns", "sa", "prod", "dev", "td", "", "a", "p\n"]), max_size=9).map("/".join),
    ),
    path=st.text(st.sampled_from("/abv1.%2f[]{}*?;\\"), max_size=12).map(lambda t: "/" + t),
    seed=st.integers(0, 50),
)
def test_odd_identities_and_paths(principal: str | None, path: str, seed: int) -> None:
    w = world(seed)
    check([w.chain(30)], [Request(principal=principal, path=path)])


@pytest.mark.parametrize("tail", ["", "/", "/x", "x", "/sa/b", "//sa/b"])
def test_identities_of_very_many_segments(tail: str) -> None:
    """More pairs of namespace and account than are looked up one by one."""
    matchers = (service_account_matcher(f"{ns}/{sa}", "x") for ns in ("a", "b", "n1", "zz") for sa in ("a", "b", "s1"))
    rules = tuple(Rule(f"r{i:02}", ((Clause(PEER, (m,)),),)) for i, m in enumerate(matchers))
    chains = [Chain((Filter(Action.ALLOW, (rule,)),)) for rule in rules]
    many = "/".join(f"ns/n{i}/sa/s{i}" for i in range(30))
    identities = [f"td/{many}{tail}", f"td/ns/a/{many}{tail}", f"td/{many}/ns/b{tail}", f"td/{many}/ns/zz//sa/a{tail}"]
    check(chains, [Request(principal=identity) for identity in identities])


def test_hostile_texts_cost_linear_time() -> None:
    """Quadratic work on these would take hours."""
    w = world(21)
    table = CompiledChains([w.chain(60) for _ in range(3)], RAW)
    n = 400_000
    for principal in ("/ns/a/sa/a" * n, "/" * n, "td/ns/" + "a" * n, "ns/" * n, "td/ns/a" + "/sa/b" * n):
        table.walk(Request(principal=principal), chain=0)
    for path in ("/" * n, "/a" * n, "/" + "a" * n, "/%2f" * n, "/{*}" * n):
        table.walk(Request(path=path, authority=path, headers=(("x-a", path),) * 3), chain=1)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 4095, 4096, 10_000])
def test_batches_of_every_size_and_number_of_threads_are_equal(n: int, threads: int) -> None:
    w = world(7)
    chains = [w.chain(), w.chain(tcp=True)]
    table = CompiledChains(chains, RAW)
    some = [w.request() for _ in range(50)]
    requests = [some[i % 50] for i in range(n)]
    which = np.arange(n, dtype=np.uint32) % 2 if n > 1 else 0
    got = table.batch(requests, chain=which, threads=threads)
    one = [table.batch(some, chain=c) for c in (0, 1)]
    for name in ("allowed", "rule", "audit", "pending", "refused"):
        wanted = [getattr(one[i % 2 if n > 1 else 0], name)[i % 50] for i in range(n)]
        assert getattr(got, name).tolist() == wanted


def test_columns_decide_as_requests_do() -> None:
    w = world(11, opaque=True)
    table = CompiledChains([w.chain(30)], RAW)
    requests = [w.request() for _ in range(200)]
    names = ("method", "authority", "path", "principal", "sni", "source_ip", "destination_ip", "remote_ip",
             "destination_port", "claims", "dynamic_metadata", "headers")  # fmt: skip
    columns = {name: [getattr(r, name) for r in requests] for name in names}
    assert table.batch(columns).rule.tolist() == table.batch(requests).rule.tolist()


def test_quick_calls_decide_as_whole_ones_do() -> None:
    w = world(12, opaque=True)
    table = CompiledChains([w.chain(30) for _ in range(5)], RAW)
    for _ in range(200):
        r = w.request()
        plain = Request(r.method, authority=r.authority, path=r.path, headers=r.headers, principal=r.principal,
                        source_ip=r.source_ip, destination_port=r.destination_port, claims=r.claims)  # fmt: skip
        for i in range(5):
            wanted = table.walk(plain, chain=i)
            got = table.check(plain.method, plain.path, plain.authority, plain.principal, plain.source_ip,
                              plain.destination_port, headers=plain.headers, request=plain, chain=i)  # fmt: skip
            assert isinstance(wanted, Outcome)
            waits = wanted.allowed and bool(wanted.pending)
            assert got == (wanted.allowed and not waits, wanted.pending[0][1] if waits else wanted.rule)


def test_chains_that_share_rules_share_their_memory() -> None:
    w = world(13)
    whole = w.filter_of_allow(400)
    one = CompiledChains([Chain((whole,))], RAW).stats
    many = CompiledChains([Chain((w.subset(whole, i),)) for i in range(50)], RAW).stats
    assert many["rules"] <= one["rules"]
    assert many["bytes"] < 3 * one["bytes"]


def test_chains_are_replaced_in_one_step() -> None:
    """While one thread replaces, every batch is answered wholly by the old or wholly by the new chains."""
    w = world(14)
    worlds = [[w.chain(20)], [w.chain(20)]]
    requests = RequestColumns.of([w.request() for _ in range(300)])
    wanted = [CompiledChains(chains, RAW).batch(requests).rule.tolist() for chains in worlds]
    assert wanted[0] != wanted[1]
    table = CompiledChains(worlds[0], RAW)
    stop = threading.Event()

    def replace() -> None:
        for i in range(10_000):
            table.replace(worlds[i % 2])
            if stop.is_set():
                return

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(200):
            assert table.batch(requests, threads=2).rule.tolist() in wanted
    finally:
        stop.set()
        thread.join()
