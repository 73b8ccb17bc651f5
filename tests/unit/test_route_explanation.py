"""Why a request takes its route, in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshsieve.cli.main import main
from meshsieve.request import Request
from meshsieve.routes import from_envoy
from tests.differential.route_worlds import world


def why(match: dict[str, Any], **request: Any) -> tuple[str, ...]:
    config = {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
        {"name": "r", "match": match, "direct_response": {"status": 200}}]}]}  # fmt: skip
    explanation = from_envoy(config).explain(Request(authority="h", **request))
    return explanation.points[0].trials[0].why


def header(name: str, **match: Any) -> dict[str, Any]:
    return {"prefix": "/", "headers": [{"name": name, **match}]}


CASES = [
    ({"prefix": "/a"}, {"path": "/b"}, ("path /b does not begin with /a",)),
    ({"path": "/A", "case_sensitive": False}, {"path": "/b"}, ("path /b is not /A in any case",)),
    ({"path_separated_prefix": "/a"}, {"path": "/ab"}, ("path /ab is not at or below /a",)),
    ({"safe_regex": {"regex": "/a+"}}, {"path": "/b"}, ("path /b does not match /a+",)),
    ({"connect_matcher": {}}, {}, ("method GET is not CONNECT",)),
    (header("x"), {}, ("header x is absent",)),
    (header("x", present_match=False), {"headers": {"x": "1"}}, ("header x is present",)),
    (header("x", string_match={"exact": "a"}), {"headers": {"x": ["b", "c"]}}, (
        "header x is 'b', 'c', wanted: is 'a'",)),
    (header("x", string_match={"prefix": "a", "ignore_case": True}, invert_match=True), {"headers": {"x": "Ab"}}, (
        "header x is 'Ab', wanted: not begins with 'a' in any case",)),
    (header("x", range_match={"start": 1, "end": 3}), {"headers": {"x": "3"}}, (
        "header x is '3', wanted: a number from 1 to below 3",)),
    (header("authorization", string_match={"exact": "a"}), {"headers": {"authorization": "secret"}}, (
        "header authorization is (not shown), wanted: is 'a'",)),
    ({"prefix": "/", "query_parameters": [{"name": "k"}], "grpc": {}}, {}, (
        "query parameter k is not as wanted (present)", "the request is not gRPC (content-type)")),
    ({"prefix": "/", "cookies": [{"name": "k", "string_match": {"exact": "a"}}]}, {}, (
        "cookie k is not as wanted (is 'a')",)),
    ({"prefix": "/", "tls_context": {"presented": True}}, {}, ("a client certificate is not presented",)),
    ({"prefix": "/", "runtime_fraction": {"default_value": {"numerator": 1}}}, {"random_value": 7}, (
        "the random number 7 is not in the fraction 1 of 100",)),
]  # fmt: skip


@pytest.mark.parametrize(("match", "request_", "expected"), CASES)
def test_what_fails_is_said(match: dict[str, Any], request_: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert why(match, **request_) == expected


def test_the_explanation_ends_at_the_route_that_takes_the_request() -> None:
    explained = 0
    for seed in range(50):
        made = world(seed, 8)
        router = from_envoy(made.config)
        for request in made.requests:
            found, explanation = router.match(request), router.explain(request)
            trials = [trial for point in explanation.points for trial in point.trials]
            taken = [trial.index for trial in trials if trial.truth == "yes"]
            assert taken == ([found.route_index] if found.matched else [])
            assert not found.matched or trials[-1].index == found.route_index
            explained += found.matched
    assert explained > 20


CONFIG = """\
virtual_hosts:
- name: shop
  domains: [shop.example]
  routes:
  - name: beta
    match: {prefix: /cart, headers: [{name: x-version, string_match: {exact: "3"}}]}
    route: {cluster: cart-beta}
  - name: cart
    match: {prefix: /cart}
    route: {cluster: cart}
"""


def test_on_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(CONFIG)
    assert main(["explain", "-p", str(file), "GET http://shop.example/cart", "-H", "x-version: 2"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0] == "GET http://shop.example/cart"
    assert "virtual host shop (shop.example): route, route 'cart'" in lines[2]
    assert lines[3].split("beta", 1)[1].strip() == "header x-version is '2', wanted: is '3'"
    assert f"matches: to cart  {file}:8" in lines[4]


def test_what_is_refused_before_routing_and_what_no_host_takes() -> None:
    router = from_envoy(CONFIG)
    assert "the target holds a fragment" in str(router.explain(Request(authority="shop.example", path="/#")))
    assert "no virtual host" in str(router.explain(Request(authority="other")))
