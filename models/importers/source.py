"""What an importer hands over: the trees, how raw scores come about, and the source's own answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Rows
from models.meta import BundleMeta

Scores = NDArray[np.float64]
Answer = Callable[[Rows], Scores]

#: The set of a split that is not categorical.
NO_SET = -1


@dataclass(frozen=True)
class SourceTree:
    """One tree as its library has it: arrays over its nodes, node 0 the root.

    Attributes:
        left: int32 [nodes], the left child; -1 at a leaf.
        right: int32 [nodes], the right child; -1 at a leaf.
        feature: int32 [nodes], read at splits.
        threshold: float64 [nodes], a row goes left where x <= threshold, as the source compares.
        weight: float64 [nodes], how many training rows came by, to put likely splits together.
        missing_right: bool [nodes], where a missing value goes.
        value: float64 [nodes, values], read at leaves.
        category_set: int64 [nodes], where a categorical split's set begins in the source's categories, or
            NO_SET; a row goes left where its category is in the set. None if no split is categorical.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    weight: NDArray[np.float64]
    missing_right: NDArray[np.bool_]
    value: NDArray[np.float64]
    category_set: NDArray[np.int64] | None = None


def _no_words() -> NDArray[np.uint32]:
    return np.zeros(0, np.uint32)


@dataclass(frozen=True)
class Source:
    """A model taken apart.

    Attributes:
        meta: what the bundle will say of itself.
        tree: gives one tree by its number, in the order in which the source adds them.
        raw: the source's raw scores of rows, float64 [rows, n_raw]; rows come in meta.input_dtype.
        predict: the source's outputs of rows, float64 [rows, outputs].
        categories: as models.bundle.Bundle has them, as are groups and rules (None: nothing is done first).
        groups: see categories.
        rules: see categories.
        start: float64 [n_raw], what sums begin with; None: zeros.
        offset: float64 [n_raw], what is added at the end; None: nothing.
        levels: the known categories of a feature whose rule is LEVEL, rising.
        importance: each feature's importance by the library's own measure, on any scale; None: by rows.
        importance_kind: what that measure is.
    """

    meta: BundleMeta
    tree: Callable[[int], SourceTree]
    raw: Answer
    predict: Answer
    categories: NDArray[np.uint32] = field(default_factory=_no_words)
    groups: NDArray[np.uint32] = field(default_factory=_no_words)
    rules: NDArray[np.uint8] | None = None
    start: Scores | None = None
    offset: Scores | None = None
    levels: Mapping[int, Scores] = field(default_factory=dict)
    importance: NDArray[np.floating[Any]] | None = None
    importance_kind: str = ""


def numbered(count: int) -> tuple[str, ...]:
    """Name features that have no names."""
    return tuple(f"f{number}" for number in range(count))


def as_scores(found: Any, rows: Rows) -> Scores:
    """Bring a library's answer into the shape [rows, scores]."""
    return np.ascontiguousarray(found, np.float64).reshape(len(rows), -1)


def accepts(predict: Answer, n_features: int, value: float, dtype: str) -> bool:
    """Ask a model itself whether it takes NaN or an infinity anywhere: versions and training differ."""
    try:
        predict(np.full((1, n_features), value, dtype))
    except Exception:  # noqa: BLE001 - each library has its own way to refuse
        return False
    return True


def category_words(categories: NDArray[np.integer[Any]]) -> list[int]:
    """Write a set of categories as a count of 32-bit words and their bits."""
    if not len(categories):
        return [0]
    words = np.zeros(int(categories.max()) // 32 + 1, np.uint32)
    np.bitwise_or.at(words, categories // 32, np.uint32(1) << (categories % 32).astype(np.uint32))
    return [len(words), *words.tolist()]
