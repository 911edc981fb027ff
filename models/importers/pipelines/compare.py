"""Compares a spec, and the scores that come of it, with a pipeline of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle
from models.errors import ImportRefusedError
from models.forest import Forest
from models.importers.pipelines.draft import INEXACT, Draft
from models.importers.pipelines.rows import frame
from models.spec import FeatureSpec, TransactionError

Row = Mapping[str, Any]
Vector = NDArray[np.float32]
#: What a pipeline answers with: the first of these that it has.
_ANSWERS = ("predict_proba", "score_samples", "predict")


@dataclass(frozen=True)
class Checked:
    """What a comparison found.

    Attributes:
        rows: the rows that both take.
        asked: how many rows were compared.
        worst_ulps: the largest difference of a feature, in units of the last place of float32.
        sparse: scikit-learn hands its model a sparse matrix.
    """

    rows: list[Row]
    asked: int
    worst_ulps: int
    sparse: bool

    @property
    def refused(self) -> int:
        """How many rows both refuse."""
        return self.asked - len(self.rows)


def compare(pipeline: Any, draft: Draft, spec: FeatureSpec, rows: Sequence[Row]) -> Checked:
    """Compare each row's features with scikit-learn's; what one refuses the other must refuse.

    Raises:
        ImportRefusedError: with the feature, or the row that one of them refuses.
    """
    allowed = 1 if any(_inexact(step) for one in _recipes(spec) for step in one.steps) else 0
    taken: list[Row] = []
    worst = 0
    vectors, sparse = _transformed(pipeline, draft, rows)
    for row, expected in zip(rows, vectors, strict=True):
        found, why = _own(spec, row)
        if found is None and expected is None:
            continue
        if found is None or expected is None:
            who = f"refused here ({why})" if found is None else "refused by scikit-learn alone"
            raise ImportRefusedError(f"the transaction {dict(row)!r:.300} is {who}")
        ulps = _ulps(found, expected)
        worst = max(worst, int(ulps.max()))
        if worst > allowed:
            place = int(ulps.argmax())
            raise ImportRefusedError(
                f"feature {spec.feature_names[place]!r} is {found[place]} here, and {expected[place]} by "
                f"scikit-learn, of {dict(row)!r:.300}"
            )
        taken.append(row)
    if not taken:
        raise ImportRefusedError("scikit-learn refuses every row that was tried: give a sample of real ones")
    return Checked(taken, len(rows), worst, sparse)


def _recipes(spec: FeatureSpec) -> tuple[Any, ...]:
    return (*spec.recipe.values, *spec.recipe.features)


def _inexact(step: Any) -> bool:
    return step.kind in INEXACT and not step.numpy


def _own(spec: FeatureSpec, row: Row) -> tuple[Vector | None, str]:
    try:
        return spec.vector(row), ""
    except TransactionError as error:
        return None, str(error)


def _transformed(pipeline: Any, draft: Draft, rows: Sequence[Row]) -> tuple[list[Vector | None], bool]:
    """Return what scikit-learn makes of each row as float32, and whether that was sparse.

    None stands where it, or any model, would refuse a row.
    """
    data = frame(draft, rows, named=hasattr(pipeline, "feature_names_in_"))
    transformer = pipeline[:-1] if len(pipeline.steps) > 1 else None
    sparse = False

    def transform(begin: int, end: int) -> Vector:
        nonlocal sparse
        part = data[begin:end]
        found = part if transformer is None else transformer.transform(part)
        if hasattr(found, "toarray"):
            sparse, found = True, found.toarray()
        return np.asarray(found, np.float64).astype(np.float32)

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = _halved(transform, 0, len(rows))
    return [None if one is None or np.isinf(one).any() else one for one in found], sparse


def _halved(transform: Callable[[int, int], Vector], begin: int, end: int) -> list[Vector | None]:
    """Transform rows; where they are refused, find out which."""
    try:
        return list(transform(begin, end))
    except Exception:  # noqa: BLE001 - whatever it raises, one of the rows is not taken
        if end - begin == 1:
            return [None]
        middle = (begin + end) // 2
        return _halved(transform, begin, middle) + _halved(transform, middle, end)


def _ulps(left: Vector, right: Vector) -> NDArray[np.int64]:
    """Return how many float32 lie between numbers, elementwise; zeros are one number, and so is NaN."""

    def ranks(of: Vector) -> NDArray[np.int64]:
        bits = of.view(np.int32).astype(np.int64)
        return np.where(bits < 0, np.int64(-(2**31)) - bits, bits)

    both = np.isnan(left) & np.isnan(right)
    return np.where(both, 0, np.abs(ranks(left) - ranks(right)))


def compare_scores(
    pipeline: Any, draft: Draft, spec: FeatureSpec, bundle: Bundle, rows: Sequence[Row]
) -> int:
    """Compare the scores of whole rows; return how many differ by the rounding of features to float32."""
    data = frame(draft, rows, named=hasattr(pipeline, "feature_names_in_"))
    answer = next(getattr(pipeline, name) for name in _ANSWERS if hasattr(pipeline, name))
    matrix = spec.matrix(rows)
    # A row whose features scikit-learn computes, and its model refuses, is refused by the bundle as well.
    whole: Any = np.ones(len(rows), bool) if bundle.meta.allows_missing else ~np.isnan(matrix).any(axis=1)
    expected = _scores(answer, data, whole)
    if not len(expected):
        return 0
    ours = Forest(bundle).predict(np.ascontiguousarray(matrix[whole]))
    differ = ~np.isclose(ours, expected[:, -ours.shape[1] :], rtol=1e-6, atol=1e-9).all(axis=1)
    if differ.any() and bundle.meta.input_dtype == "float32":
        row = dict(rows[int(np.flatnonzero(whole)[np.argmax(differ)])])
        raise ImportRefusedError(f"the model scores otherwise than the pipeline does, of {row!r:.300}")
    return int(differ.sum())


def _scores(answer: Callable[[Any], Any], data: Any, chosen: Any) -> NDArray[np.float64]:
    if not chosen.any():
        return np.empty((0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = answer(data[chosen] if isinstance(data, np.ndarray) else data.loc[chosen])
    return np.asarray(found, np.float64).reshape(int(chosen.sum()), -1)
