"""One request through every layer of the bookinfo example: who decides, and what each layer says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import meshsieve
from meshsieve.cli.main import main
from meshsieve.engine import Engine
from meshsieve.errors import ModelError, PolicyError, UsageError
from meshsieve.explanation import Explanation
from meshsieve.request_text import parse_request
from meshsieve.walk.verdict import LayerVerdict, RequestVerdict

POLICY = Path(__file__).parents[2] / "examples" / "bookinfo" / "policy"
PAGE, REVIEWS3, RATINGS, CURL, INGRESS = "10.10.0.11", "10.10.0.33", "10.10.0.41", "10.10.2.7", "10.10.1.2"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return meshsieve.load(POLICY)


def asked(
    engine: Engine, words: str, source: str, destination: str, port: int = 9080, *, mtls: bool = True, **more: str
) -> RequestVerdict:
    method, _, rest = words.partition(" ")
    authority, slash, path = rest.partition("/")
    request = meshsieve.Request(
        method=method,
        authority=authority,
        path=slash + path,
        headers=more,
        source_ip=source,
        destination_ip=destination,
        destination_port=port,
    )
    return engine.judge_request(request, assume_mtls=mtls)


@pytest.mark.parametrize(
    ("words", "source", "destination", "port", "action", "layer"),
    [
        ("GET reviews:9080/reviews/0", PAGE, REVIEWS3, 9080, "ALLOW", "authorization"),
        ("GET ratings:9080/ratings/0", REVIEWS3, RATINGS, 9080, "ALLOW", "authorization"),
        # Layers 2-4 let the page reach ratings; its identity may not.
        ("GET ratings:9080/ratings/0", PAGE, RATINGS, 9080, "REJECT", "authorization"),
        ("DELETE ratings:9080/ratings/0", REVIEWS3, RATINGS, 9080, "REJECT", "authorization"),
        # A pod without a proxy has no identity, and mTLS is required.
        ("GET reviews.bookinfo:9080/reviews/0", CURL, REVIEWS3, 9080, "REJECT", "authorization"),
        # NSX drops what no rule allows, whatever layer 7 says.
        ("GET ratings:9081/ratings/0", REVIEWS3, RATINGS, 9081, "DROP", "nsx-dfw out"),
        # What the gateway sends on was routed where it came in; the page asks for the gateway's identity.
        ("GET bookinfo.example/productpage", INGRESS, PAGE, 9080, "ALLOW", "authorization"),
        # From outside, the gateway decides.
        ("GET bookinfo.example/productpage", "203.0.113.7", INGRESS, 80, "ALLOW", "route"),
        ("GET bookinfo.example/admin", "203.0.113.7", INGRESS, 80, "REJECT", "route"),
        ("GET other.example/productpage", "203.0.113.7", INGRESS, 80, "REJECT", "route"),
    ],
)
def test_the_layer_that_decides(
    engine: Engine, words: str, source: str, destination: str, port: int, action: str, layer: str
) -> None:
    found = asked(engine, words, source, destination, port)
    assert (found.action, found.decider.layer if found.decider else None) == (action, layer)


def test_every_answer_leads_back_to_file_and_line(engine: Engine) -> None:
    found = asked(engine, "GET reviews:9080/reviews/0", PAGE, REVIEWS3)
    sources = {layer.layer: layer.source for layer in found.layers if layer.rule}
    assert set(sources) == {"nsx-dfw out", "nsx-dfw in", "route", "authorization"}
    for source in sources.values():
        assert source is not None
        file, line = source.split(" ")[0].rsplit(":", 1)
        assert int(line) <= len(Path(file).read_text().splitlines())


def test_a_header_chooses_the_subset_and_the_endpoint_must_be_of_it(engine: Engine) -> None:
    jason = asked(engine, "GET reviews:9080/reviews/0", PAGE, REVIEWS3, **{"end-user": "jason"})
    endpoint = jason.layer("endpoint")
    assert endpoint is not None
    assert (endpoint.verdict, dict(endpoint.facts)["endpoints"]) == ("NONE", "bookinfo/reviews-v2-9b22")
    assert "was asked, but" in endpoint.reason
    other = asked(engine, "GET reviews:9080/reviews/0", PAGE, REVIEWS3).layer("endpoint")
    assert other is not None
    assert other.verdict == "ALLOW"


def test_without_assumed_mtls_a_capture_in_clear_text_has_no_identity(engine: Engine) -> None:
    found = asked(engine, "GET reviews:9080/reviews/0", PAGE, REVIEWS3, mtls=False)
    assert (found.action, dict(found.decider.facts)["by"] if found.decider else "") == ("REJECT", "mtls-required")


def test_explain_takes_requests_and_packets(engine: Engine) -> None:
    text = "GET http://reviews:9080/reviews/0"
    for asked in (text, parse_request(text)):
        found = engine.explain(asked, client="bookinfo/productpage-v1", assume_mtls=True)
        assert isinstance(found, RequestVerdict)
        told = engine.judge_request(text, client="bookinfo/productpage-v1", assume_mtls=True)
        assert found.to_dict() == told.to_dict()
    assert isinstance(engine.explain("tcp 10.0.0.1:1 > 10.0.0.2:2"), Explanation)
    with pytest.raises(UsageError, match="assume_mtls: for requests only"):
        engine.explain("tcp 10.0.0.1:1 > 10.0.0.2:2", assume_mtls=True)


def test_what_is_not_known_is_not_guessed(engine: Engine) -> None:
    found = engine.judge_request("GET http://reviews:9080/reviews/0")
    reasons = {layer.layer: layer.reason for layer in found.layers if layer.verdict == "NONE"}
    assert set(reasons) == {"layers 2-4", "route", "authorization", "endpoint"}
    assert found.action == "NONE"


def test_the_only_endpoint_of_a_route_is_the_server(engine: Engine) -> None:
    request = meshsieve.Request(authority="ratings:9080", path="/ratings/0", destination_port=9080, method="GET")
    found = engine.judge_request(request, client="bookinfo/reviews-v3", assume_mtls=True)
    assert found.allowed
    assert {layer.layer for layer in found.layers if layer.verdict == "ALLOW"} >= {"nsx-dfw in", "authorization"}


def test_unknown_names_and_addresses_are_errors(engine: Engine) -> None:
    with pytest.raises(UsageError, match="bookinfo/nobody"):
        engine.judge_request("GET http://a/", server="bookinfo/nobody")
    with pytest.raises(ModelError, match="address of the request"):
        engine.judge_request(meshsieve.Request(source_ip="10.0.0"))
    with pytest.raises(UsageError, match="nothing about requests"):
        meshsieve.load(POLICY / "nsx.json").judge_request("GET http://a/")


def test_a_route_configuration_and_a_mesh_cannot_both_take_a_request(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text('virtual_hosts: [{name: v, domains: ["*"], routes: []}]\n')
    with pytest.raises(PolicyError, match="routes of their own"):
        meshsieve.load([POLICY / "gateway.yaml", routes])


def test_an_envoy_route_configuration_judges_requests_beside_packet_filters(tmp_path: Path) -> None:
    routes = tmp_path / "routes.yaml"
    routes.write_text(
        'virtual_hosts: [{name: v, domains: ["*"], routes: [{name: a, match: {prefix: /a}, route: {cluster: c}}]}]\n'
    )
    engine = meshsieve.load([POLICY / "nsx.json", routes])
    assert engine.judge_request("GET http://x/a").action == "ALLOW"
    assert engine.judge_request("GET http://x/b").action == "REJECT"


def test_the_first_denial_decides_and_undecided_beats_allowed() -> None:
    def verdict(*names: str) -> str:
        return RequestVerdict("GET /", tuple(LayerVerdict(f"{i}", n, "") for i, n in enumerate(names))).action

    assert verdict("ALLOW", "REJECT", "DROP") == "REJECT"
    assert verdict("ALLOW", "UNDECIDED", "DROP") == "DROP"
    assert verdict("ALLOW", "UNDECIDED", "NONE") == "UNDECIDED"
    assert verdict("NONE", "ALLOW") == "ALLOW"
    assert verdict("NONE") == "NONE"


def test_explain_shows_the_walk(capfd: pytest.CaptureFixture[str]) -> None:
    words = ["explain", "-p", str(POLICY), "DELETE http://ratings:9080/ratings/0"]
    ends = ["--from", "bookinfo/productpage-v1", "--to", "bookinfo/ratings-v1", "--assume-mtls"]
    assert main([*words, *ends]) == 0
    shown = capfd.readouterr().out
    assert "REJECT by authorization" in shown
    assert "page-to-page" in shown
    assert main([*words, *ends, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["action"] == "REJECT"
    assert [layer["layer"] for layer in document["layers"]][-3:] == ["route", "authorization", "endpoint"]
