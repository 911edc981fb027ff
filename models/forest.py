"""A forest ready to score: a bundle bound to the kernel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models import kernel, plan
from models.bundle import Bundle, Golden, Rows
from models.errors import GoldenMismatchError, InputError
from models.layout import CODED, KIND_BITS, TRUNCATED
from models.links import BOUND, COMPLEMENTS, FLOAT32, NUMBERS

_SUMS = {"float64": plan.SUM64, "float32": plan.SUM32, "float64_to_float32": plan.SUM64_TO_32}
_WARM_ROUNDS = 3
_FLOAT32 = np.dtype(np.float32)


class Forest:
    """Scores rows with a bundle's trees. Threads may share it, and run in parallel: no call holds the GIL.

    Args:
        bundle: an open bundle; it stays mapped for as long as this object lives.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        meta, packed = bundle.meta, bundle.forest
        self._n_features = len(meta.feature_names)
        self._outputs = (meta.n_raw, len(meta.outputs))
        self._narrow = meta.input_dtype == "float32"
        addresses = {
            plan.LINES: packed.lines,
            plan.ROOTS: packed.roots,
            plan.SHAPES: packed.shapes,
            plan.CODES: packed.codes,
            plan.TABLE: packed.table,
            plan.CATEGORIES: bundle.categories,
            plan.RULES: bundle.rules,
            plan.LEVELS: bundle.levels,
            plan.LEVEL_CODES: bundle.level_codes,
            plan.LEVEL_STARTS: bundle.level_starts,
            plan.START: bundle.start,
            plan.OFFSET: bundle.offset,
        }
        self._plan = plan.make_plan(
            {
                **{place: array.ctypes.data for place, array in addresses.items()},
                plan.GROUPS: bundle.groups.ctypes.data if bundle.groups.size else 0,
                plan.TREES: meta.n_trees,
                plan.RAW: meta.n_raw,
                plan.CODE_BYTES: packed.codes.itemsize * bool(packed.codes.size),
                plan.GENERAL: int(bool(packed.lines["category"].any())),
                plan.NAN: int(meta.allows_missing),
                plan.INF: int(meta.allows_infinite),
                plan.CONVERT: _when_to_convert(bundle),
                plan.DIVISOR: meta.divisor,
                plan.RAW_DIVIDED: int(meta.raw_divided),
                plan.SUMS: _SUMS[meta.sum_dtype],
                plan.LINK: NUMBERS[meta.link],
                plan.SCALE: float(meta.link_scale),
                plan.HAS_SENTINEL: int(meta.missing_value is not None),
                plan.SENTINEL: float(meta.missing_value or 0.0),
            },
        )

    def predict(self, x: Rows) -> NDArray[np.float64]:
        """Score rows as the source library does.

        Args:
            x: float32 or float64 [rows, features], C-contiguous, in the order of the bundle's feature names.
                A source that compares float32 (meta.input_dtype) rounds float64 to it first; so is it here.

        Returns:
            float64 [rows, outputs]: predict_proba of a scikit-learn classifier, predict of a regressor,
            score_samples of an IsolationForest, Booster.predict of LightGBM and XGBoost (one column for a
            binary model), the scores of an ONNX model.

        Raises:
            InputError: another type or shape, or a NaN or infinity that the source would refuse.
        """
        return self._run(x, linked=True)

    def raw(self, x: Rows) -> NDArray[np.float64]:
        """Return raw scores, float64 [rows, n_raw].

        LightGBM's raw_score, XGBoost's output_margin, scikit-learn's decision_function of boosted trees; sums
        of depths for an IsolationForest; else as predict.
        """
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
        wrong = (raw.view(np.uint64) != golden.raw.view(np.uint64)).any(axis=1)
        wrong |= ~close(out, golden.out, self.bundle.meta.link).all(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise GoldenMismatchError(
                f"{self.bundle.path}: golden vector {row} scores {raw[row]} -> {out[row]} here and "
                f"{golden.raw[row]} -> {golden.out[row]} at the source: do not use this bundle here",
            )

    def _run(self, x: Rows, *, linked: bool) -> NDArray[np.float64]:
        # Small models take two microseconds: what is usual is found out with the cheapest tests.
        shape = x.shape
        if x.dtype is not _FLOAT32 or len(shape) != 2 or shape[1] != self._n_features:  # noqa: PLR2004
            x = self._checked(x)
        out = np.empty((shape[0], self._outputs[linked]))
        try:
            code = kernel.predict(self._plan, linked, x, out)
        except TypeError:  # not contiguous, which the kernel's signature finds out for nothing
            code = kernel.predict(self._plan, linked, self._checked(x), out)
        if code != kernel.ALL_WELL:
            raise self._refusal(x, code)
        return out

    def _checked(self, x: Rows) -> Rows:
        """Return rows of a type that the kernel takes, as the source would."""
        shaped = x.ndim == 2 and x.shape[1] == self._n_features  # noqa: PLR2004 - rows and features
        if x.dtype not in (np.float32, np.float64) or not shaped or not x.flags.c_contiguous:
            expected = f"float32 or float64 [rows, {self._n_features}], C-contiguous"
            raise InputError("vector", "shape", f"must be {expected}, got {x.dtype} {list(x.shape)}")
        if not self._narrow or x.dtype == np.float32:
            return x
        with np.errstate(over="ignore"):  # it becomes an infinity, as at the source
            return x.astype(np.float32)

    def _refusal(self, x: Rows, code: int) -> InputError:
        row, feature = divmod(code, self._n_features)
        name = self.bundle.meta.feature_names[feature]
        if np.isnan(x[row, feature]):
            return InputError(name, "not_a_number", f"row {row} has NaN, which the model's library refuses")
        return InputError(name, "infinite", f"row {row} has an infinity, which the model's library refuses")


def _when_to_convert(bundle: Bundle) -> int:
    """Say which float32 rows must be converted before the walk; float64 rows are, always."""
    kinds = bundle.rules & KIND_BITS
    if bundle.meta.missing_value is not None or (kinds > TRUNCATED).any() or (bundle.rules & CODED).any():
        return plan.ALWAYS
    return plan.WHERE_ODD if bundle.rules.any() else plan.NEVER


def close(a: NDArray[np.float64], b: NDArray[np.float64], link: str) -> NDArray[np.bool_]:
    """Say where two arrays of outputs differ by at most what their link allows (models.links.BOUND)."""
    dtype = np.float32 if link in FLOAT32 else np.float64
    larger = np.maximum(np.abs(a), np.abs(b)).astype(dtype)
    if link in COMPLEMENTS:
        columns = np.s_[:, : COMPLEMENTS[link]]
        larger[columns] = np.maximum(larger[columns], dtype(0.5))
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= BOUND[link] * np.spacing(larger)
    found: NDArray[np.bool_] = near | (a.view(np.uint64) == b.view(np.uint64)) | (np.isnan(a) & np.isnan(b))
    return found
