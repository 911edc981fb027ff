"""Small forests of every kind that is carried, with awkward data: zeros, missing values, categories."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from models.bundle import Bundle
from models.importers import import_model

Rows = NDArray[np.float32]

FORESTS: dict[str, Callable[..., Any]] = {
    cls.__name__: cls
    for cls in (RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor)
}
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
    "zero as missing": {"objective": "binary", "zero_as_missing": True},
    "no missing": {"objective": "binary", "use_missing": False},
    "dart": {"objective": "binary", "boosting": "dart"},
    "random forest": {
        "objective": "binary",
        "boosting": "rf",
        "bagging_freq": 1,
        "bagging_fraction": 0.5,
    },
}
CATEGORICAL = 3


def training_data(*, missing: bool, classes: int = 2) -> tuple[Rows, NDArray[np.int64]]:
    random = np.random.default_rng(0)
    x = random.standard_normal((2000, 6)).astype(np.float32)
    x[:, CATEGORICAL] = random.integers(0, 70, 2000)
    x[random.random(x.shape) < 0.3] = 0
    signal = x[:, :3].sum(1) + x[:, CATEGORICAL] % 3 + random.standard_normal(2000)
    if missing:
        x[random.random(x.shape) < 0.05] = np.nan
    return x, np.digitize(signal, np.quantile(signal, np.arange(1, classes) / classes))


def train_booster(params: dict[str, Any], *, missing: bool, categorical: bool) -> lightgbm.Booster:
    x, y = training_data(missing=missing, classes=params.get("num_class", 2))
    data = lightgbm.Dataset(x, y, categorical_feature=[CATEGORICAL] if categorical else "auto")
    common = {"verbosity": -1, "num_leaves": 31, "min_data_in_leaf": 5, "num_threads": 1}
    return lightgbm.train({**params, **common}, data, 20)


def odd_rows(thresholds: Rows, count: int = 1000, *, infinite: bool, missing: bool) -> Rows:
    """Rows of values on and beside thresholds, zeros of both signs, denormals, tiny and huge numbers."""
    random = np.random.default_rng(1)
    up, down = (np.nextafter(thresholds, np.float32(to)) for to in (np.inf, -np.inf))
    special = [
        0.0,
        -0.0,
        1e-45,
        -1e-45,
        1e-35,
        1.0000001e-35,
        0.9999999e-35,
        -1e-36,
        3e38,
        -3e38,
        0.5,
        -0.5,
        71,
    ]
    pool = np.concatenate([thresholds, up, down, np.arange(-2, 72), np.array(special)]).astype(np.float32)
    rows = random.choice(pool, (count, 6))
    if infinite:
        rows[random.random(rows.shape) < 0.02] = np.inf
        rows[random.random(rows.shape) < 0.02] = -np.inf
    else:
        rows[~np.isfinite(rows)] = 0
    if missing:
        rows[: count // 2][random.random((count // 2, 6)) < 0.1] = np.nan
    return np.ascontiguousarray(rows)


def thresholds_of(bundle: Bundle) -> Rows:
    lines = bundle.forest.lines
    found = lines["threshold"][lines["category"] == 0].ravel()
    return np.unique(found[np.isfinite(found)])


@pytest.fixture(scope="session")
def forest_model() -> Any:
    x, y = training_data(missing=False)
    return RandomForestClassifier(20, random_state=0).fit(x, y)


@pytest.fixture
def bundle(forest_model: Any, tmp_path: Path) -> Bundle:
    return import_model(forest_model, tmp_path / "forest.bundle")
