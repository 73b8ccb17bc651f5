"""Run one subject over a folder in the format of its data set and print what is not right.

A subject is a module of this package with ``run(folder: Path) -> Report``. The last line of the output is
``SUBJECT: right N wrong N undecided N skipped N``; exit status 0 only if wrong, undecided and skipped are 0,
or within the shares that the subject's bar allows.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.conformance.report import OUTCOMES, Report


def subjects() -> list[str]:
    """Names of the subjects: every module or package here that has a ``run``; inside packages as ``policies/nsx``."""
    here = Path(__file__).parent
    found = []
    for path in [*here.glob("*.py"), *here.glob("*/*.py")]:
        if path.name != "__main__.py" and "\ndef run(" in path.read_text():
            name = path.parent if path.name == "__init__.py" else path.with_suffix("")
            found.append(name.relative_to(here).as_posix())
    return sorted(found)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("subject", choices=subjects())
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        parser.error(f"{options.folder} is not a folder")
    module = importlib.import_module(f"tests.conformance.{options.subject.replace('/', '.')}")
    report: Report = module.run(options.folder)
    if options.json:
        counts = {outcome: report.counts[outcome] for outcome in OUTCOMES}
        cases = [asdict(case) for case in report.cases]
        print(json.dumps({"subject": options.subject, **counts, "cases": cases, "notes": report.notes}))
    else:
        for case in report.cases:
            print(f"{case.outcome}: {case.file}: {case.reason}")
        for note in report.notes:
            print(f"note: {note}")
        print(report.summary(options.subject))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
