"""Every row reaches, in every tree, the leaf that it reaches at the source: no sum hides a wrong way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

from models.bundle import Rows
from models.forest import Forest
from models.importers.importer import write_source
from models.importers.source import Source
from tests.models.conftest import strict_rows, take_apart
from tests.models.families import FAMILIES

LeafIds = Callable[[Any, Source, Rows], NDArray[Any]]


def of_sklearn(model: Any, _: Source, rows: Rows) -> NDArray[Any]:
    return np.asarray(model.apply(rows), np.float64).reshape(len(rows), -1)


def of_lightgbm(model: Any, source: Source, rows: Rows) -> NDArray[Any]:
    # Its leaves are numbered apart from its splits, and here come after them.
    splits = [int((source.tree(number).left >= 0).sum()) for number in range(source.meta.n_trees)]
    return np.asarray(model.predict(rows, pred_leaf=True, num_threads=1) + splits, np.float64)


def of_xgboost(model: Any, _: Source, rows: Rows) -> NDArray[Any]:
    data = xgboost.DMatrix(rows, feature_types=model.feature_types, enable_categorical=True)
    return np.asarray(model.predict(data, pred_leaf=True), np.float64)


FOUND: dict[str, LeafIds] = {
    "RandomForestClassifier": of_sklearn,
    "RandomForestClassifier, missing": of_sklearn,
    "RandomForestClassifier, pure, missing": of_sklearn,
    "ExtraTreesRegressor, missing, weighted": of_sklearn,
    "GradientBoostingRegressor, huber": of_sklearn,
    "LightGBM binary, numeric": of_lightgbm,
    "LightGBM binary, categorical": of_lightgbm,
    "LightGBM multiclass, categorical": of_lightgbm,
    "LightGBM zero as missing, numeric": of_lightgbm,
    "LightGBM dart, categorical": of_lightgbm,
    "XGBoost binary:logistic": of_xgboost,
    "XGBoost multi:softprob": of_xgboost,
    "XGBoost, sets": of_xgboost,
    "XGBoost, one by one": of_xgboost,
}


def labelled(source: Source, ids: Callable[[Rows], NDArray[Any]]) -> Source:
    """The same trees, each with a raw score of its own, which is the node that is reached."""
    trees = source.meta.n_trees
    changes: dict[str, Any] = {
        "n_raw": trees,
        "outputs": tuple(map(str, range(trees))),
        "link": "identity",
        "divisor": 1,
        "sum_dtype": "float64",
    }

    def tree(number: int) -> Any:
        own = source.tree(number)
        return replace(own, value=np.arange(own.left.size, dtype=np.float64)[:, None])

    return replace(
        source,
        meta=source.meta.model_copy(update=changes),
        tree=tree,
        raw=ids,
        predict=ids,
        groups=np.arange(trees, dtype=np.uint32),
        start=None,
        offset=None,
    )


@pytest.mark.parametrize("name", FOUND)
def test_every_row_reaches_the_leaf_that_it_reaches_at_the_source(name: str, tmp_path: Path) -> None:
    model = FAMILIES[name]()
    source = take_apart(model)

    def ids(rows: Rows) -> NDArray[Any]:
        with np.errstate(all="ignore"):  # the rows are extreme, and libraries wonder at them
            return FOUND[name](model, source, rows)

    bundle = write_source(labelled(source, ids), tmp_path / "m.bundle", None, {}, lambda _done, _total: None)
    rows = strict_rows(source)
    assert np.array_equal(Forest(bundle).raw(rows), ids(rows))


def test_leaves_are_told_apart_by_the_libraries() -> None:
    booster = FAMILIES["LightGBM binary, numeric"]()
    assert isinstance(booster, lightgbm.Booster)
    source = take_apart(booster)
    assert np.unique(of_lightgbm(booster, source, strict_rows(source))[:, 0]).size > 5
