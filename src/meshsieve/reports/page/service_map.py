"""Where the nodes and edges of the service map stand: a drawing in three columns that needs no script.

What     Peers that only call stand on the left, those that only serve on the right, the rest between. Within a column a
         peer stands near those it talks to (one barycentre sweep each way), so that edges cross less.
Limits   The ``MAX_NODES`` peers with the most traffic are drawn; the others are one node, "N other addresses".
Source   Barycentres: Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures",
         IEEE Transactions on Systems, Man, and Cybernetics, 1981.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshsieve.reports.page.model import SEVERITY, Link, Peer

MAX_NODES = 40
WIDTH, TOP = 1000, 40
_ROW, _ROOMY_ROW, _ROOMY = 30, 48, 12  # pixels between nodes; and where a column has no more than so many
_COLUMNS = (180, 500, 820)  # x of callers, both, servers


@dataclass(frozen=True, slots=True)
class DrawnNode:
    number: int
    name: str
    known: bool
    x: int
    y: int
    anchor: str
    label_x: int
    label_y: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DrawnEdge:
    """A curve; ``width`` grows with the logarithm of the bytes. verdict is the one to look at first."""

    source: int
    target: int
    path: str
    width: float
    verdict: str
    tip: str


@dataclass(frozen=True, slots=True)
class ServiceMap:
    width: int
    height: int
    nodes: tuple[DrawnNode, ...]
    edges: tuple[DrawnEdge, ...]


def service_map(links: Sequence[Link]) -> ServiceMap:
    """The drawing of the links among the largest peers."""
    volume: dict[Peer, int] = defaultdict(int)
    for link in links:
        volume[link.source] += link.bytes
        volume[link.target] += link.bytes
    largest = sorted(volume, key=lambda peer: (-volume[peer], peer.name))
    drawn = set(largest[:MAX_NODES])
    rest = Peer(f"{len(largest) - MAX_NODES:,} other addresses", False) if len(largest) > MAX_NODES else None
    merged = list(_merged(links, drawn, rest))
    columns = _columns(merged)
    tallest = max((len(peers) for peers in columns), default=0)
    row_height = _ROOMY_ROW if tallest <= _ROOMY else _ROW
    numbers: dict[Peer, int] = {}
    nodes: list[DrawnNode] = []
    for column, peers in enumerate(columns):
        offset = TOP + (tallest - len(peers)) * row_height // 2
        for row, peer in enumerate(peers):
            numbers[peer] = len(nodes)
            x, y = _COLUMNS[column], offset + row * row_height
            anchor, label_x, label_y = (("end", x - 10, y + 4), ("middle", x, y - 11), ("start", x + 10, y + 4))[column]
            total = sum(link.bytes for link in merged if peer in (link.source, link.target))
            nodes.append(DrawnNode(numbers[peer], peer.name, peer.known, x, y, anchor, label_x, label_y, total))
    edges = tuple(_edge(link, nodes[numbers[link.source]], nodes[numbers[link.target]]) for link in merged)
    return ServiceMap(WIDTH, TOP * 2 + tallest * row_height, tuple(nodes), edges)


def _merged(links: Iterable[Link], drawn: set[Peer], rest: Peer | None) -> Iterable[Link]:
    """Links among the drawn peers; ends that are not drawn become the one that stands for all."""
    out: dict[tuple[Peer, Peer], Link] = {}
    for link in links:
        source = link.source if link.source in drawn or rest is None else rest
        target = link.target if link.target in drawn or rest is None else rest
        into = out.setdefault((source, target), Link(source, target))
        into.flows += link.flows
        into.packets += link.packets
        into.bytes += link.bytes
        for verdict, flows in link.verdicts.items():
            into.verdicts[verdict] = into.verdicts.get(verdict, 0) + flows
    # What was denied is drawn last, on top.
    return sorted(out.values(), key=lambda link: -SEVERITY.index(link.worst))


def _columns(links: Sequence[Link]) -> list[list[Peer]]:
    calls, serves = defaultdict(set), defaultdict(set)
    for link in links:
        calls[link.source].add(link.target)
        serves[link.target].add(link.source)
    peers = list(dict.fromkeys(peer for link in links for peer in (link.source, link.target)))
    columns: list[list[Peer]] = [[], [], []]
    for peer in sorted(peers, key=lambda p: (not p.known, p.name)):
        columns[1 if peer in calls and peer in serves else 0 if peer in calls else 2].append(peer)
    for column in (1, 2, 1, 0):
        rows = {peer: row for other in columns for row, peer in enumerate(other)}
        columns[column].sort(key=lambda p: _barycentre([rows[q] for q in calls[p] | serves[p] if q != p], rows[p]))
    return columns


def _barycentre(rows: Sequence[int], own: int) -> float:
    return sum(rows) / len(rows) if rows else own


def _edge(link: Link, source: DrawnNode, target: DrawnNode) -> DrawnEdge:
    width = round(1 + math.log10(1 + link.bytes) / 2, 1)
    if source.number == target.number:
        path = f"M{source.x} {source.y} c 40 -30 40 30 0 0"
    elif source.x == target.x:
        # Down one side and up the other, farther out the longer the way is.
        bend = (40 + abs(target.y - source.y) // 2) * (1 if target.y > source.y else -1)
        path = (
            f"M{source.x} {source.y} C{source.x + bend} {source.y} {target.x + bend} {target.y} {target.x} {target.y}"
        )
    else:
        middle = (source.x + target.x) // 2
        path = f"M{source.x} {source.y} C{middle} {source.y} {middle} {target.y} {target.x} {target.y}"
    counts = ", ".join(f"{flows:,} {verdict}" for verdict, flows in sorted(link.verdicts.items()))
    tip = f"{link.source.name} to {link.target.name}: {counts}; {link.packets:,} packets, {link.bytes:,} bytes"
    return DrawnEdge(source.number, target.number, path, width, link.worst, tip)
