"""Small models of every kind that is carried, with awkward data: zeros, missing values, categories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from models.bundle import Bundle, Rows
from models.importers import import_model
from models.importers.importer import _TAKERS
from models.importers.source import NO_SET, Source

BOOSTERS: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary"},
    "binary with another sigmoid": {"objective": "binary", "sigmoid": 0.7},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "one against all": {"objective": "multiclassova", "num_class": 3},
    "regression": {"objective": "regression"},
    "regression of roots": {"objective": "regression", "reg_sqrt": True},
    "poisson": {"objective": "poisson"},
    "tweedie": {"objective": "tweedie"},
    "huber": {"objective": "huber"},
    "cross entropy": {"objective": "cross_entropy"},
    "cross entropy lambda": {"objective": "cross_entropy_lambda"},
    "zero as missing": {"objective": "binary", "zero_as_missing": True},
    "no missing": {"objective": "binary", "use_missing": False},
    "dart": {"objective": "binary", "boosting": "dart"},
    "goss": {"objective": "binary", "data_sample_strategy": "goss"},
    "random forest": {
        "objective": "binary",
        "boosting": "rf",
        "bagging_freq": 1,
        "bagging_fraction": 0.5,
    },
}
CATEGORICAL = 3


def training_data(
    *, missing: bool, classes: int = 2, dtype: str = "float32"
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    x = random.standard_normal((2000, 6)).astype(dtype)
    x[:, CATEGORICAL] = random.integers(0, 70, 2000)
    x[random.random(x.shape) < 0.3] = 0
    signal = x[:, :3].sum(1) + x[:, CATEGORICAL] % 3 + random.standard_normal(2000)
    if missing:
        x[random.random(x.shape) < 0.05] = np.nan
    return x, np.digitize(signal, np.quantile(signal, np.arange(1, classes) / classes))


def train_booster(
    params: dict[str, Any], *, missing: bool, categorical: bool, dtype: str = "float32"
) -> lightgbm.Booster:
    x, y = training_data(missing=missing, classes=params.get("num_class", 2), dtype=dtype)
    data = lightgbm.Dataset(x, y, categorical_feature=[CATEGORICAL] if categorical else "auto")
    common = {"verbosity": -1, "num_leaves": 31, "min_data_in_leaf": 5, "num_threads": 1}
    return lightgbm.train({**params, **common}, data, 20)


def take_apart(model: Any) -> Source:
    return _TAKERS[type(model).__module__.split(".")[0]](model, None, False)


def thresholds_of(source: Source, feature: int) -> NDArray[np.float64]:
    """Return every distinct threshold of a feature, as the source compares."""
    found = [np.zeros(0)]
    for number in range(source.meta.n_trees):
        tree = source.tree(number)
        splits = (tree.left >= 0) & (tree.feature == feature)
        if tree.category_set is not None:
            splits &= tree.category_set == NO_SET
        found.append(tree.threshold[splits])
    return np.unique(np.concatenate(found))


SPECIAL = (0.0, -0.0, 1e-45, -1e-45, 5e-324, 1e-35, 1.0000001e-35, 0.9999999e-35, -1e-36, 3e38, -3e38, 1e300)
CATEGORIES = (*range(-2, 73), 0.5, -0.5, 1.9999999999, 70.5, 255.0, 16777216.0, 2147483648.0, 1e20, -7.0)


def strict_rows(source: Source) -> Rows:
    """Rows at every distinct threshold and at both of its neighbours, in the type that the source compares.

    All else in a row is random: thresholds of the other features, zeros of both signs, denormals, infinities,
    what is missing, categories that are unseen, negative or fractional, as far as the source takes them.
    """
    meta, random = source.meta, np.random.default_rng(1)
    dtype = np.dtype(meta.input_dtype)
    pools = []
    with np.errstate(over="ignore"):
        for feature in range(len(meta.feature_names)):
            at = thresholds_of(source, feature).astype(dtype)
            beside = [np.nextafter(at, np.array(to, dtype)) for to in (np.inf, -np.inf)]
            pools.append(np.concatenate([at, *beside, np.array(SPECIAL + CATEGORIES).astype(dtype)]))
    rows = []
    for feature, pool in enumerate(pools):
        block = np.stack([random.choice(other, pool.size) for other in pools], axis=1)
        block[:, feature] = pool
        rows.append(block)
    found = np.concatenate(rows)
    if meta.allows_infinite:
        found[random.random(found.shape) < 0.02] = np.inf
        found[random.random(found.shape) < 0.02] = -np.inf
    else:
        found[~np.isfinite(found)] = 0
    if meta.missing_value is not None:
        found[random.random(found.shape) < 0.05] = meta.missing_value
    if meta.allows_missing:
        half = random.random(len(found)) < 0.5
        found[half[:, None] & (random.random(found.shape) < 0.1)] = np.nan
    return np.ascontiguousarray(found)


@pytest.fixture(scope="session")
def forest_model() -> Any:
    x, y = training_data(missing=False)
    return RandomForestClassifier(20, min_samples_leaf=2, random_state=0).fit(x, y)


@pytest.fixture
def bundle(forest_model: Any, tmp_path: Path) -> Bundle:
    return import_model(forest_model, tmp_path / "forest.bundle")


def rows_for(model: Any) -> Rows:
    return strict_rows(take_apart(model))


Train = Callable[[], Any]
