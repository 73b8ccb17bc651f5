"""Declared shares against observed counts: does traffic split as the configuration says?

Every share gets Wilson's score interval, which holds for small counts and shares near 0 too; all together are judged by
Pearson's chi-square, whose p-value is the chance of a deviation at least this large if the declared shares are true.

Source: Wilson 1927; Pearson 1900; the incomplete gamma function by series and continued fraction (Lentz), as in any
numerical textbook.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist
from typing import Any

from meshsieve.errors import BalanceError

DEFAULT_CONFIDENCE = 0.95


@dataclass(frozen=True)
class ObservedShare:
    """One destination. low, high: the confidence interval of its true share."""

    name: str
    declared: float
    count: int
    observed: float
    low: float
    high: float

    @property
    def consistent(self) -> bool:
        """Whether the declared share lies in the interval."""
        return self.low <= self.declared <= self.high


@dataclass(frozen=True)
class SplitCheck:
    """chi_square, degrees, p_value: None where only one destination is declared or nothing was observed."""

    total: int
    confidence: float
    shares: tuple[ObservedShare, ...]
    chi_square: float | None
    degrees: int
    p_value: float | None

    @property
    def consistent(self) -> bool:
        """Whether the counts are plausible under the declared shares, at the confidence asked for."""
        impossible = any(share.count and not share.declared for share in self.shares)
        return not impossible and (self.p_value is None or self.p_value >= 1 - self.confidence)

    def to_dict(self) -> dict[str, Any]:
        return {
            "total": self.total,
            "confidence": self.confidence,
            "chi_square": self.chi_square,
            "degrees": self.degrees,
            "p_value": self.p_value,
            "consistent": self.consistent,
            "shares": [
                {
                    "name": s.name,
                    "declared": s.declared,
                    "count": s.count,
                    "observed": s.observed,
                    "low": s.low,
                    "high": s.high,
                    "consistent": s.consistent,
                }
                for s in self.shares
            ],
        }


def split_check(
    declared: Mapping[str, Fraction | float], counts: Mapping[str, int], *, confidence: float = DEFAULT_CONFIDENCE
) -> SplitCheck:
    """Declared shares (they sum to 1) against how often each destination was seen.

    A destination that is not declared has the declared share 0; one seen there is a contradiction, whatever the rest.

    raises  BalanceError for shares that do not sum to 1, negative counts, or a confidence outside 0..1
    """
    if not 0 < confidence < 1:
        raise BalanceError(f"a confidence lies between 0 and 1, not {confidence}")
    if abs(float(sum(declared.values())) - 1) > 1e-9:
        raise BalanceError(f"declared shares sum to {float(sum(declared.values())):.6f}, not to 1")
    if any(count < 0 for count in counts.values()):
        raise BalanceError("counts must be at least 0")
    total = sum(counts.values())
    names = [*declared, *(name for name in counts if name not in declared)]
    shares = tuple(
        ObservedShare(
            name,
            float(declared.get(name, 0)),
            counts.get(name, 0),
            counts.get(name, 0) / total if total else 0.0,
            *wilson(counts.get(name, 0), total, confidence),
        )
        for name in names
    )
    possible = [share for share in shares if share.declared]
    degrees = len(possible) - 1
    if not total or not degrees:
        return SplitCheck(total, confidence, shares, None, degrees, None)
    chi_square = sum((s.count - total * s.declared) ** 2 / (total * s.declared) for s in possible)
    return SplitCheck(total, confidence, shares, chi_square, degrees, chi_square_p(chi_square, degrees))


def wilson(count: int, total: int, confidence: float = DEFAULT_CONFIDENCE) -> tuple[float, float]:
    """Wilson's interval for a share; (0, 1) when nothing was seen.

    >>> [round(edge, 4) for edge in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not total:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = count / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def chi_square_p(value: float, degrees: int) -> float:
    """Chance that a chi-square variable is at least ``value``: the upper incomplete gamma function Q(k/2, value/2)."""
    a, x = degrees / 2, value / 2
    if x <= 0:
        return 1.0
    scale = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while abs(term) > abs(total) * 1e-15:
            n += 1
            term *= x / n
            total += term
        return 1 - total * scale
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    h = d
    for i in range(1, 10_000):
        step = -i * (i - a)
        b += 2
        d = 1 / (step * d + b or tiny)
        c = b + step / c or tiny
        h *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return scale * h
