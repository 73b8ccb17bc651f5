"""Hostile names in policies, logs and captures through every output of every verb that shows them: parsed back by a
parser that is not ours, there is no live element, no formula, no escape, and nothing leaves its line or cell."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshsieve.cli.main import main
from tests.observability.renaming import rename_objects
from tests.observability.test_report import Elements

EXAMPLES = Path(__file__).parents[2] / "examples"
BOOKINFO, CAPTURE = EXAMPLES / "bookinfo" / "policy", EXAMPLES / "bookinfo" / "bookinfo.pcap"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "=cmd|'/c calc'!A1",
    "+1+1",
    "@SUM(A1)",
    "| a [l](http://x) `c` **b** |",
    "\x1b[31m\x1b]0;owned\x07red",
    "a\u202eb\u2066c\u200b",
    "$\\frac{1}{2}$",
    "a\r\nb\tc",
    'x"} 1\nevil{y="',
    "\x85\x9bC1",
]
# Everything that a terminal, a log or a reader of lines could obey.
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
LOG_FIELDS = {"source_ip": "10.10.0.11", "destination_ip": "10.10.0.41", "destination_port": 9080, "source_port": 40000}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A policy whose NSX objects have hostile names, a changed one, and a log of hostile requests."""
    folder = tmp_path_factory.mktemp("hostile")
    document = json.loads((BOOKINFO / "nsx.json").read_text())
    count = rename_objects(document, HOSTILE)
    assert count >= 2 * len(HOSTILE)
    for name in ("old", "new"):
        shutil.copytree(BOOKINFO, folder / name)
        text = json.dumps(document)
        if name == "new":
            text = text.replace('"action": "ALLOW"', '"action": "REJECT"')
        (folder / name / "nsx.json").write_text(text)
    lines = [{**LOG_FIELDS, "method": h, "authority": h, "path": "/" + h, "headers": [[h, h]]} for h in HOSTILE]
    (folder / "requests.ndjson").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"old": folder / "old", "new": folder / "new", "log": folder / "requests.ndjson"}


# --- one check a format


def no_acting(text: str) -> None:
    assert not ACTING.search(text.replace("\n", "").replace("\t", "")), ACTING.search(text)


def is_json(text: str) -> None:
    no_acting(text)
    json.loads(text)


def is_ndjson(text: str) -> None:
    no_acting(text)
    rows = [json.loads(line) for line in text.split("\n") if line]
    assert rows
    assert all(isinstance(row, dict) for row in rows)


def is_csv(text: str) -> None:
    no_acting(text.replace("\r\n", "\n"))
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert len({len(row) for row in rows}) == 1
    for row in rows[1:]:
        assert not [cell for cell in row if cell[:1] in "=+-@\t\r" and cell not in ("", "-") and not _is_number(cell)]


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", cell) is not None


def is_html(text: str) -> None:
    page = Elements(text)
    assert page.tags.count("script") <= 1
    assert not {"img", "iframe", "object", "embed", "link", "base", "form", "b onload=alert(1)"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "style", "action")]
    assert all((value or "").startswith("#") for name, value in page.attributes if name == "href")
    no_acting(page.text)


def is_markdown(text: str) -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="pip install markdown-it-py")
    no_acting(text)
    page = Elements(markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    allowed = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "pre", "code", "ul", "li"}
    assert set(page.tags) <= allowed, set(page.tags) - allowed
    assert not [name for name, _ in page.attributes if name != "style"]


def is_openmetrics(text: str) -> None:
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="pip install prometheus-client")
    no_acting(text)
    families = list(parser.text_string_to_metric_families(text))
    assert families
    assert {family.name for family in families} <= {
        "istio_requests", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes",
        "istio_tcp_sent_bytes", "istio_tcp_received_bytes", "istio_tcp_connections_opened",
        "istio_tcp_connections_closed",
    }  # fmt: skip


Check = Callable[[str], None]
PACKET = "tcp 10.10.0.11:40000 > 10.10.0.41:9080"
REQUEST = ["GET http://ratings:9080/ratings/0", "--from", "bookinfo/productpage-v1", "--assume-mtls"]
COMMANDS: list[tuple[str, Check]] = [
    *((f"classify -r CAPTURE -p OLD -o {form}", check) for form, check in
      (("table", no_acting), ("json", is_json), ("ndjson", is_ndjson), ("csv", is_csv))),
    *((f"classify -r CAPTURE -p OLD --by request -o {form}", check) for form, check in
      (("table", no_acting), ("json", is_json), ("ndjson", is_ndjson), ("csv", is_csv))),
    *((f"classify --requests LOG -p OLD -o {form}", check) for form, check in
      (("table", no_acting), ("json", is_json), ("ndjson", is_ndjson), ("csv", is_csv))),
    *((f"hits -r CAPTURE -p OLD -o {form}", check) for form, check in
      (("table", no_acting), ("json", is_json), ("ndjson", is_ndjson))),
    *((f"hits --requests LOG -p OLD -o {form}", check) for form, check in
      (("table", no_acting), ("json", is_json), ("ndjson", is_ndjson))),
    *((f"services --requests LOG -r CAPTURE -p OLD -o {form}", check) for form, check in
      (("table", no_acting), ("graph", is_json), ("openmetrics", is_openmetrics))),
    *((f"overlap --requests LOG -p OLD -o {form}", check) for form, check in
      (("table", no_acting), ("matrix", no_acting), ("json", is_json), ("ndjson", is_ndjson))),
    *((f"diff OLD NEW --requests LOG -r CAPTURE --from both --fail-on never -o {form}", check) for form, check in
      (("table", no_acting), ("json", is_json), ("ndjson", is_ndjson), ("markdown", is_markdown))),
    ("connectivity -p OLD", no_acting),
    ("report --requests LOG -r CAPTURE -p OLD -o OUT.html", is_html),
    ("report --requests LOG -r CAPTURE -p OLD -o OUT.md", is_markdown),
]  # fmt: skip


def words_of(command: str, world: dict[str, Path], out: Path) -> list[str]:
    names = {"OLD": str(world["old"]), "NEW": str(world["new"]), "LOG": str(world["log"]), "CAPTURE": str(CAPTURE)}
    return [names.get(word, word.replace("OUT", str(out))) for word in command.split()]


@pytest.mark.parametrize(("command", "check"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_output_holds_nothing_live(
    command: str, check: Check, world: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words_of(command, world, tmp_path / "report")) == 0
    shown = capfd.readouterr()
    no_acting(shown.err)
    written = [path.read_text() for path in tmp_path.iterdir()]
    (text,) = written or [shown.out]
    assert len(text) > 100
    check(text)


FORMS: dict[str, Check] = {"tree": no_acting, "json": is_json, "html": is_html, "traceflow": is_json}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("what", ["packet", "request", "flow"])
def test_explanations_hold_nothing_live(
    form: str, what: str, world: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    asked = {"packet": [PACKET], "request": REQUEST, "flow": ["-r", str(CAPTURE), "--flow", "4"]}[what]
    for more in ([], ["--traceflow"]):
        assert main(["explain", "-p", str(world["old"]), *asked, "-o", form, *more]) == 0
        FORMS[form](capfd.readouterr().out)


def test_ipfix_names_hold_nothing_live(world: dict[str, Path], tmp_path: Path) -> None:
    """The names of rules as tshark reads them."""
    if not shutil.which("tshark"):
        pytest.skip("no tshark here: make oracles")
    target = tmp_path / "flows.ipfix"
    command = f"classify -r CAPTURE -p OLD -o ipfix --output {target}"
    assert main(words_of(command, world, tmp_path)) == 0
    done = subprocess.run(
        ["tshark", "-r", str(target), "-T", "json", "-J", "cflow"], capture_output=True, timeout=120, check=True
    )
    document = json.loads(done.stdout)
    assert [text for text in _texts(document) if "nsx.json" in text]  # names of rules, each with where it is written
    for text in _texts(document):
        no_acting(text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
