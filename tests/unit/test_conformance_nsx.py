"""The NSX conformance runner accepts true facts and fails on every planted false one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.policies import nsx
from tests.conformance.policies import run as run_all


def rule(name: str, source: str, destination: str, service: str, action: str = "ALLOW") -> dict[str, Any]:
    return {"name": name, "source": source, "dest": destination, "services": [service], "action": action}


RULES = [
    {**rule("web-to-db", "web", "db", "/infra/services/HTTP"), "direction": "IN_OUT"},
    {**rule("web-to-db-again", "web", "db", "/infra/services/HTTP"), "direction": "IN"},
    {**rule("rest", "ANY", "ANY", "ANY", "DROP"), "direction": "IN_OUT"},
]
FROM_OUTSIDE = {**rule("in", "192.0.2.0/24", "web", "ANY"), "direction": "IN"}
TOPOLOGY = {"Web": ["web"], "Db": ["db"]}
CONFIG: dict[str, Any] = {
    "virtual_machines": [
        {"external_id": "Web", "display_name": "Web", "tags": [{"tag": "web"}]},
        {"external_id": "Db", "display_name": "Db"},
    ],
    "domains": [
        {
            "display_name": "default",
            "resources": {
                "security_policies": [
                    {
                        "display_name": "app",
                        "category": "Application",
                        "rules": [
                            {
                                "display_name": r["name"],
                                "source_groups": [r["source"]],
                                "destination_groups": [r["dest"]],
                                "services": r["services"],
                                "action": r["action"],
                                "direction": r["direction"],
                            }
                            for r in [RULES[0], FROM_OUTSIDE, RULES[2]]
                        ],
                    }
                ],
                "groups": [
                    {
                        "path": "web",
                        "vm_members": [{"id": "Web"}],
                        "expression": [
                            {
                                "resource_type": "Condition",
                                "member_type": "VirtualMachine",
                                "key": "Tag",
                                "operator": "EQUALS",
                                "value": "web",
                            }
                        ],
                    },
                    {"path": "db", "vm_members": [{"id": "Db"}]},
                ],
            },
        }
    ],
}  # fmt: skip
FACTS: dict[str, Any] = {
    "facts_connectivity.json": [
        {
            "config": "small",
            "permitted": [
                {"src": "Web", "dst": "Db", "permitted": "TCP dst-ports: 80"},
                {"src": "192.0.2.0/24", "dst": "Web", "permitted": "All Connections"},
            ],
        }
    ],
    "facts_explain.json": [
        {
            "test": "explain",
            "topology": TOPOLOGY,
            "query": {"src": "Web", "dst": "Db"},
            "application_rules": RULES,
            "config_file": None,
            "expect": [
                {
                    "conn": {"proto": "TCP", "dst_ports": [80, 80]},
                    "allowed": True,
                    "ingress_rules": ["web-to-db"],
                    "egress_rules": ["web-to-db"],
                }
            ],
        }
    ],
    "facts_redundant.json": [
        {
            "test": "redundant",
            "topology": TOPOLOGY,
            "application_rules": RULES,
            "expect_redundant": [
                {"redundant_rule": 2, "category": "Application", "direction": "IN", "covered_by": [1]}
            ],
        }
    ],
}


def write(folder: Path, facts: dict[str, Any], config: dict[str, Any] = CONFIG) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "small.json").write_text(json.dumps(config))
    for name, content in facts.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def test_true_facts_are_right(tmp_path: Path) -> None:
    report = nsx.run(write(tmp_path / "nsx", FACTS))
    assert report.passed, report.cases
    assert report.counts["right"] == 3 + 1 + 1 + 1  # pairs (one is not listed), explain, redundant, group


def test_the_whole_folder_and_the_sub_folder_give_the_same(tmp_path: Path) -> None:
    write(tmp_path / "nsx", FACTS)
    assert run_all(tmp_path).counts == run_all(tmp_path / "nsx").counts == nsx.run(tmp_path / "nsx").counts


def pairs(facts: Any) -> Any:
    return facts["facts_connectivity.json"][0]["permitted"]


def expected(facts: Any) -> Any:
    return facts["facts_explain.json"][0]["expect"][0]


PLANTED: list[tuple[str, Callable[[Any], Any]]] = [
    ("one port too many", lambda f: pairs(f)[0].update(permitted="TCP dst-ports: 80-81")),
    ("one port beside", lambda f: pairs(f)[0].update(permitted="TCP dst-ports: 81")),
    ("another protocol", lambda f: pairs(f)[0].update(permitted="UDP dst-ports: 80")),
    ("a connection that is not there", lambda f: pairs(f).append({"src": "Db", "dst": "Web", "permitted": "ICMP"})),
    ("a connection left out", lambda f: pairs(f).pop(0)),
    ("an outside range one address too wide", lambda f: pairs(f)[1].update(src="192.0.2.0-192.0.3.0")),
    ("a machine that is not there", lambda f: pairs(f)[0].update(src="Nobody")),
    ("a connection that cannot be read", lambda f: pairs(f)[0].update(permitted="TCP flags: SYN")),
    ("another verdict", lambda f: expected(f).update(allowed=False)),
    ("another rule at the receiver", lambda f: expected(f).update(ingress_rules=["rest"])),
    ("another rule at the sender", lambda f: expected(f).update(egress_rules=["web-to-db", "rest"])),
    ("a port that another rule decides", lambda f: expected(f)["conn"].update(dst_ports=[80, 81])),
    ("no covered rule", lambda f: f["facts_redundant.json"][0].update(expect_redundant=[])),
]


@pytest.mark.parametrize(("what", "plant"), PLANTED, ids=[row[0] for row in PLANTED])
def test_a_planted_false_fact_fails(tmp_path: Path, what: str, plant: Callable[[Any], Any]) -> None:
    facts = copy.deepcopy(FACTS)
    plant(facts)
    report = nsx.run(write(tmp_path, facts))
    assert report.counts["wrong"] == 1


def test_a_group_that_drifted_fails(tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIG)
    config["domains"][0]["resources"]["groups"][0]["vm_members"] = [{"id": "Db"}]
    assert nsx.run(write(tmp_path, {}, config)).counts["wrong"] == 1


def test_a_missing_configuration_fails(tmp_path: Path) -> None:
    facts = copy.deepcopy(FACTS)
    facts["facts_connectivity.json"][0]["config"] = "absent"
    assert nsx.run(write(tmp_path, facts)).counts["wrong"] == 1
