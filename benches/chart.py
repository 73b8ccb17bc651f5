"""Charts of results of ``python -m benches packets``: look-up time against the number of rules, and ratio bars.

    python -m benches.chart RESULT.json... [--out FOLDER]

Rows of several results of one machine and commit go into one chart; where they share a case, the last one counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benches.report import RESULTS, Row

COLOURS = {"ours": "#0b6e4f", "rte_acl": "#c1666b", "rte_acl_avx512": "#8b2635", "linear_scan": "#8a8d91"}
LABELS = {"ours": "meshsieve", "rte_acl": "DPDK rte_acl (AVX2)", "rte_acl_avx512": "DPDK rte_acl (AVX-512)",
          "linear_scan": "AVX2 linear scan"}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.chart", description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER")
    options = parser.parse_args()
    results = [json.loads(path.read_text()) for path in options.results]
    machines = {(result["machine"]["cpu"], result["machine"]["commit"]) for result in results}
    if len(machines) > 1:
        parser.error(f"the results are of several machines or commits: {sorted(machines)}")
    rows = {row["case"]: row for result in results for row in result["rows"]}
    for path in draw(results[-1] | {"rows": list(rows.values())}, options.out):
        print(path)
    return 0


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """The SVG files written into ``folder``; a chart without rows is not drawn.

    raises  ImportError without matplotlib (the ``bench`` extra)
    """
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"font.size": 9, "svg.hashsalt": "meshsieve", "axes.spines.top": False})
    folder.mkdir(parents=True, exist_ok=True)
    uniform = [row for row in result["rows"] if row.get("trace") == "uniform" and row["ours_ns"]]
    drawn = []
    grown = [row for row in uniform if row["family"] in ("acl1", "fw1", "ipc1")]
    if len({row["rules"] for row in grown}) > 1:
        drawn.append(_growth(grown, result["machine"], folder / "packets-growth.svg"))
    ratios = [row for row in uniform if row["suite"] == "families" and row["ratio"]]
    if ratios:
        drawn.append(_ratios(ratios, result["machine"], folder / "packets-ratios.svg"))
    return drawn


def _growth(rows: list[Row], machine: dict[str, Any], path: Path) -> Path:
    """Nanoseconds per header against rules, both logarithmic, one panel a family."""
    from matplotlib import pyplot, ticker

    families = sorted({row["family"] for row in rows})
    figure, panels = pyplot.subplots(1, len(families), figsize=(3.4 * len(families), 3.4), sharey=True, squeeze=False)
    for panel, family in zip(panels[0], families, strict=True):
        some = sorted((row for row in rows if row["family"] == family), key=lambda row: row["rules"])
        for name in LABELS:
            points = [(row["rules"], _ns(row, name)) for row in some if _ns(row, name)]
            if points:
                panel.plot(*zip(*points, strict=True), marker="o", ms=3, color=COLOURS[name], label=LABELS[name])
        panel.set(title=family, xscale="log", yscale="log", xlabel="rules")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_minor_formatter(ticker.NullFormatter())
        panel.grid(alpha=0.25)
    panels[0][0].set_ylabel("ns per header, one core")
    panels[0][0].legend(frameon=False, fontsize=8)
    return _finish(figure, machine, path)


def _ratios(rows: list[Row], machine: dict[str, Any], path: Path) -> Path:
    """Best peer / ours, one bar a family and size; bars below 1 are lost."""
    from matplotlib import pyplot

    sizes = sorted({row["asked"] for row in rows})
    figure, panels = pyplot.subplots(1, len(sizes), figsize=(3.4 * len(sizes), 3.4), squeeze=False)
    for panel, size in zip(panels[0], sizes, strict=True):
        some = [row for row in rows if row["asked"] == size]
        panel.barh(
            [row["family"] for row in some],
            [row["ratio"] for row in some],
            color=[COLOURS["ours"] if row["ratio"] >= 1 else COLOURS["rte_acl"] for row in some],
        )
        panel.axvline(1, color="black", lw=0.8)
        panel.invert_yaxis()
        panel.set(title=f"{size:,} rules", xlabel="best peer / meshsieve (times faster)")
    return _finish(figure, machine, path)


def _ns(row: Row, name: str) -> float | None:
    ns: float | None = row["ours_ns"] if name == "ours" else row["peers_ns"].get(name)
    return ns


def _finish(figure: Any, machine: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    figure.text(
        0.01, 0.005, f"uniform traces, {machine['cpu']}, commit {machine['commit']}", fontsize=7, color="#666666"
    )
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main())
