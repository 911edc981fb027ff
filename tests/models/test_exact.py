"""Scores equal the source library's: raw to the bit, outputs within one unit in the last place."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from models.errors import InputError
from models.forest import Forest
from models.importers import import_model
from tests.models.conftest import (
    BOOSTERS,
    FORESTS,
    odd_rows,
    thresholds_of,
    train_booster,
    training_data,
)

ROOT = Path(__file__).parents[2]


def sklearn_scores(model: Any, rows: Any) -> Any:
    model.set_params(n_jobs=1)
    scores = model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)
    return scores.reshape(len(rows), -1)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", FORESTS)
def test_scikit_learn_forests_score_to_the_bit(
    name: str, classes: int, missing: bool, tmp_path: Path
) -> None:
    x, y = training_data(missing=missing, classes=classes)
    model = FORESTS[name](15, random_state=0, min_samples_leaf=2).fit(x, y)
    bundle = import_model(model, tmp_path / "m.bundle")
    rows = odd_rows(thresholds_of(bundle), infinite=False, missing=missing)
    got = Forest(bundle).predict(rows)
    assert got.tobytes() == sklearn_scores(model, rows).tobytes()


@pytest.mark.parametrize("categorical", [False, True], ids=["numeric", "categorical"])
@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
@pytest.mark.parametrize("name", BOOSTERS)
def test_lightgbm_scores_to_the_bit_and_its_outputs_within_an_ulp(
    name: str, missing: bool, categorical: bool, tmp_path: Path
) -> None:
    booster = train_booster(BOOSTERS[name], missing=missing, categorical=categorical)
    bundle = import_model(booster, tmp_path / "m.bundle")
    rows = odd_rows(thresholds_of(bundle), infinite=True, missing=True)
    forest = Forest(bundle)
    assert forest.raw(rows).tobytes() == booster.predict(rows, raw_score=True).tobytes()
    expected = booster.predict(rows).reshape(len(rows), -1)
    assert np.all(np.abs(forest.predict(rows) - expected) <= np.spacing(np.abs(expected)))


def test_labels_of_any_kind_weights_and_missing_values_go_together(tmp_path: Path) -> None:
    x, y = training_data(missing=True)
    weights = np.random.default_rng(2).random(len(y))
    for labels in (np.array(["ok", "fraud"])[y], y.astype(bool), y * 10 - 5):
        model = RandomForestClassifier(9, class_weight="balanced", random_state=0).fit(x, labels, weights)
        bundle = import_model(model, tmp_path / "m.bundle")
        assert bundle.meta.outputs == tuple(map(str, model.classes_))
        rows = odd_rows(thresholds_of(bundle), 300, infinite=False, missing=True)
        assert Forest(bundle).predict(rows).tobytes() == sklearn_scores(model, rows).tobytes()


def test_lightgbms_own_estimators_are_carried_with_their_labels(tmp_path: Path) -> None:
    x, y = training_data(missing=True)
    labels = np.array(["fraud", "ok"])[y]
    model = lightgbm.LGBMClassifier(n_estimators=30, verbosity=-1, monotone_constraints=[1, 0, 0, 0, 0, -1])
    bundle = import_model(model.fit(x, labels), tmp_path / "m.bundle")
    assert bundle.meta.outputs == ("ok",)
    rows = odd_rows(thresholds_of(bundle), 300, infinite=False, missing=True)
    expected = model.predict_proba(rows)[:, 1]
    assert np.all(np.abs(Forest(bundle).predict(rows)[:, 0] - expected) <= np.spacing(expected))


def test_a_booster_is_carried_at_its_best_iteration(tmp_path: Path) -> None:
    x, y = training_data(missing=True)
    data = lightgbm.Dataset(x[:1000], y[:1000])
    later = lightgbm.Dataset(x[1000:], y[1000:], reference=data)
    stop = lightgbm.early_stopping(3, verbose=False)
    params = {"objective": "binary", "verbosity": -1}
    options: dict[str, Any] = {"valid_sets": [later], "callbacks": [stop], "keep_training_booster": True}
    booster = lightgbm.train(params, data, 300, **options)
    assert 0 < booster.best_iteration < booster.num_trees()
    bundle = import_model(booster, tmp_path / "m.bundle")
    assert bundle.meta.n_trees == booster.best_iteration
    rows = odd_rows(thresholds_of(bundle), 300, infinite=True, missing=True)
    assert Forest(bundle).raw(rows).tobytes() == booster.predict(rows, raw_score=True).tobytes()


def test_a_batch_scores_each_row_as_if_it_were_alone(bundle: Any) -> None:
    forest = Forest(bundle)
    rows = odd_rows(thresholds_of(bundle), 200, infinite=False, missing=True)
    alone = np.concatenate([forest.predict(rows[i : i + 1]) for i in range(len(rows))])
    assert alone.tobytes() == forest.predict(rows).tobytes()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    n_features=st.integers(1, 40),
    n_rows=st.integers(2, 400),
    trees=st.integers(1, 130),
    depth=st.one_of(st.none(), st.integers(1, 12)),
)
def test_any_forest_scores_to_the_bit(
    seed: int, n_features: int, n_rows: int, trees: int, depth: int | None, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((n_rows, n_features)).astype(np.float32).round(1)
    y = random.standard_normal(n_rows)
    model = RandomForestRegressor(trees, max_depth=depth, random_state=seed % 1000).fit(x, y)
    got = Forest(import_model(model, tmp_path / "m.bundle")).predict(x)
    assert got.tobytes() == sklearn_scores(model, x).tobytes()


def test_a_chain_a_thousand_splits_deep_scores_to_the_bit(tmp_path: Path) -> None:
    # One split cuts off one row at a time: weights that double make the tree a chain.
    x = np.arange(1000, dtype=np.float32).reshape(-1, 1)
    y = np.cumsum(np.cumprod(np.full(1000, 1.9) ** (np.arange(1000) < 900)) % 1e300)
    model = RandomForestRegressor(2, bootstrap=False, random_state=0).fit(x, np.log(y + 1) ** 9)
    bundle = import_model(model, tmp_path / "m.bundle")
    assert Forest(bundle).predict(x).tobytes() == sklearn_scores(model, x).tobytes()


def test_a_forest_of_single_leaves_scores(tmp_path: Path) -> None:
    x = np.zeros((10, 3), np.float32)
    model = RandomForestClassifier(3, random_state=0).fit(x, np.arange(10) % 2)
    bundle = import_model(model, tmp_path / "m.bundle")
    assert bundle.forest.lines.size == 3
    assert Forest(bundle).predict(x).tobytes() == sklearn_scores(model, x).tobytes()


def test_rows_that_the_source_refuses_are_refused_by_feature_and_rule(bundle: Any) -> None:
    forest = Forest(bundle)
    rows = np.zeros((3, 6), np.float32)
    rows[2, 4] = np.inf
    with pytest.raises(InputError, match="f4") as caught:
        forest.predict(rows)
    assert caught.value.rule == "infinite"
    wrongs: list[Any] = [rows[:, :5], rows.astype(np.float64), rows[0], np.asfortranarray(rows)]
    for wrong in wrongs:
        with pytest.raises(InputError) as caught:
            forest.predict(wrong)
        assert caught.value.rule == "shape"


def test_a_bundle_that_takes_no_missing_values_refuses_nan_by_feature_and_rule(bundle: Any) -> None:
    strict = replace(bundle, meta=bundle.meta.model_copy(update={"allows_missing": False}))
    rows = np.zeros((2, 6), np.float32)
    rows[1, 1] = np.nan
    with pytest.raises(InputError, match="f1") as caught:
        Forest(strict).predict(rows)
    assert caught.value.rule == "not_a_number"


SCORE_ELSEWHERE = """
import sys, numpy as np
from models.bundle import open_bundle
from models.forest import Forest
forest = Forest(open_bundle(sys.argv[1]))
sys.stdout.write(forest.predict(np.load(sys.argv[2])).tobytes().hex())
"""


def test_a_processor_without_vector_instructions_gives_the_same_bits(bundle: Any, tmp_path: Path) -> None:
    rows = odd_rows(thresholds_of(bundle), 100, infinite=False, missing=True)
    np.save(tmp_path / "rows.npy", rows)
    # Without the variables, Numba compiles for this very processor.
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", SCORE_ELSEWHERE, str(bundle.path), str(tmp_path / "rows.npy")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **plain}, capture_output=True, text=True, check=True
    )
    assert bytes.fromhex(done.stdout) == Forest(bundle).predict(rows).tobytes()
