"""Where the nodes and edges of the service map stand: a drawing in columns that needs no script.

What     A peer stands one column behind the farthest of those that call it, so that calls lead from left to right;
         calls that lead back to an earlier peer are left out of that question. Within a column a peer stands near those
         it talks to (barycentre sweeps), so that edges cross less.
Limits   The ``MAX_NODES`` peers with the most traffic are drawn; the others are one node, "N other addresses". Chains
         longer than ``MAX_COLUMNS`` end in the last column.
Source   Sugiyama, Tagawa, Toda, "Methods for visual understanding of hierarchical system structures", IEEE Transactions
         on Systems, Man, and Cybernetics, 1981.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meshsieve.reports.escape import printable
from meshsieve.reports.page.model import SEVERITY, Link, Peer
from meshsieve.reports.text import fit

MAX_NODES = 40
WIDTH, TOP = 1000, 40
_ROW, _ROOMY_ROW, _ROOMY = 30, 48, 12  # pixels between nodes; and where a column has no more than so many
_FIRST, _LAST = 170, 830  # x of the first and the last column
MAX_COLUMNS = 6
_LETTER, _LETTERS = 7, 24  # pixels of a letter, and letters that fit beside the first and the last column
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class DrawnNode:
    """``label``: as much of the name as there is room for."""

    number: int
    name: str
    label: str
    known: bool
    x: int
    y: int
    anchor: str
    label_x: int
    label_y: int
    bytes: int


@dataclass(frozen=True, slots=True)
class DrawnEdge:
    """A cubic curve of four ``points``; ``width`` grows with the logarithm of the bytes. verdict is the one to look at
    first."""

    source: int
    target: int
    points: tuple[Point, Point, Point, Point]
    width: float
    verdict: str
    tip: str

    @property
    def path(self) -> str:
        """For SVG."""
        (x, y), *rest = self.points
        return f"M{x:g} {y:g} C" + " ".join(f"{a:g} {b:g}" for a, b in rest)


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
        # Neighbours stand at different heights, so that a long edge does not run through the nodes between its ends.
        offset = TOP + (tallest - len(peers)) * row_height // 2 + column % 2 * row_height * 2 // 5
        for row, peer in enumerate(peers):
            numbers[peer] = len(nodes)
            x = _FIRST + (_LAST - _FIRST) * column // max(len(columns) - 1, 1)
            y = offset + row * row_height
            side = "first" if column == 0 else "last" if column == len(columns) - 1 else "between"
            anchor, label_x, label_y = {
                "first": ("end", x - 10, y + 4), "last": ("start", x + 10, y + 4), "between": ("middle", x, y - 11)
            }[side]  # fmt: skip
            total = sum(link.bytes for link in merged if peer in (link.source, link.target))
            room = _LETTERS if side != "between" else (_LAST - _FIRST) // (len(columns) - 1) // _LETTER
            label = _label(printable(peer.name), room)
            nodes.append(DrawnNode(numbers[peer], peer.name, label, peer.known, x, y, anchor, label_x, label_y, total))
    edges = tuple(_edge(link, nodes[numbers[link.source]], nodes[numbers[link.target]]) for link in merged)
    return ServiceMap(WIDTH, TOP + tallest * row_height, tuple(nodes), edges)


def _label(name: str, room: int) -> str:
    """As much of a name as there is room for; of one that is too long, its namespace goes first."""
    return name if len(name) <= room else fit(name.rpartition("/")[2] or name, room)


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
    calls, near = defaultdict(list), defaultdict(set)
    for link in sorted(links, key=lambda k: (k.source.name, k.target.name)):
        if link.source != link.target:
            calls[link.source].append(link.target)
            near[link.source].add(link.target)
            near[link.target].add(link.source)
    peers = list(dict.fromkeys(peer for link in links for peer in (link.source, link.target)))
    depth = _depths(sorted(peers, key=lambda p: (not p.known, p.name)), calls)
    columns: list[list[Peer]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for peer in sorted(peers, key=lambda p: (not p.known, p.name)):
        columns[depth[peer]].append(peer)
    for column in (*range(1, len(columns)), *reversed(range(len(columns) - 1)), *range(1, len(columns))):
        rows = {peer: row - len(other) / 2 for other in columns for row, peer in enumerate(other)}
        columns[column].sort(key=lambda p: _barycentre([rows[q] for q in near[p]], rows[p]))
    return columns


def _depths(peers: Sequence[Peer], calls: Mapping[Peer, Sequence[Peer]]) -> dict[Peer, int]:
    """The column of each peer: the longest way that leads to it, calls back to a peer on the way left out."""
    called = {target for targets in calls.values() for target in targets}
    forward: dict[Peer, list[Peer]] = {}
    order: list[Peer] = []  # ends of the search first
    state: dict[Peer, int] = {}
    for root in sorted(peers, key=lambda p: p in called):
        stack = [root] if root not in state else []
        while stack:
            peer = stack[-1]
            if peer not in state:
                state[peer] = 1
                forward[peer] = []
            following = next((t for t in calls.get(peer, ()) if t not in state), None)
            if following is not None:
                stack.append(following)
                continue
            if state[peer] == 1:
                forward[peer] = [t for t in calls.get(peer, ()) if state[t] == 2]
                state[peer] = 2
                order.append(peer)
            stack.pop()
    depth = dict.fromkeys(peers, 0)
    for peer in reversed(order):
        for target in forward[peer]:
            depth[target] = min(max(depth[target], depth[peer] + 1), MAX_COLUMNS - 1)
    return depth


def _barycentre(rows: Sequence[float], own: float) -> float:
    return sum(rows) / len(rows) if rows else own


def _edge(link: Link, source: DrawnNode, target: DrawnNode) -> DrawnEdge:
    width = round(1 + math.log10(1 + link.bytes) / 2, 1)
    begin, end = (float(source.x), float(source.y)), (float(target.x), float(target.y))
    if source.number == target.number:
        control = (source.x + 40.0, source.y - 30.0), (source.x + 40.0, source.y + 30.0)
    elif source.x == target.x:
        # Down one side and up the other, farther out the longer the way is.
        bend = (40 + abs(target.y - source.y) // 2) * (1 if target.y > source.y else -1)
        control = (begin[0] + bend, begin[1]), (end[0] + bend, end[1])
    else:
        middle = (source.x + target.x) / 2
        control = (middle, begin[1]), (middle, end[1])
    counts = ", ".join(f"{flows:,} {verdict}" for verdict, flows in sorted(link.verdicts.items()))
    tip = f"{link.source.name} to {link.target.name}: {counts}; {link.packets:,} packets, {link.bytes:,} bytes"
    return DrawnEdge(source.number, target.number, (begin, *control, end), width, link.worst, tip)
