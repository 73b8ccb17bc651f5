"""Ejection, breakers and retries: decisions over replayed events, one table a rule."""

from __future__ import annotations

import pytest

from meshsieve.balance import Maglev
from meshsieve.balance.limits import Call, CircuitBreaker, RetryPolicy, retry_host, what_if
from meshsieve.balance.observed import chi_square_p, split_check, wilson
from meshsieve.balance.outlier import (
    Ejection,
    FailurePercentage,
    OutlierDetector,
    OutlierPolicy,
    Response,
    SuccessRate,
)
from meshsieve.errors import BalanceError


def responses(host: int, *statuses: int | None, start: float = 0.0, step: float = 0.1) -> list[Response]:
    return [Response(start + i * step, host, status) for i, status in enumerate(statuses)]


HALF = OutlierPolicy(max_ejection_percent=50)
GATEWAY = OutlierPolicy(consecutive_5xx=0, consecutive_gateway=3, max_ejection_percent=50)
SPLIT = OutlierPolicy(split_origins=True, consecutive_local_origin=2, max_ejection_percent=50)

EJECTED = [
    #  what it shows                                    policy, hosts, responses of host 0, why it is out
    ("five 5xx in a row", HALF, 2, (500,) * 5, "consecutive_5xx"),
    ("four are not enough", HALF, 2, (500,) * 4, None),
    ("a success starts the count anew", HALF, 2, (500, 500, 500, 500, 200, 500), None),
    ("4xx is a success", HALF, 2, (500, 500, 500, 500, 404, 500), None),
    ("a lost connection counts as 5xx", HALF, 2, (500, 500, None, 500, 500), "consecutive_5xx"),
    ("0 switches the rule off", OutlierPolicy(consecutive_5xx=0, max_ejection_percent=50), 2, (500,) * 99, None),
    ("three gateway errors", GATEWAY, 2, (502, 503, 504), "consecutive_gateway"),
    ("another 5xx starts gateway errors anew", GATEWAY, 2, (502, 503, 500, 504), None),
    ("split: local failures have an own count", SPLIT, 2, (None, None), "consecutive_local_origin"),
    ("split: local failures are no 5xx", SPLIT, 2, (500, 500, 500, 500, None), None),
    ("split: an answer resets local failures", SPLIT, 2, (None, 200, None), None),
    ("10 percent of 9 hosts is nobody", OutlierPolicy(), 9, (500,) * 99, None),
    ("10 percent of 10 hosts is one", OutlierPolicy(), 10, (500,) * 5, "consecutive_5xx"),
    ("always eject one", OutlierPolicy(always_eject_one=True), 3, (500,) * 5, "consecutive_5xx"),
]


@pytest.mark.parametrize("case", EJECTED, ids=[case[0] for case in EJECTED])
def test_who_is_ejected(case: tuple[str, OutlierPolicy, int, tuple[int | None, ...], str | None]) -> None:
    _, policy, hosts, statuses, reason = case
    ejections = OutlierDetector(policy, hosts).replay(responses(0, *statuses, step=0.01))
    assert [e.reason for e in ejections] == ([] if reason is None else [reason])


def test_no_more_than_the_percentage_is_out_at_once() -> None:
    detector = OutlierDetector(OutlierPolicy(max_ejection_percent=50), hosts=4)
    for host in range(4):
        detector.replay(responses(host, *(500,) * 5, start=host))
    assert detector.ejected == {0, 1}


def test_a_host_returns_at_the_first_sweep_after_its_time() -> None:
    detector = OutlierDetector(HALF, hosts=2)
    detector.replay(responses(0, *(500,) * 5, start=1.0))  # out at 1.4 for 30 s
    detector.advance(39.9)
    assert detector.ejected == {0}
    detector.advance(40.0)
    assert detector.ejections == [Ejection(0, 1.4, 40.0, "consecutive_5xx")]


def test_each_ejection_lasts_longer_up_to_the_maximum() -> None:
    policy = OutlierPolicy(max_ejection_percent=50, interval=1, base_ejection_time=10, max_ejection_time=25)
    detector = OutlierDetector(policy, hosts=2)
    for start in (0.5, 11.5, 32.5, 58.5):  # each right after the return
        detector.replay(responses(0, *(500,) * 5, start=start, step=0))
    detector.advance(100)
    assert [(e.start, e.end) for e in detector.ejections] == [(0.5, 11), (11.5, 32), (32.5, 58), (58.5, 84)]


def test_every_sweep_without_an_ejection_forgets_one() -> None:
    policy = OutlierPolicy(max_ejection_percent=50, interval=1, base_ejection_time=10)
    detector = OutlierDetector(policy, hosts=2)
    detector.replay(responses(0, *(500,) * 5, start=0.5, step=0))
    detector.advance(30)  # back at 11, many clean sweeps since
    detector.replay(responses(0, *(500,) * 5, start=30.5, step=0))
    detector.advance(60)
    assert [e.end for e in detector.ejections] == [11, 41]


def test_jitter_is_added_beyond_the_maximum() -> None:
    policy = OutlierPolicy(max_ejection_percent=50, interval=1, base_ejection_time=10, max_ejection_time=5, jitter=3)
    detector = OutlierDetector(policy, hosts=2)
    detector.replay(responses(0, *(500,) * 5, step=0))
    detector.advance(20)
    assert detector.ejections[0].end == 13


def test_success_rate_ejects_the_host_far_below_the_rest() -> None:
    policy = OutlierPolicy(consecutive_5xx=0, max_ejection_percent=50, success_rate=SuccessRate(5, 100, 1.9))
    detector = OutlierDetector(policy, hosts=6)
    for host in range(6):
        bad = 40 if host == 3 else 1
        detector.replay(responses(host, *[500] * bad, *[200] * (100 - bad), start=host, step=0))
    detector.advance(10)
    assert detector.ejected == {3}


@pytest.mark.parametrize(("hosts", "requests"), [(4, 100), (6, 99)])
def test_success_rate_needs_enough_hosts_and_requests(hosts: int, requests: int) -> None:
    policy = OutlierPolicy(consecutive_5xx=0, max_ejection_percent=50, success_rate=SuccessRate(5, 100, 1.0))
    detector = OutlierDetector(policy, hosts)
    for host in range(hosts):
        detector.replay(responses(host, *[500 if host == 3 else 200] * requests, start=host, step=0))
    detector.advance(10)
    assert detector.ejected == set()


def test_failure_percentage_ejects_at_its_threshold() -> None:
    policy = OutlierPolicy(consecutive_5xx=0, max_ejection_percent=50, failure_percentage=FailurePercentage(85, 5, 50))
    detector = OutlierDetector(policy, hosts=6)
    for host, bad in enumerate((0, 0, 0, 0, 84, 85)):
        detector.replay(responses(host, *[500] * bad, *[200] * (100 - bad), start=host, step=0))
    detector.advance(10)
    assert detector.ejected == {5}


def test_lint_says_when_nobody_can_be_ejected() -> None:
    assert OutlierPolicy().impossible(9)
    assert not OutlierPolicy().impossible(10)
    assert not OutlierPolicy(always_eject_one=True).impossible(2)


def test_responses_out_of_order_are_refused() -> None:
    with pytest.raises(BalanceError, match="sort them by time"):
        OutlierDetector(HALF, 2).replay([Response(2, 0, 200), Response(1, 0, 200)])
    with pytest.raises(BalanceError, match="host 2 does not exist"):
        OutlierDetector(HALF, 2).replay([Response(2, 2, 200)])


def limits_of(breaker: CircuitBreaker, *calls: tuple[float, float]) -> list[str | None]:
    return [outcome.limit for outcome in breaker.replay([Call(*call) for call in calls])]


TWO, ONE = CircuitBreaker(max_requests=2), CircuitBreaker(max_requests=1)
BREAKERS = [
    #  what it shows, breaker, calls (start, duration), limit that refuses each
    ("no limit by default", CircuitBreaker(), [(0, 9)] * 5, [None] * 5),
    ("the third of two is refused", TWO, [(0, 5), (1, 5), (2, 5)], [None, None, "max_requests"]),
    ("an ended call makes room", ONE, [(0, 2), (2, 2), (3, 1)], [None, None, "max_requests"]),
    ("0 refuses all", CircuitBreaker(max_requests=0), [(0, 1)], ["max_requests"]),
    (
        "one connection, one may wait",
        CircuitBreaker(max_connections=1, max_pending=1),
        [(0, 5), (1, 5), (2, 5), (6, 1)],
        [None, None, "max_pending", None],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("breaker", "calls", "limits"), [c[1:] for c in BREAKERS], ids=[c[0] for c in BREAKERS])
def test_breakers(breaker: CircuitBreaker, calls: list[tuple[float, float]], limits: list[str | None]) -> None:
    assert limits_of(breaker, *calls) == limits


def test_a_waiting_call_is_served_when_a_connection_is_free() -> None:
    outcomes = CircuitBreaker(max_connections=1).replay([Call(0, 5), Call(1, 5), Call(2, 1)])
    assert [(o.begin, o.end) for o in outcomes] == [(0, 5), (5, 10), (10, 11)]


def test_retries_have_a_limit_of_their_own() -> None:
    breaker = CircuitBreaker(max_retries=1)
    outcomes = breaker.replay([Call(0, 9), Call(1, 9, True), Call(2, 9, True), Call(3, 9), Call(20, 1, True)])
    assert [o.limit for o in outcomes] == [None, None, "max_retries", None, None]


@pytest.mark.parametrize(("active", "allowed"), [(0, 3), (15, 3), (20, 4), (100, 20)])
def test_a_retry_budget_grows_with_the_calls(active: int, allowed: int) -> None:
    assert CircuitBreaker(retry_budget=20).retries_allowed(active) == allowed


def test_a_retry_budget_refuses() -> None:
    breaker = CircuitBreaker(retry_budget=20, min_retry_concurrency=0)
    assert [o.limit for o in breaker.replay([Call(0, 9, True)])] == ["retry_budget"]


def test_what_if_counts_what_only_one_refuses() -> None:
    calls = [Call(0, 10)] * 5
    assert what_if(calls, CircuitBreaker(), CircuitBreaker(max_requests=3)) == {
        "calls": 5, "refused_old": 0, "refused_new": 2, "only_old": 0, "only_new": 2,
    }  # fmt: skip


def test_calls_out_of_order_are_refused() -> None:
    with pytest.raises(BalanceError, match="sort them"):
        CircuitBreaker().replay([Call(1, 1), Call(0, 1)])


ISTIO = RetryPolicy()
RETRIES = [
    #  what it shows, policy, tries so far, what came, retry?
    ("a refused connection", ISTIO, 1, {"reset": "connect-failure"}, True),
    ("the second try still", ISTIO, 2, {"reset": "connect-failure"}, True),
    ("two attempts are two more tries", ISTIO, 3, {"reset": "connect-failure"}, False),
    ("a refused stream", ISTIO, 1, {"reset": "refused-stream"}, True),
    ("a reset half way is not in Istio's default", ISTIO, 1, {"reset": "reset"}, False),
    ("gRPC unavailable", ISTIO, 1, {"status": 200, "grpc_status": 14}, True),
    ("gRPC cancelled", ISTIO, 1, {"status": 200, "grpc_status": 1}, True),
    ("gRPC internal is not in the default", ISTIO, 1, {"status": 200, "grpc_status": 13}, False),
    ("503 is not in the default", ISTIO, 1, {"status": 503}, False),
    ("5xx", RetryPolicy.parse("5xx"), 1, {"status": 500}, True),
    ("5xx covers no answer at all", RetryPolicy.parse("5xx"), 1, {"reset": "reset"}, True),
    ("gateway errors", RetryPolicy.parse("gateway-error"), 1, {"status": 502}, True),
    ("500 is no gateway error", RetryPolicy.parse("gateway-error"), 1, {"status": 500}, False),
    ("409 is the retriable 4xx", RetryPolicy.parse("retriable-4xx"), 1, {"status": 409}, True),
    ("404 is not", RetryPolicy.parse("retriable-4xx"), 1, {"status": 404}, False),
    ("a code by number", RetryPolicy.parse("connect-failure,503"), 1, {"status": 503}, True),
    ("an overflow is never retried", RetryPolicy.parse("5xx,reset"), 1, {"reset": "overflow"}, False),
    ("no attempts", RetryPolicy.parse("5xx", 0), 1, {"status": 503}, False),
]


@pytest.mark.parametrize(("policy", "tries", "answer", "retry"), [c[1:] for c in RETRIES], ids=[c[0] for c in RETRIES])
def test_retries(policy: RetryPolicy, tries: int, answer: dict[str, object], retry: bool) -> None:
    assert policy.wants(tries, **answer) is retry  # type: ignore[arg-type]


def test_an_unknown_retry_condition_is_refused() -> None:
    with pytest.raises(BalanceError, match="unknown retry conditions: 5xxx"):
        RetryPolicy.parse("5xxx")


def test_a_retry_avoids_the_hosts_already_tried() -> None:
    table = Maglev([f"h{i}" for i in range(5)], 251)
    first = table.pick(77)
    again = retry_host(table, 77, {first})
    assert again != first
    assert again == next(h for h in (table.pick(77, a) for a in range(1, 6)) if h != first)
    assert retry_host(Maglev(["only"], 7), 77, {0}) == 0


def test_wilson_intervals_of_the_literature() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("value", "degrees", "p"),
    [(3.841, 1, 0.05), (5.991, 2, 0.05), (18.307, 10, 0.05), (6.635, 1, 0.01), (124.34, 100, 0.05)],
)
def test_chi_square_tables(value: float, degrees: int, p: float) -> None:
    assert chi_square_p(value, degrees) == pytest.approx(p, abs=5e-4)


def test_a_split_as_declared_is_consistent() -> None:
    check = split_check({"stable": 0.99, "canary": 0.01}, {"stable": 9895, "canary": 105})
    assert check.consistent
    assert all(share.consistent for share in check.shares)


def test_a_split_that_is_not_as_declared_is_not() -> None:
    check = split_check({"stable": 0.99, "canary": 0.01}, {"stable": 9700, "canary": 300})
    assert not check.consistent
    assert not any(share.consistent for share in check.shares)


def test_one_request_to_an_undeclared_destination_is_a_contradiction() -> None:
    check = split_check({"a": 0.5, "b": 0.5}, {"a": 500, "b": 500, "c": 1})
    assert not check.consistent
    assert check.shares[2].declared == 0


def test_nothing_observed_contradicts_nothing() -> None:
    check = split_check({"a": 0.5, "b": 0.5}, {})
    assert (check.consistent, check.p_value) == (True, None)


def test_what_is_no_split_is_refused() -> None:
    with pytest.raises(BalanceError, match=r"sum to 0\.9"):
        split_check({"a": 0.9}, {})
    with pytest.raises(BalanceError, match="at least 0"):
        split_check({"a": 1.0}, {"a": -1})
    with pytest.raises(BalanceError, match="between 0 and 1"):
        split_check({"a": 1.0}, {}, confidence=95)
