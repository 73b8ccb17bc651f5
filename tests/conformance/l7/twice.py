"""Every answer of a router given twice: by the compiled table, and by the linear reference, which must agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from meshsieve.request import Request
from meshsieve.routes.router import Match, Router
from tests.conformance.report import Report
from tests.reference import routes as reference


@contextmanager
def asked_twice(report: Report) -> Iterator[None]:
    """While the block runs, each ``Router.match``, whoever calls it, is compared with the reference; a difference is
    counted as wrong."""
    compiled = Router.match

    def match(router: Router, request: Request) -> Match:
        found = compiled(router, request)
        expected = max(reference.find(router.config, router.options, request), -1)
        if found.route_index != expected:
            what = f"{request.method} {request.authority}{request.path}"
            report.wrong(f"compiled table of {router.config.name}", f"{what}: {found.route_index}, not {expected}")
        return found

    Router.match = match  # type: ignore[method-assign]
    try:
        yield
    finally:
        Router.match = compiled  # type: ignore[method-assign]
