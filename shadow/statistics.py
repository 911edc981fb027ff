"""How far two scores of the same transactions agree, each answer with the interval that it is sure of.

Results come in pairs (champion, shadow) from a uniform sample, so resampling draws whole pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Numbers = NDArray[np.float64]

#: Share of samples whose interval holds the truth.
CONFIDENCE: Final = 0.95
#: How often a sample is drawn again. The ends of an interval settle to about a twentieth of its width.
REPLICATES: Final = 400
#: Bins of the stability index; each holds as much of the champion's scores.
PSI_BINS: Final = 10
_TAIL: Final = (1 - CONFIDENCE) / 2
_Z: Final = float(stats.norm.isf(_TAIL))


@dataclass(frozen=True)
class Interval:
    """A figure and between what it lies with 95 % confidence.

    Attributes:
        value: the figure.
        low: the lower bound.
        high: the upper bound.
    """

    value: float
    low: float
    high: float

    def figures(self, name: str) -> dict[str, float]:
        """Return it as flat figures: the name, and the name with _low and _high."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def share(count: int, total: int) -> Interval:
    """Return a share of a total with Wilson's interval (1927), which is right for rare things too.

    Args:
        count: how many of them.
        total: of how many, at least one.
    """
    found = stats.binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(count / total, float(found.low), float(found.high))


def rank_correlation(champion: Numbers, shadow: Numbers) -> Interval | None:
    """Return Spearman's correlation of ranks, with the interval of Bonett and Wright (2000).

    Bonett, Wright: "Sample size requirements for estimating Pearson, Kendall and Spearman correlations",
    Psychometrika 65: the variance of Fisher's z of it is (1 + r^2 / 2) / (n - 3).

    Returns:
        None for fewer than four pairs, or where one side has one value alone.
    """
    if len(champion) < 4 or np.ptp(champion) == 0 or np.ptp(shadow) == 0:  # noqa: PLR2004 - n - 3
        return None
    value = round(float(stats.spearmanr(champion, shadow).statistic), 12)
    if abs(value) == 1:
        return Interval(value, value, value)
    width = _Z * np.sqrt((1 + value**2 / 2) / (len(champion) - 3))
    low, high = np.tanh(np.arctanh(value) + np.array([-width, width])).tolist()
    return Interval(value, low, high)


def population_stability(champion: Numbers, shadow: Numbers, *, seed: int = 0) -> Interval:
    """Return the population stability index of the shadow's scores against the champion's, over tenths.

    Below 0.1 is commonly read as stable, above 0.25 as another population. Yurdakul and Naranjo,
    "Statistical properties of the population stability index", Journal of Risk Model Validation 14 (2020).
    Each bin counts half a result more, so that an empty one has a logarithm.

    Args:
        champion: float64 [n], finite, at least one.
        shadow: float64 [n], finite.
        seed: of the resampling.
    """
    inner = np.unique(np.quantile(champion, np.arange(1, PSI_BINS) / PSI_BINS))
    bins = len(inner) + 1
    both = np.searchsorted(inner, champion, side="right") * bins + np.searchsorted(inner, shadow, "right")
    cells = np.bincount(both, minlength=bins * bins)
    drawn = np.random.default_rng(seed).multinomial(len(champion), cells / len(champion), REPLICATES)
    tables = np.vstack([cells[None], drawn]).reshape(-1, bins, bins)
    found = stability_of_counts(tables.sum(axis=2), tables.sum(axis=1))
    return basic(float(found[0]), found[1:])


def stability_of_counts(champion: NDArray[Any], shadow: NDArray[Any]) -> Numbers:
    """Return the index of counts in bins, along the last axis."""
    a = (champion + 0.5) / (champion + 0.5).sum(axis=-1, keepdims=True)
    b = (shadow + 0.5) / (shadow + 0.5).sum(axis=-1, keepdims=True)
    found: Numbers = ((a - b) * np.log(a / b)).sum(axis=-1)
    return found


def stability_of_buckets(champion: Mapping[str, int], shadow: Mapping[str, int]) -> float | None:
    """Return the index of counts by bucket (shadow.buckets), joined to tenths of the champion's.

    Returns:
        None where one of them has no counts.
    """
    buckets = sorted({*map(int, champion), *map(int, shadow)})
    a, b = (np.array([counts.get(str(i), 0) for i in buckets], np.float64) for counts in (champion, shadow))
    if not a.sum() or not b.sum():
        return None
    # A bucket goes to the tenth in which its middle lies.
    tenths = np.minimum((np.cumsum(a) - a / 2) * PSI_BINS // a.sum(), PSI_BINS - 1).astype(np.int64)
    _, places = np.unique(tenths, return_inverse=True)
    return float(stability_of_counts(np.bincount(places, a), np.bincount(places, b)))


def kolmogorov_smirnov(champion: Numbers, shadow: Numbers, *, seed: int = 0) -> Interval:
    """Return the greatest distance between the distributions of both scores.

    Its usual test takes the two samples for independent, which pairs are not. The interval is as wide to both
    sides as the difference of the distributions moves anywhere when pairs are drawn again, which bounds how
    far its greatest value does (Praestgaard, "Permutation and bootstrap Kolmogorov-Smirnov tests for the
    equality of two distributions", Scandinavian Journal of Statistics 22, 1995, for the process).

    Args:
        champion: float64 [n], finite, at least one.
        shadow: float64 [n], finite.
        seed: of the resampling.
    """
    n = len(champion)
    both = np.concatenate([champion, shadow])
    order = np.argsort(both, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(both[order])), 2 * n - 1)
    sign = np.repeat([1.0, -1.0], n)

    def process(weights: Numbers) -> Numbers:
        return np.asarray(np.cumsum((sign * np.tile(weights, 2))[order])[ends] / n)

    mine = process(np.ones(n))
    random = np.random.default_rng(seed)
    even = np.full(n, 1 / n)
    drawn = (process(random.multinomial(n, even).astype(np.float64)) for _ in range(REPLICATES))
    width = float(np.quantile([np.abs(one - mine).max() for one in drawn], CONFIDENCE))
    value = float(np.abs(mine).max())
    return Interval(value, max(value - width, 0.0), min(value + width, 1.0))


def top_overlap(champion: Numbers, shadow: Numbers, budget: float) -> float:
    """Return which share of the champion's highest scores is among the shadow's highest, too.

    Args:
        champion: float64 [n].
        shadow: float64 [n].
        budget: which share of all is highest; at least one.
    """
    k = max(1, round(budget * len(champion)))
    # Ties are settled by place, the same on both sides.
    a, b = (set(np.argsort(-scores, kind="stable")[:k].tolist()) for scores in (champion, shadow))
    return len(a & b) / k


def basic(value: float, drawn: Numbers) -> Interval:
    """Return the basic bootstrap interval of a figure that is never negative, and too great in small samples.

    Davison, Hinkley: "Bootstrap Methods and their Application" (1997), 5.2: what resampling adds to the
    sample's value, sampling added to the truth. Percentiles would add it twice.

    Args:
        value: of the sample.
        drawn: float64 [replicates], of the samples drawn from it.
    """
    low, high = (2 * value - np.quantile(drawn, [1 - _TAIL, _TAIL])).tolist()
    return Interval(value, min(max(low, 0.0), value), max(high, value))


def percentile(value: float, drawn: Numbers) -> Interval:
    """Return the percentile interval of a figure, from the values of samples drawn again."""
    low, high = np.quantile(drawn, [_TAIL, 1 - _TAIL]).tolist()
    return Interval(value, min(low, value), max(high, value))
