"""Imports a model: takes it apart, packs it, writes it, and compares the bundle with the source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, Golden, write_bundle
from models.errors import GoldenMismatchError, ImportRefusedError
from models.forest import Forest
from models.importers import lightgbm_source, sklearn_source
from models.importers.source import Rows, Source
from models.pack import pack

#: Rows that are compared with the source before a bundle is believed.
CHECKED_ROWS = 1024
#: Of those, the rows that the bundle keeps as golden vectors.
GOLDEN_ROWS = 64

_TAKERS: Mapping[str, Callable[[Any], Source]] = {
    "sklearn": sklearn_source.take_apart,
    "lightgbm": lightgbm_source.take_apart,
}


def import_model(
    model: Any,
    path: Path | str,
    *,
    feature_names: Sequence[str] | None = None,
    trained_at: str = "",
    notes: Mapping[str, str] | None = None,
) -> Bundle:
    """Turn a trained model into a bundle file.

    Args:
        model: RandomForest or ExtraTrees of scikit-learn, or a Booster, LGBMClassifier or LGBMRegressor of
            LightGBM.
        path: where the bundle goes; written whole or not at all.
        feature_names: names of the features in their order; by default those that the model knows.
        trained_at: when it was trained, ISO 8601 in UTC.
        notes: provenance to keep: training run, data, author.

    Returns:
        The open bundle. It scored CHECKED_ROWS rows on and around the model's thresholds exactly as the
        source does.

    Raises:
        ImportRefusedError: the model has a part that cannot be carried exactly; names it.
    """
    library = type(model).__module__.split(".")[0]
    taker = _TAKERS.get(library)
    if taker is None:
        raise ImportRefusedError(
            f"a {type(model).__name__} of {library!r} is not known: {', '.join(_TAKERS)} are"
        )
    source = taker(model)
    changes: dict[str, Any] = {"trained_at": trained_at, "notes": dict(notes or {})}
    if feature_names is not None:
        changes["feature_names"] = _checked_names(feature_names, len(source.meta.feature_names))
    meta = source.meta.model_copy(update=changes)
    rows = boundary_rows(source, CHECKED_ROWS)
    checked = Golden(rows, source.raw(rows), source.predict(rows))
    golden = Golden(rows[:GOLDEN_ROWS], checked.raw[:GOLDEN_ROWS], checked.out[:GOLDEN_ROWS])
    path = Path(path)
    bundle = write_bundle(
        path, meta, pack(source.trees), categories=source.categories, missing=source.missing, golden=golden
    )
    try:
        Forest(bundle).check_golden(checked)
    except GoldenMismatchError as error:
        path.unlink()
        raise ImportRefusedError(f"the imported model does not score as its source does: {error}") from error
    return bundle


def _checked_names(names: Sequence[str], expected: int) -> tuple[str, ...]:
    if len(names) != expected:
        raise ImportRefusedError(f"{len(names)} feature names were given, the model has {expected} features")
    return tuple(map(str, names))


def boundary_rows(source: Source, count: int) -> Rows:
    """Make rows that lie on thresholds and right beside them, where importers go wrong.

    Returns:
        float32 [count, features]: each value is a threshold of that feature, its neighbour on either side,
        zero, a category, or missing where the source allows it.
    """
    random = np.random.default_rng(count)
    n_features = len(source.meta.feature_names)
    rows = np.zeros((count, n_features), np.float32)
    for feature, (thresholds, categorical) in _thresholds(source, n_features).items():
        pool = thresholds[np.isfinite(thresholds)]
        if categorical or not pool.size:
            pool = np.arange(-2, 66, dtype=np.float32)
        values = random.choice(pool, count)
        toward = random.choice(np.array([-np.inf, np.inf], np.float32), count)
        beside = random.random(count) < 0.5  # noqa: PLR2004 - one half
        rows[:, feature] = np.where(beside, np.nextafter(values, toward), values)
    if source.meta.allows_missing:
        rows[random.random(rows.shape) < 0.05] = np.nan  # noqa: PLR2004 - some
        rows[: count // 2] = np.nan_to_num(rows[: count // 2], nan=0.0)  # half without: the other kernel
    rows[~np.isfinite(rows) & ~np.isnan(rows)] = 0.0
    return np.ascontiguousarray(rows[random.permutation(count)])


def _thresholds(source: Source, n_features: int) -> dict[int, tuple[NDArray[np.float32], bool]]:
    """Return a sample of each feature's thresholds, and whether it is categorical."""
    feature, threshold, category = [], [], []
    for tree in source.trees[:: max(1, len(source.trees) // 64)]:
        splits = tree.left >= 0
        feature.append(tree.feature[splits])
        threshold.append(tree.threshold[splits])
        category.append(tree.category[splits])
    features = np.concatenate(feature)
    thresholds = np.concatenate(threshold)
    categories = np.concatenate(category)
    order = np.argsort(features, kind="stable")
    starts = np.searchsorted(features[order], np.arange(n_features + 1))
    found = {}
    for number in range(n_features):
        mine = order[starts[number] : starts[number + 1]]
        found[number] = (thresholds[mine], bool(categories[mine].any()))
    return found
