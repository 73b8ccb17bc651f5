"""Facts about L2-L4 policy of every system: one module for each sub-folder of data/policies that has facts.

``policies FOLDER`` takes the whole folder or one of its sub-folders, ``policies/nsx FOLDER`` runs one system's facts.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.conformance.report import Report

SYSTEMS = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem[0] != "_" and "def run(" in p.read_text())


def run(folder: Path) -> Report:
    report = Report()
    for system in SYSTEMS:
        run_system = importlib.import_module(f"{__name__}.{system}").run
        report.add(run_system(folder / system if (folder / system).is_dir() else folder))
    return report
