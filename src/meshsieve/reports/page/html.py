"""The report as one HTML page: no network, no data in scripts, complete without them.

Everything from captures and policies reaches the page as escaped text (Jinja's autoescape, ``printable`` before it).
The one script and the one style sheet are ours, and the page's content policy names them by hash: nothing else runs.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from meshsieve.extras import require
from meshsieve.reports.escape import printable
from meshsieve.reports.page.model import Report
from meshsieve.reports.page.service_map import service_map
from meshsieve.reports.page.timeline_chart import time_text, timeline_chart
from meshsieve.reports.text import byte_text, fit

_NUMERIC = frozenset({"flows", "packets", "bytes", "port", "requests", "answer", "pairs"})
_LABEL, _CLIPPED = 30, 60  # characters of a name in a narrow place, and of a list of ranges


def report_html(report: Report) -> str:
    """The whole page; needs the ``report`` extra."""
    jinja2, markup = require("jinja2", "report"), require("markupsafe", "report")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters.update(
        shown=printable,
        short=lambda text: fit(printable(text), _LABEL),
        clip=lambda text: fit(text, _CLIPPED),
        bytes=byte_text,
        time=time_text,
        initial=_initial,
        rules=lambda rules: "; ".join(f"{layer}: {rule}" for layer, rule, _ in rules),
        counted=lambda verdicts: ", ".join(f"{flows:,} {name}" for name, flows in sorted(verdicts.items())),
    )
    style, script = _file("report.css"), _file("report.js")
    page: str = environment.from_string(_file("report.html.jinja")).render(
        report=report,
        map=service_map(report.links),
        chart=timeline_chart(report.times),
        numeric=_NUMERIC,
        style=markup.Markup(style),  # our own files: they go into the page as they are
        script=markup.Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )
    return page


def _initial(kind: str) -> str:
    """A class of overlap in a cell of the matrix: its colour alone would not do for everybody."""
    return {"L4 only": "4", "L7 only": "7", "undecided": "?"}.get(kind, kind[0].upper())


def _file(name: str) -> str:
    return resources.files("meshsieve.reports.page").joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
