"""Where a shadow differs most: the values of fields whose results differ more than all others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

#: Share of the slices that are told whose difference is chance.
FALSE_DISCOVERIES: Final = 0.05
#: Results that a slice, and all others, must have for a normal approximation; and events expected in both.
FEWEST, EXPECTED = 30, 5.0


@dataclass(frozen=True)
class Slice:
    """A value of a field, its results beside all others.

    Attributes:
        field: the field's name.
        value: what stands for the value; a number's is its range.
        results: how many have it.
        flip_rate: the share of these whose outcome differs; None where there are no decisions.
        flip_rate_elsewhere: the same of all others.
        difference: the mean difference of scores, shadow's less champion's.
        difference_elsewhere: the same of all others.
        flip_amount: the amounts whose outcome differs.
        p_value: how likely it is to be as unlike the others by chance, corrected for how many were looked at.
    """

    field: str
    value: str
    results: int
    flip_rate: float | None
    flip_rate_elsewhere: float | None
    difference: float
    difference_elsewhere: float
    flip_amount: float
    p_value: float


@dataclass(frozen=True)
class Found:
    """What was looked at, and what was found.

    Attributes:
        looked_at: how many slices had enough results.
        slices: those that differ more than all others and not by chance, the furthest first.
        partly: fields with more values than are counted one by one.
    """

    looked_at: int
    slices: tuple[Slice, ...]
    partly: tuple[str, ...]


def find_slices(summary: Mapping[str, Any], *, most: int = 20) -> Found:
    """Return the slices with more flips (or differences of scores, where nothing is decided) than others.

    Each slice is compared with all other results, by the test of two proportions or by Welch's; the p-values
    are corrected for their number by Benjamini and Hochberg (1995). Slices overlap, so that one cause may
    show in many of them.

    Args:
        summary: shadow.summary's document.
        most: how many are told.
    """
    names, rows = _rows(summary)
    if not names:
        return Found(0, (), _partly(summary))
    table = np.array(rows, np.float64)
    rest = np.array(summary["all"], np.float64) - table
    by_flips = summary["decided"] > 0
    effect, p_values = _proportions(table, rest) if by_flips else _means(table, rest)
    corrected = stats.false_discovery_control(p_values)
    order = np.argsort(-effect, kind="stable").tolist()
    unlike = [i for i in order if effect[i] > 0 and corrected[i] <= FALSE_DISCOVERIES]
    found = tuple(
        _slice(names[i], table[i], rest[i], float(corrected[i]), decided=by_flips) for i in unlike[:most]
    )
    return Found(len(names), found, _partly(summary))


def _rows(summary: Mapping[str, Any]) -> tuple[list[tuple[str, str]], list[list[int]]]:
    names, rows = [], []
    for field, value, sums in _candidates(summary):
        others = summary["n"] - sums[0]
        if sums[0] >= FEWEST and others >= FEWEST:
            names.append((field, value))
            rows.append(sums)
    return names, rows


def _candidates(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, list[int]]]:
    for field, found in sorted(summary["slices"].items()):
        for value, sums in sorted(found["values"].items()):
            yield field, value, sums
        absent = [all_ - have for all_, have in zip(summary["all"], found["all"], strict=True)]
        yield field, "(absent)", absent


def _partly(summary: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        field
        for field, found in sorted(summary["slices"].items())
        if sum(sums[0] for sums in found["values"].values()) < found["all"][0]
    )


def _proportions(table: NDArray[np.float64], rest: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return differences of flip rates and their two-sided p-values, by the pooled test."""
    n, m = table[:, 0], rest[:, 0]
    rate, others = table[:, 1] / n, rest[:, 1] / m
    pooled = (table[:, 1] + rest[:, 1]) / (n + m)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    safe = np.minimum(n, m) * np.minimum(pooled, 1 - pooled) >= EXPECTED
    return rate - others, _two_sided(rate - others, deviation, safe)


def _means(table: NDArray[np.float64], rest: NDArray[np.float64]) -> tuple[Any, Any]:
    """Return how much further mean differences of scores are from none, and p-values by Welch's test."""
    n, m = np.maximum(table[:, 2], 1), np.maximum(rest[:, 2], 1)
    mean, others = table[:, 3] / n / 1e6, rest[:, 3] / m / 1e6
    variance = np.maximum(table[:, 4] / n / 1e6 - mean**2, 0) / n
    variance += np.maximum(rest[:, 4] / m / 1e6 - others**2, 0) / m
    safe = (table[:, 2] >= FEWEST) & (rest[:, 2] >= FEWEST)
    return np.abs(mean) - np.abs(others), _two_sided(mean - others, np.sqrt(variance), safe)


def _two_sided(effect: NDArray[np.float64], deviation: NDArray[np.float64], safe: NDArray[np.bool_]) -> Any:
    usable = safe & (deviation > 0)
    ratio = np.divide(np.abs(effect), deviation, out=np.zeros_like(effect), where=usable)
    return np.where(usable, 2 * stats.norm.sf(ratio), 1.0)


def _slice(name: tuple[str, str], mine: Any, rest: Any, p_value: float, *, decided: bool) -> Slice:
    return Slice(
        field=name[0],
        value=name[1],
        results=int(mine[0]),
        flip_rate=float(mine[1] / mine[0]) if decided else None,
        flip_rate_elsewhere=float(rest[1] / rest[0]) if decided else None,
        difference=float(mine[3] / max(mine[2], 1) / 1e6),
        difference_elsewhere=float(rest[3] / max(rest[2], 1) / 1e6),
        flip_amount=float(mine[5] / 1000),
        p_value=p_value,
    )
