"""Rows that lie on thresholds and right beside them, where importers go wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.bundle import Rows
from models.importers.source import NO_SET, Source
from models.layout import KIND_BITS

#: Trees whose thresholds are drawn from.
_TREES = 64


def boundary_rows(source: Source, count: int) -> Rows:
    """Make rows of thresholds, their neighbours, zeros, categories and what is missing.

    Returns:
        float32 or float64 [count, features], as the source compares. Half of the rows have nothing missing.
    """
    random = np.random.default_rng(count)
    meta = source.meta
    dtype = np.dtype(meta.input_dtype)
    rows = np.zeros((count, len(meta.feature_names)), dtype)
    pools = _pools(source, dtype)
    for feature in range(rows.shape[1]):
        pool = pools.get(feature, np.zeros(0, dtype))
        if not pool.size:
            pool = np.arange(-2, 66).astype(dtype)
        values = random.choice(pool, count)
        toward = random.choice(np.array([-np.inf, np.inf], dtype), count)
        with np.errstate(over="ignore"):
            beside = np.nextafter(values, toward)
        rows[:, feature] = np.where(random.random(count) < 0.5, beside, values)  # noqa: PLR2004 - one half
    rows[~np.isfinite(rows)] = 0.0
    some = np.s_[: count // 2]
    if meta.allows_infinite:
        rows[some][random.random(rows[some].shape) < 0.02] = np.inf  # noqa: PLR2004 - a few
        rows[some][random.random(rows[some].shape) < 0.02] = -np.inf  # noqa: PLR2004
    if meta.missing_value is not None:
        rows[some][random.random(rows[some].shape) < 0.05] = meta.missing_value  # noqa: PLR2004
    if meta.allows_missing:
        rows[some][random.random(rows[some].shape) < 0.05] = np.nan  # noqa: PLR2004
    return np.ascontiguousarray(rows[random.permutation(count)])


def _pools(source: Source, dtype: np.dtype[np.floating]) -> dict[int, NDArray[np.floating]]:
    """Return a sample of each numeric feature's finite thresholds; of others, their categories."""
    features, thresholds = [], []
    for number in range(0, source.meta.n_trees, max(1, source.meta.n_trees // _TREES)):
        tree = source.tree(number)
        splits = tree.left >= 0
        if tree.category_set is not None:
            splits &= tree.category_set == NO_SET
        features.append(tree.feature[splits])
        thresholds.append(tree.threshold[splits])
    feature, threshold = np.concatenate(features), np.concatenate(thresholds)
    with np.errstate(over="ignore"):
        threshold = threshold.astype(dtype)
    pools = {
        int(number): threshold[(feature == number) & np.isfinite(threshold)] for number in np.unique(feature)
    }
    if source.rules is not None:
        for place in np.flatnonzero(source.rules & KIND_BITS):
            known = source.levels.get(int(place), np.arange(66.0))
            pools[int(place)] = np.concatenate([known, known + 0.5, [-1.0, -0.5]]).astype(dtype)
    return pools
