"""The report: complete without scripts, harmless whatever names it meets, the same each time it is made."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

import meshsieve
from meshsieve.cli.main import main
from meshsieve.reports.page import gather
from meshsieve.reports.page.gather import Gatherer
from meshsieve.reports.page.html import report_html
from meshsieve.reports.page.markdown import report_markdown
from meshsieve.reports.page.model import Link, Peer, Report
from meshsieve.reports.page.service_map import MAX_NODES, service_map
from tests.observability.renaming import rename_objects

DEMO = Path(__file__).parents[2] / "examples" / "demo"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; alert(1); '",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{ 7 * 7 }}",
    "| cell | [link](http://x) `code` **bold**",
    "\x1b[31mred\u202ereversed",
]


def made(policy: list[Path], title: str = "Demo") -> Report:
    engine = meshsieve.load(policy)
    gatherer = Gatherer(engine.tables)
    result = engine.classify_pcap(DEMO / "demo.pcap")
    for batch in result:
        gatherer.add(batch)
    names = {"captures": ["demo.pcap"], "policies": [p.name for p in policy]}
    return gatherer.report(result.summary(), engine.diagnostics, title=title, command="meshsieve report", **names)


@pytest.fixture(scope="module")
def report() -> Report:
    return made([DEMO / "nsx.json", DEMO / "edge.rules"])


@pytest.fixture
def hostile_policy(tmp_path: Path) -> Path:
    """The demonstration's policy, every name of a rule and a machine replaced by a hostile one."""
    document = json.loads((DEMO / "nsx.json").read_text())
    rename_objects(document, HOSTILE)
    path = tmp_path / "<b onload=alert(1)>.json"
    path.write_text(json.dumps(document))
    return path


class Elements(HTMLParser):
    """What a browser would build: elements, attributes, text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_totals_of_every_part_agree(report: Report) -> None:
    total = report.summary.total
    assert sum(link.flows for link in report.links) == total.flows
    assert sum(service.packets for service in report.services) + 3 == total.packets  # three frames without IP
    assert sum(flows for _, flows, _, _ in report.apps) == total.flows
    assert sum(sum(series) for series in report.times.series.values()) == pytest.approx(total.packets - 3)
    assert report.exact


def test_the_page_needs_no_script_and_no_network(report: Report) -> None:
    page = report_html(report)
    elements = Elements(page)
    assert elements.tags.count("script") == 1
    assert not {"link", "img", "iframe", "object", "embed", "base", "form"} & set(elements.tags)
    assert not [name for name, _ in elements.attributes if name.startswith("on") or name in ("src", "style", "action")]
    assert all(value is not None and value.startswith("#") for name, value in elements.attributes if name == "href")
    assert "default-src 'none'" in page
    assert "office-surfs" in elements.text
    assert elements.tags.count("tr") > len(report.summary.rules)


def test_hostile_names_are_text_and_nothing_else(hostile_policy: Path) -> None:
    plain = Elements(report_html(made([DEMO / "nsx.json"])))
    hostile = Elements(report_html(made([hostile_policy], title=HOSTILE[3])))
    assert sorted(set(hostile.tags)) == sorted(set(plain.tags))
    assert hostile.tags.count("script") == 1
    assert {name for name, _ in hostile.attributes} == {name for name, _ in plain.attributes}
    assert "<script>alert(1)</script>" in hostile.text
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]", hostile.text)


def test_markdown_stays_in_its_cells(hostile_policy: Path) -> None:
    text = report_markdown(made([hostile_policy], title="a | b\n# c"))
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(blocks) > 3
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    assert "<" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert text.count("\n# ") == 0


def test_the_same_capture_gives_the_same_bytes(report: Report) -> None:
    assert report_html(report) == report_html(made([DEMO / "nsx.json", DEMO / "edge.rules"]))


def test_beyond_the_largest_peers_one_node_stands_for_the_rest() -> None:
    hub = Peer("hub", True)
    links = [Link(Peer(f"10.0.{i // 250}.{i % 250}", False), hub, 1, 1, 1000 - i, {"ALLOW": 1}) for i in range(200)]
    drawn = service_map(links)
    assert len(drawn.nodes) == MAX_NODES + 1
    assert any(node.name == f"{201 - MAX_NODES} other addresses" for node in drawn.nodes)
    assert sum(node.bytes for node in drawn.nodes if node.name == "hub") == sum(link.bytes for link in links)


def test_the_verb_writes_the_page_and_the_markdown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["report", "-r", str(DEMO / "demo.pcap"), "-p", str(DEMO / "nsx.json"), "-o"]
    assert main([*command, str(tmp_path / "r.html")]) == 0
    assert main([*command, str(tmp_path / "r.md")]) == 0
    assert (tmp_path / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert (tmp_path / "r.md").read_text().startswith("# ")
    assert main([*command, str(tmp_path / "r.pdf")]) == 2
    assert "which says what to write" in capfd.readouterr().err
    assert not (tmp_path / "r.pdf").exists()


def test_a_real_browser_runs_our_script_and_nothing_else(hostile_policy: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium here: apt-get install chromium")
    path = tmp_path / "report.html"
    path.write_text(report_html(made([hostile_policy], title=HOSTILE[0])))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=2000"]
    shown = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    dom = Elements(shown.stdout)
    assert ("class", "scripted") in dom.attributes  # our script ran
    assert ("aria-sort", "none") in dom.attributes
    assert dom.tags.count("script") == 1
    assert not [name for name, _ in dom.attributes if name.startswith("on")]


def test_requests_are_in_the_report_where_the_policy_speaks_of_them(tmp_path: Path) -> None:
    bookinfo = DEMO.parent / "bookinfo"
    command = ["report", "-r", str(bookinfo / "bookinfo.pcap"), "-p", str(bookinfo / "policy"), "--assume-mtls", "-o"]
    assert main([*command, str(tmp_path / "r.html")]) == 0
    text = Elements((tmp_path / "r.html").read_text()).text
    assert "200 ALLOW" in text
    assert "10 REJECT" in text
    assert "DELETE ratings:9080/ratings/0" in text
    assert "u=normal" not in text  # queries are left out
    assert main([*command, str(tmp_path / "r.md")]) == 0
    assert "## Requests" in (tmp_path / "r.md").read_text()


def test_every_rule_names_its_largest_talkers(report: Report) -> None:
    """Sums of the talkers of a rule are its bytes, where all of them are shown."""
    whole = [r for r in report.summary.rules if 0 < len(report.talkers_of(r)) < 5]
    assert len(whole) > 3
    for rule in whole:
        assert sum(t.bytes for t in report.talkers_of(rule)) == rule.count.bytes
        assert all(t.exact for t in report.talkers_of(rule))


def test_the_overlap_of_layers_is_in_the_report(tmp_path: Path) -> None:
    bookinfo = DEMO.parent / "bookinfo"
    command = ["report", "-r", str(bookinfo / "bookinfo.pcap"), "-p", str(bookinfo / "policy"), "--assume-mtls", "-o"]
    assert main([*command, str(tmp_path / "r.html")]) == 0
    page = Elements((tmp_path / "r.html").read_text())
    assert "Which layer protects whom" in page.text
    assert "GET http://details-v1-5f4d.bookinfo:9080" in page.text
    assert page.tags.count("table") > 7
    assert main([*command, str(tmp_path / "without.html"), "--no-overlap"]) == 0
    assert "Which layer protects whom" not in (tmp_path / "without.html").read_text()


def test_a_log_alone_makes_a_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bookinfo = DEMO.parent / "bookinfo"
    log = tmp_path / "some.log"
    text = gzip.decompress((bookinfo / "access.log.gz").read_bytes()).decode()
    log.write_text(text + "{\n")
    command = ["report", "--requests", str(log), "-p", str(bookinfo / "policy"), "--assume-mtls", "-o"]
    assert main([*command, str(tmp_path / "r.html")]) == 2  # one line is no request, and the report says so
    assert "207: not a request" in capfd.readouterr().err
    page = Elements((tmp_path / "r.html").read_text())
    assert "6 of 206 requests are denied." in page.text
    assert "2025-11-24 16:00:0" in page.text
    assert ":207: not a request" in page.text
    assert page.tags.count("path") >= 5  # the map is drawn from requests


def chart_command(policy: Path, capture: Path, *more: str) -> list[str]:
    return ["report", "-r", str(capture), "-p", str(policy), *more]


@pytest.mark.parametrize("form", ["svg", "png"])
def test_charts_are_drawn_and_the_same_each_time(form: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'meshsieve[charts]'")
    bookinfo = DEMO.parent / "bookinfo"
    command = chart_command(bookinfo / "policy", bookinfo / "bookinfo.pcap", "--assume-mtls", "--chart-format", form)
    for folder in ("a", "b"):
        assert main([*command, "-o", str(tmp_path / f"{folder}.{form}"), "--charts", str(tmp_path / folder)]) == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    wanted = ("verdicts", "rules", "applications", "requests", "services", "overlap")
    assert names == {f"{name}.{form}" for name in wanted}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    sheet = (tmp_path / f"a.{form}").read_bytes()
    assert sheet == (tmp_path / f"b.{form}").read_bytes()
    if form == "svg":
        text = " ".join(ElementTree.fromstring(sheet).itertext())
        assert "Flows by deciding rule" in text
        assert "page-to-page" in text
    else:
        assert sheet.startswith(b"\x89PNG\r\n")


def test_charts_without_matplotlib_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    target = tmp_path / "charts.svg"
    assert main(chart_command(DEMO / "nsx.json", DEMO / "demo.pcap", "-o", str(target))) == 2
    assert "pip install 'meshsieve[charts]'" in capfd.readouterr().err
    assert not target.exists()


def test_hostile_names_are_text_in_charts(hostile_policy: Path, tmp_path: Path) -> None:
    """By an independent XML parser: the elements are those of harmless names, and nothing is a link or script."""
    pytest.importorskip("matplotlib", reason="pip install 'meshsieve[charts]'")
    kinds = []
    for name, policy in (("plain", DEMO / "nsx.json"), ("hostile", hostile_policy)):
        target = tmp_path / f"{name}.svg"
        more = ["-o", str(target), "--title", HOSTILE[0] if name == "hostile" else "plain"]
        assert main(chart_command(policy, DEMO / "demo.pcap", *more)) == 0
        root = ElementTree.fromstring(target.read_bytes())
        kinds.append({element.tag.rpartition("}")[2] for element in root.iter()})
        text = "".join(root.itertext())
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]", text)
        attributes = {key.rpartition("}")[2] for element in root.iter() for key in element.attrib}
        assert not [key for key in attributes if key.startswith("on")]
        links = [v for e in root.iter() for k, v in e.attrib.items() if k.rpartition("}")[2] == "href"]
        assert all(link.startswith("#") for link in links)
    assert kinds[0] == kinds[1]
    assert not {"script", "a", "foreignObject", "image"} & kinds[1]
    assert "<script>alert(1)</script>" in text


def test_tables_are_bounded_and_say_how_many_rows_they_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "SHOWN", 3)
    monkeypatch.setattr(gather, "SHOWN_RULES", 2)
    report = made([DEMO / "nsx.json", DEMO / "edge.rules"])
    whole = len(report.summary.rules), len(report.services), len(report.links)
    assert whole == (2, 3, 3)
    assert min(report.more["rules"], report.more["services"], report.more["pairs"]) > 0
    text = Elements(report_html(report)).text
    for section in ("rules", "services", "pairs"):
        assert f"and {report.more[section]:,} more" in text
        assert f"and {report.more[section]:,} more" in report_markdown(report)
