"""Which of two scores finds the positives better: curves, areas and gains, of labelled transactions.

Positives are rare, so they are sampled apart from the negatives; the weights make up for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shadow.statistics import CONFIDENCE, REPLICATES, Interval, percentile

Numbers = NDArray[np.float64]

#: Shares of transactions that may be alerted, at which curves are told.
SHARES: Final[Numbers] = np.concatenate([np.geomspace(1e-4, 0.1, 46), np.linspace(0.12, 1, 45)])
#: Fewer of one label say nothing that is worth a figure.
FEWEST: Final = 5


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled transactions, and how many each of them stands for.

    Attributes:
        champion: float64 [n], scores.
        shadow: float64 [n], scores.
        positive: bool [n].
        amount: float64 [n]; 0 where it is not known.
        positives: how many positives there are in all; the sampled ones stand for them.
        negatives: how many negatives there are in all.
    """

    champion: Numbers
    shadow: Numbers
    positive: NDArray[np.bool_]
    amount: Numbers
    positives: float
    negatives: float

    @property
    def enough(self) -> bool:
        """Whether there are enough of both labels."""
        found = int(self.positive.sum())
        return min(found, len(self.positive) - found) >= FEWEST

    @property
    def weight(self) -> Numbers:
        """float64 [n]: for how many transactions each stands."""
        found = int(self.positive.sum())
        return np.where(self.positive, self.positives / found, self.negatives / (len(self.positive) - found))


@dataclass(frozen=True)
class Areas:
    """Areas under the ROC curves of both, of the same transactions.

    Attributes:
        champion: the champion's.
        shadow: the shadow's.
        gain: the shadow's less the champion's.
        p_value: how likely a gain as far from zero is where there is none.
    """

    champion: Interval
    shadow: Interval
    gain: Interval
    p_value: float


def areas(found: Labelled) -> Areas:
    """Return the areas under both ROC curves, with the intervals of DeLong.

    E. DeLong, D. DeLong, Clarke-Pearson: "Comparing the areas under two or more correlated receiver operating
    characteristic curves", Biometrics 44 (1988), by the ranks of Sun and Xu, "Fast implementation of DeLong's
    algorithm", IEEE Signal Processing Letters 21 (2014). The weights play no part: positives are compared
    with negatives, and both are uniform samples of their own.
    """
    of_positives, of_negatives, values = [], [], []
    m = int(found.positive.sum())
    n = len(found.positive) - m
    for scores in (found.champion, found.shadow):
        x, y = scores[found.positive], scores[~found.positive]
        ranks = stats.rankdata(np.concatenate([x, y]))
        placed = (ranks[:m] - stats.rankdata(x)) / n
        of_positives.append(placed)
        of_negatives.append(1 - (ranks[m:] - stats.rankdata(y)) / m)
        values.append(float(placed.mean()))
    variance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    deviation = float(np.sqrt(max(variance[0, 0] + variance[1, 1] - 2 * variance[0, 1], 0.0)))
    gain = values[1] - values[0]
    apart = abs(gain) / deviation if deviation else (np.inf if gain else 0.0)
    champion, shadow = (
        _normal(value, float(np.sqrt(variance[i, i])), 0.0, 1.0) for i, value in enumerate(values)
    )
    return Areas(champion, shadow, _normal(gain, deviation, -1.0, 1.0), float(2 * stats.norm.sf(apart)))


def _normal(value: float, deviation: float, least: float, most: float) -> Interval:
    width = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * deviation
    return Interval(value, max(value - width, least), min(value + width, most))


@dataclass(frozen=True, eq=False)
class Curve:
    """What alerting from the highest score down comes to, at each distinct score.

    Attributes:
        threshold: float64 [k], the lowest score that is alerted, falling; the first is above all scores.
        alerts: float64 [k], how many transactions are alerted.
        caught: float64 [k], how many of these are positive.
        money: float64 [k], their amounts.
    """

    threshold: Numbers
    alerts: Numbers
    caught: Numbers
    money: Numbers

    def at(self, share: float | Numbers, column: Numbers) -> Numbers:
        """Return a column where a share of all transactions is alerted; of equal scores a part is."""
        return np.asarray(np.interp(np.asarray(share) * self.alerts[-1], self.alerts, column))

    @property
    def recall(self) -> Numbers:
        """float64 [k]: the share of positives that is caught; the ROC curve's height."""
        return np.asarray(self.caught / self.caught[-1])

    @property
    def fallout(self) -> Numbers:
        """float64 [k]: the share of negatives that is alerted; the ROC curve's width."""
        wrong = self.alerts - self.caught
        return np.asarray(wrong / wrong[-1])

    @property
    def precision(self) -> Numbers:
        """float64 [k]: the share of alerts that is positive; the first, of no alerts, is the second's."""
        found = self.caught[1:] / self.alerts[1:]
        return np.concatenate([found[:1], found])

    @property
    def average_precision(self) -> float:
        """The precision, averaged over the positives as they are caught."""
        return float((np.diff(self.recall) * self.precision[1:]).sum())


class Alerting:
    """Curves of one score, over the same transactions with other weights.

    Args:
        scores: float64 [n].
        positive: bool [n].
        amount: float64 [n].
    """

    def __init__(self, scores: Numbers, positive: NDArray[np.bool_], amount: Numbers) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        self._thresholds = np.concatenate([[np.inf], ranked[self._ends]])
        self._positive = positive[self._order].astype(np.float64)
        self._amount = amount[self._order]

    def curve(self, weight: Numbers) -> Curve:
        """Return the curve where each transaction counts as many times as its weight, float64 [n], says."""
        mine = weight[self._order]
        caught = mine * self._positive
        return Curve(
            self._thresholds, self._sums(mine), self._sums(caught), self._sums(caught * self._amount)
        )

    def _sums(self, column: Numbers) -> Numbers:
        return np.concatenate([[0.0], np.cumsum(column)[self._ends]])


@dataclass(frozen=True, eq=False)
class Gains:
    """What the shadow finds more than the champion where both may alert as many transactions.

    Attributes:
        champion: its curve.
        shadow: its curve.
        precision: champion's, shadow's, and the gain, at the budget.
        recall: the same, of the share of positives that is caught.
        money: the same, of the amounts that are caught.
        bands: float64 [2, shares], between what the gain of money lies at each of SHARES.
    """

    champion: Curve
    shadow: Curve
    precision: tuple[Interval, Interval, Interval]
    recall: tuple[Interval, Interval, Interval]
    money: tuple[Interval, Interval, Interval]
    bands: Numbers


def gains(found: Labelled, budget: float, *, seed: int = 0) -> Gains:
    """Return what alerting within a budget catches, with intervals of pairs drawn again within each label.

    Args:
        found: the transactions, enough of both labels.
        budget: share of all transactions that may be alerted, in (0, 1].
        seed: of the resampling.
    """
    models = [Alerting(scores, found.positive, found.amount) for scores in (found.champion, found.shadow)]
    weight = found.weight
    champion, shadow = (model.curve(weight) for model in models)
    random = np.random.default_rng(seed)
    drawn = []
    curves = []
    for _ in range(REPLICATES):
        # The same for both: they are compared on the same transactions.
        times = weight * _drawn(random, found.positive)
        again = [model.curve(times) for model in models]
        drawn.append([_at_budget(curve, budget) for curve in again])
        curves.append(again[1].at(SHARES, again[1].money) - again[0].at(SHARES, again[0].money))
    mine = np.array([_at_budget(champion, budget), _at_budget(shadow, budget)])
    precision, recall, money = (_triple(mine[:, i], np.array(drawn)[:, :, i]) for i in range(len(mine[0])))
    tail = (1 - CONFIDENCE) / 2
    bands = np.quantile(np.array(curves), [tail, 1 - tail], axis=0)
    return Gains(champion, shadow, precision, recall, money, bands)


def _drawn(random: np.random.Generator, positive: NDArray[np.bool_]) -> Numbers:
    """Return how often each is drawn, float64 [n]: as many of each label as there are."""
    times = np.zeros(len(positive))
    for label in (positive, ~positive):
        n = int(label.sum())
        times[label] = random.multinomial(n, np.full(n, 1 / n))
    return times


def _at_budget(curve: Curve, budget: float) -> list[float]:
    alerts = budget * curve.alerts[-1]
    caught = float(curve.at(budget, curve.caught))
    return [caught / alerts, caught / curve.caught[-1], float(curve.at(budget, curve.money))]


def _triple(values: Numbers, drawn: Numbers) -> tuple[Interval, Interval, Interval]:
    champion, shadow = values.tolist()
    return (
        percentile(champion, drawn[:, 0]),
        percentile(shadow, drawn[:, 1]),
        percentile(shadow - champion, drawn[:, 1] - drawn[:, 0]),
    )
