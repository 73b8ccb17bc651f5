"""Checked by mypy (tests/unit/test_typing.py): the public names have the types that users rely on."""

from typing import assert_type

import meshsieve
from meshsieve.classification import Classification, ClassifiedBatch
from meshsieve.explanation import Explanation
from meshsieve.summary import Summary
from meshsieve.walk.verdict import RequestVerdict

engine = meshsieve.load("nsx.json", strict=False)
assert_type(engine, meshsieve.Engine)
result = engine.classify_pcap(["a.pcap", "b.pcap"], by="packet", filter="tcp", count=10)
assert_type(result, Classification)
for batch in result:
    assert_type(batch, ClassifiedBatch)
    assert_type(len(batch), int)
assert_type(result.summary(), Summary)
assert_type(engine.explain("tcp 10.0.0.1:1 > 10.0.0.2:2"), Explanation | RequestVerdict)
assert_type(engine.explain({"src": "10.0.0.1", "dst": "10.0.0.2", "proto": 1}), Explanation)
assert_type(engine.explain(meshsieve.Request(method="GET", authority="a", path="/")), RequestVerdict)
assert_type(result.summary().total.packets, int)
engine.classify_pcap("a.pcap", by="flows")  # type: ignore[arg-type]
