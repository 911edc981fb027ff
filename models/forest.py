"""A forest ready to score: a bundle bound to the kernel."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from models import kernel
from models.bundle import Bundle, Golden
from models.errors import GoldenMismatchError, InputError
from models.meta import Link

_LINKS = {name: number for number, name in enumerate(get_args(Link))}
_WARM_ROUNDS = 3


class Forest:
    """Scores rows with a bundle's trees. Threads may share it, and run in parallel: no call holds the GIL.

    Args:
        bundle: an open bundle; it stays mapped for as long as this object lives.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        meta, packed = bundle.meta, bundle.forest
        self._n_features = len(meta.feature_names)
        self._n_raw = meta.n_raw
        self._plan = kernel.make_plan(
            {
                kernel.PLAN_LINES: packed.lines.ctypes.data,
                kernel.PLAN_ROOTS: packed.roots.ctypes.data,
                kernel.PLAN_EXITS: packed.exits.ctypes.data,
                kernel.PLAN_CODES: packed.codes.ctypes.data,
                kernel.PLAN_CODE_BYTES: packed.codes.itemsize,
                kernel.PLAN_TREES: meta.n_trees,
                kernel.PLAN_GENERAL: int(bool(packed.lines["category"].any())),
                kernel.PLAN_CATEGORIES: bundle.categories.ctypes.data,
                kernel.PLAN_NAN: int(meta.allows_missing),
                kernel.PLAN_INF: int(meta.allows_infinite),
                kernel.PLAN_CONVERT: int(bool(bundle.missing.any())),
                kernel.PLAN_PER_CLASS: int(meta.per_class),
                kernel.PLAN_DIVISOR: meta.divisor,
                kernel.PLAN_RAW_DIVIDED: int(meta.raw_divided),
                kernel.PLAN_LINK: _LINKS[meta.link],
            },
        )

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score rows as the source library does.

        Args:
            x: float32 [rows, features], C-contiguous, in the order of the bundle's feature names.

        Returns:
            float64 [rows, outputs]: predict_proba of a scikit-learn classifier, predict of a regressor,
            Booster.predict of LightGBM (one column for a binary model).

        Raises:
            InputError: another type or shape, or a NaN or infinity that the source would refuse.
        """
        return self._run(x, linked=True)

    def raw(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return raw scores, float64 [rows, n_raw]: LightGBM's raw_score; for scikit-learn as predict."""
        return self._run(x, linked=False)

    def warm(self) -> None:
        """Compile what is not compiled yet, and touch what every row touches."""
        for _ in range(_WARM_ROUNDS):
            self.predict(self.bundle.golden.x)

    def check_golden(self, golden: Golden | None = None) -> None:
        """Score golden vectors again: raw scores to the bit, outputs within one unit in the last place.

        Args:
            golden: rows and their scores at the source; by default those of the bundle.

        Raises:
            GoldenMismatchError: names the row, what was expected and what came.
        """
        golden = golden or self.bundle.golden
        raw, out = self.raw(golden.x), self.predict(golden.x)
        wrong = (raw.view(np.uint64) != golden.raw.view(np.uint64)).any(axis=1) | ~_close(
            out, golden.out
        ).all(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise GoldenMismatchError(
                f"{self.bundle.path}: golden vector {row} scores {raw[row]} -> {out[row]} here and "
                f"{golden.raw[row]} -> {golden.out[row]} at the source: do not use this bundle here",
            )

    def _run(self, x: NDArray[np.float32], *, linked: bool) -> NDArray[np.float64]:
        if (
            x.ndim != 2  # noqa: PLR2004 - rows and features
            or x.shape[1] != self._n_features
            or x.dtype != np.float32
            or not x.flags.c_contiguous
        ):
            expected = f"float32 [rows, {self._n_features}], C-contiguous"
            raise InputError("vector", "shape", f"must be {expected}, got {x.dtype} {list(x.shape)}")
        out = np.empty((x.shape[0], self._n_raw), np.float64)
        bundle = self.bundle
        code = kernel.predict(
            self._plan, bundle.missing, bundle.forest.table, bundle.meta.link_scale, linked, x, out
        )
        if code != kernel.ALL_WELL:
            raise self._refusal(x, code)
        return out

    def _refusal(self, x: NDArray[np.float32], code: int) -> InputError:
        row, feature = divmod(code, self._n_features)
        name = self.bundle.meta.feature_names[feature]
        if np.isnan(x[row, feature]):
            return InputError(name, "not_a_number", f"row {row} has NaN, which the model's library refuses")
        return InputError(name, "infinite", f"row {row} has an infinity, which the model's library refuses")


def _close(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say where two arrays differ by at most one unit in the last place."""
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= np.spacing(np.maximum(np.abs(a), np.abs(b)))
    close: NDArray[np.bool_] = near | (a == b) | (np.isnan(a) & np.isnan(b))
    return close
