"""Modes ``upper`` and ``lower``: how an undecided packet ends when unknown rules are taken at their most or least.

upper  an unknown rule counts as matched if it accepts, as not matched if it denies: the most that can be accepted
lower  the mirror image: the least that is accepted for certain
An unknown SKIP may be taken or not; the branch that accepts (upper) or denies (lower) counts. Where both modes agree,
the verdict is certain whatever the unknown clauses say (docs/semantics.md).

Cost: a linear walk of the rules behind each unknown one, for undecided packets only.
"""

from __future__ import annotations

from meshsieve import _core
from meshsieve.columns import PacketColumns
from meshsieve.model import FIELD_INDEX, Action
from meshsieve.policy import ACTION_VERDICT, Point, Verdict

NO_RULE = -1
_MASK = 2**64 - 1

FieldWords = list[tuple[int, int, int]]


def packet_words(headers: PacketColumns, row: int) -> FieldWords:
    """The fields of one packet as ``_core.trace`` wants them: (field index, high word, low word)."""
    words: FieldWords = []
    for name, column in headers.items():
        if not headers.has(name)[row]:
            continue
        cell = column[0 if len(column) == 1 else row]
        high, low = (int(cell[0]), int(cell[1])) if column.ndim == 2 else (0, int(cell))
        words.append((FIELD_INDEX[name], high, low))
    if "ip_ver" not in headers and any(headers[n].ndim == 1 for n in ("src_ip", "dst_ip") if n in headers):
        words.append((FIELD_INDEX["ip_ver"], 0, 4))
    return words


def resolve_unknown(point: Point, headers: PacketColumns, rule: int, *, accept: bool) -> tuple[int, Verdict]:
    """How the one packet of ``headers`` ends, undecided at ``rule``, in mode upper (accept=True) or lower.

    headers  one packet, with the point's own fields
    returns  (index of the rule that ends the walk, or NO_RULE; its verdict)
    """
    words = packet_words(headers, 0)
    rules = point.rules
    seen: set[int] = set()
    fallback: tuple[int, Verdict] | None = None
    unknown = [rule]  # unknown rules that a walk has come to
    while unknown:
        at = unknown.pop()
        action = Action(int(rules.actions[at]))
        if action is Action.UNDECIDED:
            return at, Verdict.ALLOW if accept else Verdict.DROP
        if action is not Action.SKIP and (action is Action.ALLOW) is accept:
            return at, ACTION_VERDICT[action]
        for start in [at + 1] if action is not Action.SKIP else [rules[at].skip_to, at + 1]:
            if start in seen:
                continue
            seen.add(start)
            found = _core.walk(rules.native, words, start)
            if found <= -2:
                unknown.append(-found - 2)
                continue
            verdict = point.default if found == NO_RULE else ACTION_VERDICT[Action(int(rules.actions[found]))]
            if verdict is Verdict.UNDECIDED:
                return found, Verdict.ALLOW if accept else Verdict.DROP
            if (verdict is Verdict.ALLOW) is accept:
                return found, verdict
            fallback = fallback or (found, verdict)
    assert fallback is not None, "skips go forward, so every walk ends"
    return fallback
