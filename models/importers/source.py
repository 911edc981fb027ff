"""What an importer hands over: the trees, how raw scores come about, and the source's own answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.meta import BundleMeta
from models.pack import Tree

Rows = NDArray[np.float32]
Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Source:
    """A model taken apart.

    Attributes:
        meta: what the bundle will say of itself.
        trees: in the order in which the source adds them.
        categories: uint32, all sets of categories, as models.bundle.Bundle has them.
        missing: uint8 [features], what to do with each feature's value first.
        raw: the source's raw scores of rows, float64 [rows, n_raw].
        predict: the source's outputs of rows, float64 [rows, outputs].
    """

    meta: BundleMeta
    trees: list[Tree]
    categories: NDArray[np.uint32]
    missing: NDArray[np.uint8]
    raw: Callable[[Rows], Scores]
    predict: Callable[[Rows], Scores]


def round_down(thresholds: NDArray[np.float64]) -> Rows:
    """Return the largest float32 that is not above each threshold.

    For a float32 x, `x <= t` holds exactly where `x <= round_down(t)` does; rounding to the nearest would
    send a row that lies on it to the other side.
    """
    with np.errstate(over="ignore"):
        nearest = thresholds.astype(np.float32)
    above = nearest.astype(np.float64) > thresholds
    return np.where(above, np.nextafter(nearest, np.float32(-np.inf)), nearest)
