"""Imports a model: takes it apart, packs it, writes it, and compares the bundle with the source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.bundle import Bundle, Golden, Parts, write_bundle
from models.errors import GoldenMismatchError, ImportRefusedError
from models.forest import Forest
from models.importers import lightgbm_source, onnx_source, sklearn_source, xgboost_source
from models.importers.boundary import boundary_rows
from models.importers.census import Census
from models.importers.levels import Levels
from models.importers.source import Source
from models.pack import Tree, pack

#: Rows that are compared with the source before a bundle is believed.
CHECKED_ROWS = 1024
#: Of those, the rows that the bundle keeps as golden vectors.
GOLDEN_ROWS = 64

#: What takes a library's models apart, given `missing` and `sparse` of import_model.
_TAKERS: Mapping[str, Callable[[Any, float | None, bool], Source]] = {
    "sklearn": lambda model, _missing, sparse: sklearn_source.take_apart(model, sparse=sparse),
    "lightgbm": lambda model, _missing, _sparse: lightgbm_source.take_apart(model),
    "xgboost": lambda model, missing, sparse: xgboost_source.take_apart(
        model, 0.0 if sparse and missing is None else missing
    ),
    "onnx": lambda model, _missing, _sparse: onnx_source.take_apart(model),
}

Progress = Callable[[int, int], None]


def import_model(
    model: Any,
    path: Path | str,
    *,
    feature_names: Sequence[str] | None = None,
    trained_at: str = "",
    notes: Mapping[str, str] | None = None,
    missing: float | None = None,
    sparse: bool = False,
    progress: Progress = lambda _done, _total: None,
) -> Bundle:
    """Turn a trained model into a bundle file.

    Args:
        model: a tree model of scikit-learn, LightGBM or XGBoost, or an onnx ModelProto; docs/models.md lists
            what is carried.
        path: where the bundle goes; written whole or not at all.
        feature_names: names of the features in their order; by default those that the model knows.
        trained_at: when it was trained, ISO 8601 in UTC.
        notes: provenance to keep: training run, data, author.
        missing: a number that stood for a missing value in training (XGBoost's `missing`), where the model
            itself does not know: a Booster does not, and files forget it. By default the estimator's own.
        sparse: rows were sparse, and score as the source scores these: scikit-learn's forests refuse NaN
            in them, and to XGBoost their zeros are missing.
        progress: called with the trees that are packed, and how many there are.

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
    if missing is not None and library != "xgboost":
        raise ImportRefusedError(f"missing={missing} is XGBoost's: the model is of {library!r}")
    return write_source(
        taker(model, missing, sparse),
        Path(path),
        feature_names,
        {"trained_at": trained_at, "notes": dict(notes or {})},
        progress,
    )


def write_source(
    source: Source,
    path: Path,
    feature_names: Sequence[str] | None,
    facts: Mapping[str, Any],
    progress: Progress,
) -> Bundle:
    """Write a model that was taken apart as a bundle; see import_model."""
    n_trees, n_features = source.meta.n_trees, len(source.meta.feature_names)
    census, levels = Census(n_features), Levels(source, map(source.tree, range(n_trees)))

    def trees() -> Iterator[Tree]:
        for number in range(n_trees):
            tree = source.tree(number)
            census.add(tree)
            yield levels.narrow(tree)
            progress(number + 1, n_trees)

    packed = pack(trees())
    changes = {**facts, **census.facts(source)}
    if feature_names is not None:
        changes["feature_names"] = _checked_names(feature_names, n_features)
    meta = source.meta.model_copy(update=changes)
    zeros = np.zeros(meta.n_raw)
    parts = Parts(
        categories=source.categories,
        groups=source.groups,
        rules=levels.rules(source),
        levels=levels.levels,
        level_codes=levels.codes,
        level_starts=levels.starts,
        start=zeros if source.start is None else source.start,
        # Only -0.0 added to a number leaves all of them as they are.
        offset=-zeros if source.offset is None else source.offset,
    )
    rows = boundary_rows(source, CHECKED_ROWS)
    with np.errstate(all="ignore"):  # the rows are extreme on purpose, and libraries wonder at them
        checked = Golden(rows, source.raw(rows), source.predict(rows))
    golden = Golden(rows[:GOLDEN_ROWS], checked.raw[:GOLDEN_ROWS], checked.out[:GOLDEN_ROWS])
    bundle = write_bundle(path, meta, packed, parts, golden)
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
