"""The generators and the runner of benches/, on small sets; nothing here is timed."""

from __future__ import annotations

import gzip
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from benches import (
    authz,
    authz_policies,
    boxes,
    captures,
    chart,
    classbench,
    data,
    duel,
    groups,
    hard_sets,
    options,
    packets_tables,
    prefixes,
    report,
    route_sets,
    traces,
    traffic,
)
from benches import packets as bench_packets
from benches.families import FAMILIES
from benches.process import Peer, Running, Unavailable, compiled
from meshsieve import capture, packets
from meshsieve.authz.compiled import CompiledChains
from meshsieve.routes import from_envoy
from meshsieve.routes.http_options import HttpOptions

NEEDS_GCC = pytest.mark.skipif(shutil.which("gcc") is None, reason="the judge is a C program; gcc is not installed")


def engine_verdicts(rules, headers):
    return packets.compile(rules, engine="linear").classify_batch(boxes.to_columns(headers))


def scan(rules: np.ndarray, headers: np.ndarray) -> np.ndarray:
    """First box that holds the header, by numpy; the third opinion beside the judge and the engine."""
    inside = (headers[:, None, :] >= rules[None, :, 0::2]) & (headers[:, None, :] <= rules[None, :, 1::2])
    hit = inside.all(axis=2)
    return np.where(hit.any(axis=1), hit.argmax(axis=1), -1).astype(np.int32)


def small_case(rules, trace: str = "uniform", headers: int = 3000) -> data.Case:
    return data.Case("small", "families", {}, lambda: data._with_trace(rules, headers, trace))


# --- rule sets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_full_valid_and_the_same_every_time(family):
    rules = classbench.rules(family, 700)
    assert np.array_equal(rules, classbench.rules(family, 700))
    assert not np.array_equal(rules, classbench.rules(family, 700, seed=2))
    assert len(rules) == 700 == len(np.unique(rules, axis=0))
    assert (rules[:, 0::2] <= rules[:, 1::2]).all()
    assert (rules[:, 1::2] <= boxes.LARGEST).all()
    for side in (0, 2):  # address ranges are prefixes
        size = rules[:, side + 1].astype(np.int64) - rules[:, side] + 1
        assert (size & (size - 1) == 0).all()
        assert (rules[:, side] % size == 0).all()


def test_no_rule_hides_behind_one_earlier_rule():
    rules = classbench.rules("acl2", 400)
    covers = (rules[:, None, 0::2] <= rules[None, :, 0::2]) & (rules[:, None, 1::2] >= rules[None, :, 1::2])
    earlier, later = np.nonzero(covers.all(axis=2))
    assert not (earlier < later).any()


def test_families_differ_in_what_they_are_named_for():
    def nearly_open_on_a_side(family):
        rules = classbench.rules(family, 1000)
        return float(((rules[:, 1:4:2].astype(np.int64) - rules[:, 0:4:2]) >= 2**30 - 1).any(axis=1).mean())

    assert nearly_open_on_a_side("fw1") > 0.8
    assert nearly_open_on_a_side("acl1") < 0.1


@pytest.mark.parametrize("make", [hard_sets.short_prefixes, hard_sets.port_ranges, hard_sets.length_pairs])
def test_a_hard_set_is_what_its_name_says(make):
    rules = make(500)
    spans = rules[:, 1::2].astype(np.int64) - rules[:, 0::2]
    assert (spans >= 0).all()
    if make is hard_sets.short_prefixes:
        assert spans[:, :2].min() >= 2**24 - 1
    if make is hard_sets.port_ranges:
        assert (spans[:, :2] == 2**32 - 1).all()
    if make is hard_sets.length_pairs:
        assert len(np.unique(spans[:, :2], axis=0)) > 350


def test_identical_rules_are_identical():
    assert len(np.unique(hard_sets.identical(1000), axis=0)) == 1


# --- traces -------------------------------------------------------------------------------------------------------


def test_every_header_of_a_uniform_trace_lies_in_a_rule():
    rules = classbench.rules("ipc1", 300)
    assert (scan(rules, traces.uniform(rules, 2000)) >= 0).all()


def test_a_mixed_trace_hits_and_misses():
    rules = classbench.rules("acl1", 300)
    assert 0 < (scan(rules, traces.mixed(rules, 2000)) >= 0).sum() < 2000


def test_a_zipf_trace_repeats_few_headers():
    rows = traces.zipf_order(10_000, 1.1)
    counts = np.sort(np.bincount(rows, minlength=10_000))[::-1]
    assert counts.sum() == 10_000
    assert counts[:100].sum() > 5_000


# --- one truth ----------------------------------------------------------------------------------------------------


@NEEDS_GCC
@pytest.mark.parametrize("trace", ["uniform", "zipf1.0", "mixed"])
def test_judge_engine_and_numpy_agree(tmp_path, trace):
    rules = classbench.rules("fw1", 300)
    folder = data.materialise(small_case(rules, trace), tmp_path)
    headers, expected = data.load_headers(folder), data.load_expected(folder)
    assert np.array_equal(expected, scan(rules, headers))
    assert np.array_equal(expected, engine_verdicts(data.load_rules(folder), headers))


def test_embedding_in_ipv6_keeps_every_verdict():
    rules = classbench.rules("fw1", 200)
    headers = traces.mixed(rules, 1500)
    wide = packets.compile(boxes.to_rule_set(rules, 6), engine="linear").classify_batch(boxes.to_columns(headers, 6))
    assert np.array_equal(wide, scan(rules, headers))


def test_a_policy_of_groups_has_the_verdicts_of_its_rules():
    policy = groups.Policy(60)
    headers = policy.headers(1500)
    expected = policy.expected(headers)
    assert np.array_equal(expected, engine_verdicts(policy.rule_set, headers))
    assert 0.5 < (expected >= 0).mean() < 1
    assert policy.five_tuples > 1_000_000


GIVEN_RULES = (
    "@10.0.0.0/8\t0.0.0.0/0\t0 : 65535\t80 : 80\t0x06/0xFF\t0x0000/0x0000\n"
    "@1.2.3.4/32\t10.1.0.0/16\t0 : 65535\t0 : 1023\t0x00/0x00\t0x0000/0x0000\n"
)
GIVEN_TRACE = "167772161\t1\t5\t80\t6\t0\n16909060\t167837696\t5\t22\t17\t1\n"


def test_given_sets_are_read_in_the_shared_format(tmp_path):
    (tmp_path / "t.rules.gz").write_bytes(gzip.compress(GIVEN_RULES.encode()))
    (tmp_path / "t.trace.gz").write_bytes(gzip.compress(GIVEN_TRACE.encode()))
    (case,) = data.given(tmp_path)
    folder = data.materialise(case, tmp_path / "cache")
    assert data.load_expected(folder).tolist() == [0, 1]
    assert engine_verdicts(data.load_rules(folder), data.load_headers(folder)).tolist() == [0, 1]


def test_a_folder_without_sets_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no \*\.rules\.gz"):
        next(data.given(tmp_path))


# --- prefixes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 6])
def test_the_longest_prefix_is_found_as_ipaddress_finds_it(version):
    networks, lengths = prefixes.table(version, 120)
    made = prefixes.cases([200], 300, (version,))
    material = next(made).make()
    addresses = material.files["addresses.u64"]
    make, network = (
        (ipaddress.IPv4Address, ipaddress.IPv4Network)
        if version == 4
        else (ipaddress.IPv6Address, ipaddress.IPv6Network)
    )
    nets = [
        network((high << 64 | low, length))
        for (high, low), length in zip(networks.tolist(), lengths.tolist(), strict=True)
    ]
    found = prefixes.longest(networks, lengths, addresses, version)
    for (high, low), row in zip(addresses.tolist(), found.tolist(), strict=True):
        address = make(high << 64 | low)
        holders = [i for i, net in enumerate(nets) if address in net]
        assert row == max(holders, key=lambda i: nets[i].prefixlen, default=-1)


def test_most_routed_addresses_hit_and_prefixes_nest():
    material = next(prefixes.cases([2000], 2000)).make()
    assert 0.8 < (material.files["expected.i32"] >= 0).mean() < 1
    assert len(np.unique(material.files["lengths.i64"])) > 8


# --- captures -----------------------------------------------------------------------------------------------------


def test_a_made_up_capture_is_read_back_as_it_was_meant(tmp_path):
    made = traffic.capture(3000)
    path = tmp_path / "made.pcap"
    path.write_bytes(made.pcap.tobytes())
    reader = capture.read(path)
    batches = list(reader)
    assert reader.problem is None
    assert reader.status_counts == {"ok": 3000}
    judged = made.judged
    assert 0.5 < judged.mean() < 1
    for column, name in enumerate(("src_ip", "dst_ip", "sport", "dport", "proto")):
        values = np.concatenate([batch[name] if batch[name].ndim == 1 else batch[name][:, 1] for batch in batches])
        assert np.array_equal(values[judged].astype(np.uint32), made.headers[judged, column]), name
    assert sum(map(len, capture.read(path, filter=traffic.FILTER))) == made.facts["matching"] > 0
    assert len(made.pcap) == made.facts["bytes"]


@NEEDS_GCC
def test_captures_are_counted_by_a_peer(tmp_path):
    made = data.Case("made", "captures", {"family": "made up"}, lambda: captures._made_up(2000))
    folder = data.materialise(made, tmp_path)
    row = captures._row(made, "read", folder, tmp_path, options.parse(["captures"], ["captures", "--quick"]))
    assert row["wrong"] == 0
    assert row["ours_ns"] > 0
    for peer in row["peers"].values():
        assert peer.get("wrong") == 0 or "not installed" in peer["unavailable"] or "No module" in peer["unavailable"]


# --- processes ----------------------------------------------------------------------------------------------------


@NEEDS_GCC
def test_a_wrong_answer_is_counted_and_never_a_time(tmp_path):
    folder = data.materialise(small_case(classbench.rules("acl1", 200)), tmp_path)
    peers = [Peer("scan", source="linear_scan.c")]

    honest = duel.run(peers, folder, cache=tmp_path, rounds=1, patience=30)["scan"]
    if "AVX2" in honest.get("unavailable", ""):
        pytest.skip(honest["unavailable"])
    assert honest["wrong"] == 0
    assert honest["ns"] > 0

    verdicts = data.load_expected(folder)
    verdicts[7] += 1
    verdicts.tofile(folder / "expected.i32")
    planted = duel.run(peers, folder, cache=tmp_path, rounds=1, patience=30)["scan"]
    assert planted["wrong"] == 1
    assert planted["ns"] is None


@NEEDS_GCC
def test_our_side_reports_calls_and_updates_and_has_every_rule_back(tmp_path):
    folder = data.materialise(small_case(classbench.rules("ipc1", 150), headers=600), tmp_path)
    ours = Running(Peer("ours", module="benches.peers.own"), folder, cache=tmp_path, patience=60, environment={})
    try:
        assert ours.about["headers"] == 600
        assert ours.ask("wrong") == {"wrong": 0, "checked": 600}
        calls = ours.ask("boundary 1")["ns_by_batch"]
        assert list(calls) == ["1", "16", "256", "4096", "whole", "scalar"]
        assert min(ours.ask("files 1")["file"].values()) > 0
        assert next(iter(ours.ask("threads 1")["ns_by_threads"])) == "1"
        updates = ours.ask("updates 1")
        assert updates["wrong_after_updates"] == 0
        assert min(updates["updates_a_second"], updates["bulk_updates_a_second"], updates["lookup_slowdown"]) > 0
    finally:
        ours.close()


@pytest.mark.parametrize("way", bench_packets.PREFIX_WAYS)
def test_our_prefix_table_reports_its_size_and_no_wrong_value(way, tmp_path):
    case = next(prefixes.cases([1000], 500, versions=(4,)))
    folder = data.materialise(case, tmp_path)
    peer = Peer("ours", module="benches.peers.prefix_tables", arguments=("ours", way))
    ours = Running(peer, folder, cache=tmp_path, patience=60, environment={})
    try:
        assert ours.about["bytes"] > 0
        ours.ask("pass 1")
        assert ours.ask("wrong") == {"wrong": 0, "checked": 500}
    finally:
        ours.close()


def test_charts_are_drawn_from_kept_results(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    kept = sorted(report.RESULTS.glob("packets-*.json"))[-1]
    monkeypatch.setattr(sys, "argv", ["chart", str(kept), str(kept), "--out", str(tmp_path)])
    assert chart.main() == 0
    assert capsys.readouterr().out.split() == [str(path) for path in sorted(tmp_path.glob("*.svg"))]


def test_a_missing_peer_says_why(tmp_path):
    peers = [Peer("absent", source="linear_scan.c", packages=("no-such-library-anywhere",))]
    entry = duel.run(peers, tmp_path, cache=tmp_path, rounds=1, patience=5)["absent"]
    assert "no-such-library-anywhere" in entry["unavailable"]


@NEEDS_GCC
def test_a_peer_that_gives_up_is_a_row(tmp_path):
    entry = duel.run([Peer("p", source="linear_scan.c")], tmp_path / "no", cache=tmp_path, rounds=1, patience=5)["p"]
    assert "cannot be read" in entry["unavailable"]


@NEEDS_GCC
def test_programs_are_compiled_once(tmp_path):
    first = compiled("linear_scan.c", (), tmp_path)
    stamp = first.stat().st_mtime_ns
    assert compiled("linear_scan.c", (), tmp_path).stat().st_mtime_ns == stamp
    with pytest.raises(Unavailable, match="no-such-library-anywhere"):
        compiled("rte_acl.c", ("no-such-library-anywhere",), tmp_path)


@NEEDS_GCC
def test_the_command_gives_the_promised_json(tmp_path):
    (tmp_path / "t.rules.gz").write_bytes(gzip.compress(GIVEN_RULES.encode()))
    (tmp_path / "t.trace.gz").write_bytes(gzip.compress(GIVEN_TRACE.encode()))
    command = [sys.executable, "-m", "benches", "packets", "--quick", "--json", "--data", str(tmp_path)]
    environment = {"PYTHONPATH": "src:.", "MESHSIEVE_BENCH_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*command, "--peers", "linear_scan"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (row,) = result["rows"]
    assert result["subject"] == "packets"
    assert {"cpu", "compiler", "commit"} <= result["machine"].keys()
    assert {"min_ratio", "geomean_ratio", "wrong"} <= result["summary"].keys()
    assert row["family"] == "t"
    assert row["wrong"] == 0
    assert row["ours_ns"] > 0
    scan_ns = row["peers_ns"]["linear_scan"]
    assert row["ratio"] == (pytest.approx(scan_ns / row["ours_ns"]) if scan_ns else None)


def test_an_interrupted_run_reports_what_it_has():
    facts = {}
    rows = []
    with options.parse(["packets"], ["packets"]).until_interrupted(facts):
        rows.append("first")
        os.kill(os.getpid(), signal.SIGTERM)
        rows.append("never reached")
    assert facts == {"interrupted": True}
    assert rows == ["first"]


# --- figures ------------------------------------------------------------------------------------------------------

ROW = {
    "case": "acl1_1k", "suite": "families", "family": "acl1", "trace": "uniform", "asked": 1000, "rules": 990,
    "ours_ns": 10.0, "engine": "linear", "backend": "scalar", "ratio": 2.0, "ratio_avx2": 2.0, "wrong": 0,
    "build_seconds": 0.1, "bytes_per_rule": 8.0, "build_peak_bytes": 4096, "peers_ns": {"rte_acl": 20.0},
    "ours": {}, "own_engines": {}, "peers": {"rte_acl": {"ns": 20.0, "wrong": 0, "note": "kernel x"}},
}  # fmt: skip
MARKS = [
    ("a row that is won", {}, ""),
    ("a row that is lost stays and says so", {"ratio": 0.5}, "LOSES"),
    ("a wrong answer is louder than a time", {"wrong": 3, "ratio": 0.5}, "WRONG"),
    ("no time of ours", {"ours_ns": None, "ratio": None}, "FAILED"),
]


@pytest.mark.parametrize(("_", "change", "expected"), MARKS, ids=[m[0] for m in MARKS])
def test_marks(_, change, expected):
    assert packets_tables.mark({**ROW, **change}) == expected


def test_what_is_printed_names_every_missing_peer():
    row = {**ROW, "peers": {"rte_acl": {"unavailable": "libdpdk is not installed"}}, "peers_ns": {"rte_acl": None}}
    shown = packets_tables.tables({"rows": [row], "summary": bench_packets._summaries([row])})
    assert "rte_acl not available: libdpdk is not installed [acl1_1k]" in shown
    assert "n/a" in shown


def test_charts_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [ROW, {**ROW, "case": "acl1_10k", "asked": 10_000, "rules": 9_900, "ratio": 0.7}]
    drawn = chart.draw({"rows": rows, "machine": {"cpu": "some", "commit": "abc"}}, tmp_path)
    assert [path.name for path in drawn] == ["packets-growth.svg", "packets-ratios.svg"]
    assert all(path.stat().st_size > 1000 for path in drawn)


RATIOS = [
    ("the best peer counts", {"a": 30.0, "b": 20.0}, 10.0, 2.0),
    ("a peer without a valid time does not count", {"a": 30.0, "b": None}, 10.0, 3.0),
    ("no peer, no ratio", {"a": None}, 10.0, None),
    ("ours wrong, no ratio", {"a": 30.0}, None, None),
]


@pytest.mark.parametrize(("_", "peers", "ours", "expected"), RATIOS, ids=[r[0] for r in RATIOS])
def test_ratio(_, peers, ours, expected):
    assert report.ratio(peers, ours) == expected


def test_a_losing_row_stays_and_is_counted():
    rows = [{"ratio": 4.0, "wrong": 0}, {"ratio": 0.25, "wrong": 0}, {"ratio": None, "wrong": 3}]
    found = report.summary(rows)
    assert found["rows"] == 3
    assert found["min_ratio"] == 0.25
    assert found["geomean_ratio"] == pytest.approx(1.0)
    assert found["losing_rows"] == 1
    assert found["wrong"] == 3


def test_columns_have_the_dtypes_that_captures_deliver():
    columns = boxes.to_columns(np.array([[1, 2, 3, 4, 6]], np.uint32))
    assert {name: str(column.dtype) for name, column in columns.items()} == {
        "src_ip": "uint32",
        "dst_ip": "uint32",
        "sport": "uint16",
        "dport": "uint16",
        "proto": "uint8",
    }


# --- authorization ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", authz_policies.FAMILIES)
def test_made_up_policies_are_the_same_every_time_and_decide_as_their_plain_loop_says(family):
    policies = authz_policies.policies(family, 300)
    assert policies == authz_policies.policies(family, 300)
    calls = authz_policies.calls(policies, 200)
    table = CompiledChains([authz_policies.chain(policies)], HttpOptions(normalize_path=True))
    got = table.batch(authz_policies.columns(calls)).allowed.tolist()
    assert got == [authz_policies.allowed(policies, call) for call in calls]
    assert 0.1 < np.mean(got) < 0.95


def test_engines_of_authorization_run_in_their_own_processes(tmp_path):
    case = data.Case("small_authz", "spread", {"family": "spread", "rules": 20, "calls": 40, "seed": 1},
                     lambda: authz._material({"family": "spread", "rules": 20, "calls": 40, "seed": 1}))  # fmt: skip
    folder = data.materialise(case, tmp_path)
    for way in authz.WAYS:
        peers = [Peer(name, module=authz.MODULE, arguments=(name, way)) for name in ("ours", "plain_loop")]
        entries = duel.run(peers, folder, cache=tmp_path, rounds=1, patience=60)
        assert [entry["wrong"] for entry in entries.values()] == [0, 0]


# --- routes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", route_sets.KINDS)
def test_every_request_of_a_route_set_hits_the_route_that_it_was_made_for(kind):
    made = route_sets.make(kind, 60, 1)
    router = from_envoy(route_sets.envoy_config(made.routes))
    found = [router.find(h, p, "GET", ((route_sets.HEADER, v),) if v else ()) for h, p, v in made.requests]
    assert found == made.expected
