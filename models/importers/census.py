"""Counts what people want to know of a model: nodes, depth, which features matter."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.fill import depth_of
from models.importers.source import Source, SourceTree


class Census:
    """Adds up facts over the trees of a model.

    Args:
        n_features: features of the model.
    """

    def __init__(self, n_features: int) -> None:
        self._rows = np.zeros(n_features)
        self._nodes = self._depth = self._trees = 0
        self._mean_depth = 0.0

    def add(self, tree: SourceTree) -> None:
        """Count a tree."""
        splits = tree.left >= 0
        weight = np.nan_to_num(tree.weight)
        self._rows += np.bincount(tree.feature[splits], weight[splits], self._rows.size)
        self._nodes += tree.left.size
        self._trees += 1
        self._depth = max(self._depth, int(depth_of(tree.left.astype(np.int32), tree.right.astype(np.int32))))
        # A row of weight w adds w to each split on its way.
        self._mean_depth += float(weight[splits].sum() / weight[0]) if weight[0] > 0 else 0.0

    def facts(self, source: Source) -> dict[str, Any]:
        """Return what a bundle says of it, as fields of BundleMeta."""
        own = source.importance is not None and np.isfinite(source.importance).all()
        importance: NDArray[Any] = self._rows if source.importance is None or not own else source.importance
        total = float(importance.sum())
        shares = importance / total if total > 0 else np.zeros(self._rows.size)
        return {
            "n_nodes": self._nodes,
            "depth": self._depth,
            "mean_depth": round(self._mean_depth / max(1, self._trees), 3),
            "importance": tuple(round(float(share), 6) for share in shares),
            "importance_kind": source.importance_kind if own else "training rows that a feature splits",
        }
