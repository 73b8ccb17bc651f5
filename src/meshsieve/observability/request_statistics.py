"""How many requests each rule of layer 7 decided, and which rules none of them ever met: routes and authorization.

What     A hit is a request that the layer answered by this rule. Rules without any are listed as well: of authorization
         every rule of every policy, of routes those of the tables that need no request to be told (gateways, ingress
         classes, Services with routes of their own).
Limits   Routes that a sidecar makes up for a Service without routes of its own count by that Service.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meshsieve.mesh.tables import gateway_tables, service_tables
from meshsieve.observability.rule_statistics import RuleStatistics
from meshsieve.routes.model import host_routes
from meshsieve.walk.request_walk import AUTHORIZATION, ROUTE
from meshsieve.walk.verdict import ALLOW, DENIALS

if TYPE_CHECKING:
    from meshsieve.walk.captured import RequestRows
    from meshsieve.walk.mesh_policy import MeshPolicy

Key = tuple[str, str, str]  # layer, rule, source


@dataclass(slots=True)
class _Hits:
    accepted: int = 0
    rejected: int = 0
    other: int = 0
    first_ns: int | None = None
    last_ns: int | None = None

    def time(self, first_ns: int, last_ns: int) -> None:
        self.first_ns = first_ns if self.first_ns is None else min(self.first_ns, first_ns)
        self.last_ns = last_ns if self.last_ns is None else max(self.last_ns, last_ns)


class RequestRuleCounter:
    """Counts batches of judged requests.

    points  count the rules of layers 2-4 as well, by requests: for logs, whose connections nobody else counts
    """

    def __init__(self, policy: MeshPolicy, *, points: bool = False) -> None:
        self._points = points
        self._hits: dict[Key, _Hits] = {key: _Hits() for key in _rules(policy)}

    def add(self, rows: RequestRows) -> None:
        verdicts = rows.verdicts
        times = verdicts.columns.native.numbers("time_ns", 0)
        for layer in verdicts.layers:
            if layer.name not in (ROUTE, AUTHORIZATION) and not self._points:
                continue
            counts = np.bincount(layer.codes, minlength=len(layer.answers.verdicts))
            for code in np.flatnonzero(counts):
                found = layer.answers.verdicts[code]
                if found.rule is None:
                    continue
                hits = self._hits.setdefault((layer.name, found.rule, found.source or ""), _Hits())
                if found.verdict == ALLOW:
                    hits.accepted += int(counts[code])
                elif found.verdict in DENIALS:
                    hits.rejected += int(counts[code])
                else:
                    hits.other += int(counts[code])
                when = times[(layer.codes == code) & (times > 0)]
                if len(when):
                    hits.time(int(when.min()), int(when.max()))

    def rows(self) -> Iterator[RuleStatistics]:
        """Every rule of layer 7, those without hits too; ``index`` is its place in this list."""
        for index, ((layer, rule, source), hits) in enumerate(self._hits.items()):
            count = hits.accepted + hits.rejected + hits.other
            yield RuleStatistics(
                layer, rule, source, index, count, 0, 0, 0, 0, 0.0, hits.first_ns, hits.last_ns,
                l7_accept_count=hits.accepted, l7_reject_count=hits.rejected,
            )  # fmt: skip


def _rules(policy: MeshPolicy) -> Iterator[Key]:
    tables = [policy.routes.config] if policy.routes is not None else []
    if policy.mesh is not None:
        tables += [config for _, config in (*gateway_tables(policy.mesh), *service_tables(policy.mesh))]
    for config in tables:
        for host in config.virtual_hosts:
            for route in host_routes(host):
                yield ROUTE, route.name or "route without a name", str(route.source)
    for authorization in policy.authorizer.policies if policy.authorizer is not None else ():
        for number, spec in enumerate(authorization.rules):
            if spec is not None:
                yield AUTHORIZATION, f"{authorization.title}-rule[{number}]", str(spec.source)
