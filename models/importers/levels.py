"""Brings thresholds to float32 so that a row decides as at the source, which may compare float64.

A source that compares float32 with a float64 threshold: for a float32 x, `x <= t` holds exactly where
`x <= t rounded down` does; rounding to the nearest would send a row that lies on it to the other side.
A source that compares float64: see models.convert. The thresholds are the levels, rounded down; where float32
cannot tell all levels of a feature apart they are their ranks, and the feature is marked CODED.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.importers.source import NO_SET, Source, SourceTree
from models.layout import CODED
from models.pack import Tree

#: The bits of the float32 number one; the bits of its successors count on from there.
_ONE = 0x3F800000


def round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 that is not above each threshold."""
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
        above = nearest.astype(np.float64) > thresholds
        return np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest)


class Levels:
    """The levels of a source's features, as a bundle has them.

    Attributes:
        levels: float64, see models.bundle.Bundle, as are the others.
        codes: float32.
        starts: uint32 [features + 1].
        coded: the features that need the rule CODED.
    """

    def __init__(self, source: Source, trees: Iterable[SourceTree]) -> None:
        n_features = len(source.meta.feature_names)
        self.coded: set[int] = set()
        self._thresholds: dict[int, tuple[NDArray[np.float64], NDArray[np.float32]]] = {}
        levels = {feature: np.asarray(known, np.float64) for feature, known in source.levels.items()}
        codes = {feature: np.arange(len(known), dtype=np.float32) for feature, known in levels.items()}
        if source.meta.input_dtype == "float64":
            for feature, distinct in _distinct(trees).items():
                levels[feature] = distinct
                with np.errstate(over="ignore"):
                    codes[feature] = np.nextafter(self._code(feature, distinct), np.float32(np.inf))
        none = np.zeros(0)
        parts = [levels.get(feature, none) for feature in range(n_features)]
        self.starts = np.cumsum([0, *(part.size for part in parts)]).astype(np.uint32)
        self.levels = np.concatenate(parts)
        self.codes = np.concatenate([codes.get(f, none) for f in range(n_features)]).astype(np.float32)

    def rules(self, source: Source) -> NDArray[np.uint8]:
        """Return the source's rules with those that its levels need."""
        found = np.zeros(len(source.meta.feature_names), np.uint8)
        if source.rules is not None:
            found |= source.rules
        found[sorted(self.coded)] |= CODED
        return found

    def narrow(self, tree: SourceTree) -> Tree:
        """Return a tree with float32 thresholds that decide as the source's do."""
        splits = tree.left >= 0
        sets = tree.category_set if tree.category_set is not None else np.full(splits.size, NO_SET)
        category = splits & (sets != NO_SET)
        threshold = round_down(np.where(splits & ~category, tree.threshold, 0.0))
        for feature in self.coded:
            mine = splits & ~category & (tree.feature == feature)
            distinct, codes = self._thresholds[feature]
            threshold[mine] = codes[np.searchsorted(distinct, tree.threshold[mine])]
        threshold.view(np.uint32)[category] = sets[category]
        return Tree(
            left=tree.left.astype(np.int32),
            right=tree.right.astype(np.int32),
            feature=np.where(splits, tree.feature, 0).astype(np.int32),
            threshold=threshold,
            weight=np.ascontiguousarray(tree.weight, np.float64),
            missing_right=splits & tree.missing_right,
            category=category,
            value=np.ascontiguousarray(tree.value, np.float64),
        )

    def _code(self, feature: int, distinct: NDArray[np.float64]) -> NDArray[np.float32]:
        """Return the float32 threshold of each level: rising without a tie."""
        down = round_down(distinct)
        if np.isfinite(down).all() and (np.diff(down) > 0).all():
            return down
        # Any rising numbers do, since every value of the feature is coded: the float32 from 1 on, one by one.
        ranks = (_ONE + np.arange(distinct.size)).astype(np.uint32).view(np.float32)
        self.coded.add(feature)
        self._thresholds[feature] = distinct, ranks
        return ranks


def _distinct(trees: Iterable[SourceTree]) -> dict[int, NDArray[np.float64]]:
    """Return the distinct thresholds of each feature, rising."""
    features, thresholds = [], []
    for tree in trees:
        splits = tree.left >= 0
        if tree.category_set is not None:
            splits &= tree.category_set == NO_SET
        features.append(tree.feature[splits])
        thresholds.append(tree.threshold[splits] + 0.0)  # -0.0 is 0.0 in every comparison
    feature, threshold = np.concatenate(features), np.concatenate(thresholds)
    order = np.argsort(feature, kind="stable")
    present, starts = np.unique(feature[order], return_index=True)
    parts = np.split(threshold[order], starts[1:])
    return {int(number): np.unique(part) for number, part in zip(present, parts, strict=True)}
