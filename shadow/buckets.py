"""Buckets of fixed bounds for scores, features and times: counts in them merge exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Edges = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scale:
    """Buckets around zero: bucket 0 holds what is nearer to it than the first edge.

    Bucket i > 0 holds edges[i - 1] <= value < edges[i], the last one all beyond; bucket -i their negatives.

    Attributes:
        edges: float64 [n], positive and rising.
    """

    edges: Edges

    def index(self, values: ArrayLike) -> NDArray[np.int64]:
        """Return the bucket of each value; values must not be NaN."""
        array = np.asarray(values, np.float64)
        found = np.searchsorted(self.edges, np.abs(array), side="right")
        return np.where(array < 0, -found, found).astype(np.int64)

    def count(self, values: ArrayLike) -> dict[str, int]:
        """Return bucket to how many of the values it holds, without empty ones."""
        buckets, counts = np.unique(self.index(values), return_counts=True)
        return dict(zip(map(str, buckets.tolist()), counts.tolist(), strict=True))

    def bounds(self, bucket: int) -> tuple[float, float]:
        """Return a bucket's lower and upper bound."""
        if bucket == 0:
            return -float(self.edges[0]), float(self.edges[0])
        place = min(abs(bucket), len(self.edges))
        low = float(self.edges[place - 1])
        high = float(self.edges[place]) if place < len(self.edges) else low
        return (low, high) if bucket > 0 else (-high, -low)

    def middle(self, bucket: int) -> float:
        """Return what stands for the values of a bucket."""
        return sum(self.bounds(bucket)) / 2


def _decades(low: int, high: int, each: int) -> Edges:
    return 10.0 ** (np.arange(low * each, high * each + 1) / each)


#: Scores: below 0.02 twenty buckets a decade, where the scores of rare things lie; to 1 in steps of 0.005;
#: beyond 1, where scores are no probabilities, twenty a decade.
SCORES: Final = Scale(
    np.concatenate([_decades(-7, -1, 20)[:106], np.arange(4, 200) / 200, _decades(0, 12, 20)])
)
#: Microseconds: within 5 %.
TIMES: Final = Scale(_decades(0, 9, 48))
#: Features: eight a decade.
FEATURES: Final = Scale(_decades(-6, 12, 8))
#: Fields of transactions as slices: 1, 2, 5, 10, ...
FIELDS: Final = Scale(np.sort(np.concatenate([k * 10.0 ** np.arange(-3, 13) for k in (1, 2, 5)])))


def sorted_counts(counts: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return (bucket, count) of a document's counts in order of the buckets."""
    return sorted((int(bucket), int(count)) for bucket, count in counts.items())


def quantile(scale: Scale, counts: Mapping[str, Any], share: float) -> float | None:
    """Return the value below which a share of the counted values lies; None where nothing was counted."""
    total = sum(counts.values())
    reached = 0
    for bucket, count in sorted_counts(counts):
        reached += count
        if reached >= share * total:
            return scale.middle(bucket)
    return None
