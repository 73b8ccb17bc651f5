"""From a stream of verdicts to what a report says, in bounded memory.

Cost     a batch's flows are grouped by both ends, protocol, port, application and verdict with one sort; what follows
         runs once a group. Pairs of peers and services beyond ``KEPT`` push out the smallest (observability.talkers).
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from meshsieve import __version__
from meshsieve.classification import ClassifiedBatch
from meshsieve.decision import ACTION_NAMES, DecisionTables
from meshsieve.observability.rule_statistics import RuleCounter, not_exercised
from meshsieve.observability.talkers import HeavyHitters
from meshsieve.observability.timeline import Timeline
from meshsieve.policy import Diagnostic, owner_name
from meshsieve.reports.page.model import (
    SEVERITY,
    Finding,
    Link,
    OverlapMatrix,
    Peer,
    Report,
    RequestGroup,
    Requests,
    RuleKey,
    ServiceTotal,
    Talker,
    Times,
)
from meshsieve.set_text import address_text
from meshsieve.summary import Summary

if TYPE_CHECKING:
    from meshsieve.walk.captured import RequestRows

KEPT = 20_000
SHOWN = 400
SHOWN_RULES = 2_000
SHOWN_FINDINGS = 500
SHOWN_UNUSED = 50
TALKERS = 5  # of a rule that are shown
# Counted for a rule; for those that are met when many have been met already, fewer: the sum stays bounded.
TALKERS_COUNTED, MANY_RULES, TALKERS_COUNTED_LATE = 64, 1000, 8

# Kubernetes owners are called namespace/name[Kind].
_CONTROLLER = re.compile(r"\[[A-Z][A-Za-z]*\]\Z")

Array = npt.NDArray[Any]
Volume = tuple[int, int, int]  # flows, packets, bytes


class Gatherer:
    """Takes batches of classified flows; ``report`` puts them together."""

    def __init__(self, tables: DecisionTables) -> None:
        self._tables = tables
        self._rules = RuleCounter(tables)
        self._timeline = Timeline(len(ACTION_NAMES))
        self._links: _Totals[tuple[Peer, Peer]] = _Totals()
        self._services: _Totals[tuple[Peer, str, int, str]] = _Totals()
        self._apps: dict[str, Volume] = {}
        self._first_ns, self._last_ns = np.iinfo(np.int64).max, 0
        self._peers: dict[tuple[int, int, int], Peer] = {}
        self._talkers: dict[tuple[int, int, int], HeavyHitters[tuple[Peer, Peer, int]]] = {}
        self._keys: dict[tuple[int, int, int], RuleKey] = {}
        self._requests: HeavyHitters[RequestGroup] = HeavyHitters(KEPT)
        self._request_actions: dict[str, int] = {}
        self._requests_first_ns, self._requests_last_ns = np.iinfo(np.int64).max, 0

    def add_requests(self, rows: RequestRows) -> None:
        """Some rows of ``classify_requests`` or ``classify_log``."""
        verdicts, status = rows.verdicts, np.asarray(rows.seen["status"], np.int64)
        times = verdicts.columns.native.numbers("time_ns", 0)
        if (known := times[times > 0]).size:
            self._requests_first_ns = min(self._requests_first_ns, int(known.min()))
            self._requests_last_ns = max(self._requests_last_ns, int(known.max()))
        for i, count in verdicts.groups(status):
            request, decider = verdicts.columns.request(i), verdicts.deciding(i)
            group = RequestGroup(
                verdicts.action(i),
                decider.layer if decider else "",
                (decider.rule or decider.reason) if decider else "",
                (decider.source or "") if decider else "",
                self._peer_at(request.source_ip),
                self._peer_at(request.destination_ip),
                request.method,
                request.authority + request.path.partition("?")[0],  # a query may hold what nobody should see
                int(status[i]),
            )
            self._requests.add([(group, count)])
            self._request_actions[group.action] = self._request_actions.get(group.action, 0) + count

    def add(self, batch: ClassifiedBatch) -> None:
        """One batch of ``classify_pcap(by="flow")``."""
        if not len(batch):
            return
        self._rules.add(batch)
        first, last = batch["first_ns"], batch["last_ns"]
        self._first_ns = min(self._first_ns, int(first.min()))
        self._last_ns = max(self._last_ns, int(last.max()))
        self._timeline.add(batch.decisions.action.astype(np.intp), first, last, batch["packets"])
        columns = {column.name: column for column in batch.columns}
        packets, octets = batch["packets"].astype(np.int64), batch["bytes"].astype(np.int64)
        protocols, apps = columns["proto"].table, columns["app"].table
        assert protocols is not None
        assert apps is not None
        for rows, group in _groups(batch):
            version, proto, port, app, action, point, rule = (
                int(group[name]) for name in ("version", "proto", "port", "app", "action", "point", "rule")
            )
            decider = (point, rule, action)
            source = self._peer(version, int(group["src"][0]), int(group["src"][1]))
            target = self._peer(version, int(group["dst"][0]), int(group["dst"][1]))
            volume = (len(rows), int(packets[rows].sum()), int(octets[rows].sum()))
            verdict = ACTION_NAMES[action]
            application = (apps.texts[app] if app >= 0 else None) or ""
            protocol = (protocols.texts[proto] if proto >= 0 else None) or "?"
            self._links.add((source, target), verdict, volume)
            self._services.add((target, protocol, port, application), verdict, volume)
            self._apps[application] = _plus(self._apps.get(application, (0, 0, 0)), volume)
            if point >= 0:
                heard = self._talkers.get(decider)
                if heard is None:
                    few = len(self._talkers) >= MANY_RULES
                    heard = self._talkers[decider] = HeavyHitters(TALKERS_COUNTED_LATE if few else TALKERS_COUNTED)
                    names = [columns[name].value(int(rows[0])) for name in ("rule", "source")]
                    self._keys[decider] = (self._tables.points[point].title, *names, verdict)
                heard.add([((source, target, port), volume[2])])

    def report(
        self,
        summary: Summary,
        diagnostics: Sequence[Diagnostic],
        *,
        title: str,
        captures: Sequence[str],
        policies: Sequence[str],
        command: str,
        logs: Sequence[str] = (),
        overlap: OverlapMatrix | None = None,
    ) -> Report:
        """Everything so far."""
        if not self._last_ns and self._requests_last_ns:  # of logs alone
            self._first_ns, self._last_ns = self._requests_first_ns, self._requests_last_ns
        starts, amounts = self._timeline.bins()
        series = {
            name: tuple(float(v) for v in row) for name, row in zip(ACTION_NAMES, amounts, strict=True) if row.any()
        }
        rules = tuple(self._rules.rows())
        links = tuple(
            Link(source, target, *volume, verdicts) for (source, target), volume, verdicts in self._links.largest(SHOWN)
        )
        links = links or self._request_links()
        services = tuple(
            ServiceTotal(peer, proto, port, app, *volume, verdicts)
            for (peer, proto, port, app), volume, verdicts in self._services.largest(SHOWN)
        )
        apps = sorted(self._apps.items(), key=lambda item: (-item[1][2], item[0]))
        return Report(
            title,
            tuple(captures),
            tuple(policies),
            command,
            __version__,
            int(self._first_ns) if self._last_ns else 0,
            self._last_ns,
            replace(summary, rules=summary.rules[:SHOWN_RULES]),
            Times(tuple(int(s) for s in starts), self._timeline.width_ns, series),
            links,
            services,
            tuple((name or "unknown", *volume) for name, volume in apps[:SHOWN]),
            rules,
            tuple(_findings(summary, diagnostics, [r.rule + " " + r.source for r in not_exercised(list(rules))])),
            self._links.exact and self._services.exact and self._requests.exact,
            self._request_groups(),
            tuple(logs),
            {
                self._keys[decider]: tuple(
                    Talker(*heavy.key, heavy.total, not heavy.error) for heavy in heard.top(TALKERS)
                )
                for decider, heard in self._talkers.items()
            },
            overlap,
            {
                "rules": max(0, len(summary.rules) - SHOWN_RULES),
                "services": max(0, len(self._services) - SHOWN),
                "pairs": max(0, len(self._links) - SHOWN),
                "applications": max(0, len(apps) - SHOWN),
                "requests": max(0, len(self._requests) - SHOWN),
            },
        )

    def _request_links(self) -> tuple[Link, ...]:
        """Who asks whom, of logs without captures: links of requests, in place of flows."""
        out: dict[tuple[Peer, Peer], Link] = {}
        for heavy in self._requests.top(KEPT):
            pair = heavy.key.client, heavy.key.server
            link = out.setdefault(pair, Link(*pair))
            link.flows += heavy.total
            link.verdicts[heavy.key.action] = link.verdicts.get(heavy.key.action, 0) + heavy.total
        return tuple(sorted(out.values(), key=lambda link: -link.flows)[:SHOWN])

    def _request_groups(self) -> Requests | None:
        if not self._request_actions:
            return None
        groups = [replace(heavy.key, count=heavy.total) for heavy in self._requests.top(KEPT)]
        groups.sort(key=lambda group: (SEVERITY.index(group.action), -group.count))
        return Requests(dict(self._request_actions), tuple(groups[:SHOWN]))

    def _peer_at(self, address: str | None) -> Peer:
        if address is None:
            return Peer("?", False)
        number = ipaddress.ip_address(address)
        return self._peer(number.version, int(number) >> 64, int(number) & 2**64 - 1)

    def _peer(self, version: int, high: int, low: int) -> Peer:
        key = (version, high, low)
        known = self._peers.get(key)
        if known is None:
            if len(self._peers) > KEPT:
                self._peers.clear()  # a cache: what is met again is looked up again
            known = self._peers[key] = self._owner(version, high << 64 | low)
        return known

    def _owner(self, version: int, address: int) -> Peer:
        name = owner_name(self._tables.layers, version, address)
        if name is not None:
            return Peer(_CONTROLLER.sub("", name), True)
        return Peer(address_text(version, address) if version in (4, 6) else "no IP", False)


Key = TypeVar("Key", bound=Hashable)


class _Totals(Generic[Key]):
    """Volume and verdicts by key, for the keys with the most bytes."""

    def __init__(self) -> None:
        self._bytes: HeavyHitters[Key] = HeavyHitters(KEPT)
        self._volumes: dict[Key, Volume] = {}
        self._verdicts: dict[Key, dict[str, int]] = defaultdict(dict)

    def add(self, key: Key, verdict: str, volume: Volume) -> None:
        self._bytes.add([(key, volume[2])])
        if len(self._volumes) > 2 * KEPT:
            self._forget()
        self._volumes[key] = _plus(self._volumes.get(key, (0, 0, 0)), volume)
        verdicts = self._verdicts[key]
        verdicts[verdict] = verdicts.get(verdict, 0) + volume[0]

    @property
    def exact(self) -> bool:
        return self._bytes.exact

    def __len__(self) -> int:
        """Number of keys that are counted."""
        return len(self._bytes)

    def largest(self, n: int) -> list[tuple[Key, Volume, dict[str, int]]]:
        return [(key, self._volumes[key], dict(self._verdicts[key])) for key, _, _ in self._bytes.top(n)]

    def _forget(self) -> None:
        kept = {heavy.key for heavy in self._bytes.top(KEPT)}
        self._volumes = {key: volume for key, volume in self._volumes.items() if key in kept}
        self._verdicts = defaultdict(dict, {key: v for key, v in self._verdicts.items() if key in kept})


_GROUP = np.dtype(
    [
        ("src", "u8", 2),
        ("dst", "u8", 2),
        ("port", "i4"),
        ("proto", "i4"),
        ("app", "i4"),
        ("rule", "i4"),
        ("point", "i2"),
        ("version", "u1"),
        ("action", "u1"),
    ]
)


def _groups(batch: ClassifiedBatch) -> list[tuple[Array, Any]]:
    """(rows, key) of the flows that agree in both ends, protocol, server port, application and decider."""
    columns = {column.name: column for column in batch.columns}
    keys = np.zeros(len(batch), _GROUP)
    for end in ("src", "dst"):
        keys[end] = columns[end].data
    version = columns["src"].version
    keys["version"] = 0 if version is None else version
    for name, column in (("port", "dport"), ("proto", "proto"), ("app", "app")):
        keys[name] = columns[column].data
    for name in ("action", "point", "rule"):
        keys[name] = getattr(batch.decisions, name)
    raw = np.ascontiguousarray(keys).view(f"V{_GROUP.itemsize}")
    _, starts, inverse = np.unique(raw, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    bounds = np.searchsorted(inverse[order], np.arange(len(starts) + 1))
    return [(order[bounds[i] : bounds[i + 1]], keys[starts[i]]) for i in np.argsort(starts)]


def _plus(a: Volume, b: Volume) -> Volume:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def _findings(summary: Summary, diagnostics: Sequence[Diagnostic], unused: Sequence[str]) -> list[Finding]:
    found = [Finding("warning", note) for note in summary.notes]
    told = diagnostics[:SHOWN_FINDINGS]
    found += [Finding(d.level, d.message + (f" ({d.hint})" if d.hint else ""), d.where) for d in told]
    if more := len(diagnostics) - len(told):
        found.append(Finding("note", f"{more:,} more findings; meshsieve convert lists them all"))
    for reason, count in summary.open.items():
        found.append(Finding("open", f"{count.flows:,} flows, {count.packets:,} packets not decided: {reason}"))
    found += [Finding("note", f"not exercised by this traffic: {rule}") for rule in unused[:SHOWN_UNUSED]]
    if len(unused) > SHOWN_UNUSED:
        found.append(Finding("note", f"{len(unused) - SHOWN_UNUSED:,} more rules were not exercised"))
    return found
