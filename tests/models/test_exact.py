"""Scores equal the source library's: raw to the bit, outputs within what models.links.BOUND states."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor

from models.errors import InputError
from models.forest import Forest, close
from models.importers import import_model
from models.layout import CODED, KIND_BITS, LEVEL, TRUNCATED
from tests.models.conftest import rows_for, strict_rows, take_apart, training_data
from tests.models.families import FAMILIES

ROOT = Path(__file__).parents[2]


def sklearn_scores(model: Any, rows: Any) -> Any:
    model.set_params(n_jobs=1)
    scores = model.predict_proba(rows) if hasattr(model, "predict_proba") else model.predict(rows)
    return scores.reshape(len(rows), -1)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_scores_as_its_source_does_at_every_threshold(name: str, tmp_path: Path) -> None:
    model = FAMILIES[name]()
    source = take_apart(model)
    rows = strict_rows(source)
    forest = Forest(import_model(model, tmp_path / "m.bundle"))
    # Leaves first: where raw scores differ, the walk went wrong, or the sum.
    with np.errstate(all="ignore"):  # the rows are extreme, and libraries wonder at them
        raw, out = source.raw(rows), source.predict(rows)
    assert forest.raw(rows).tobytes() == raw.tobytes()
    assert close(forest.predict(rows), out, forest.bundle.meta.link).all()


def test_the_families_have_levels_categories_codes_and_every_rule(tmp_path: Path) -> None:
    # The test above would prove little if nothing in it were odd.
    seen = 0
    for name in ("LightGBM binary, categorical", "HistGradientBoostingClassifier, odd categories"):
        bundle = import_model(FAMILIES[name](), tmp_path / "m.bundle")
        assert bundle.categories.size
        assert bundle.levels.size
        seen |= int(np.bitwise_or.reduce(bundle.rules))
    assert seen & KIND_BITS == LEVEL | TRUNCATED
    for classes, codes in ((4, 0), (5, 1)):
        bundle = import_model(
            FAMILIES[f"RandomForestClassifier, pure, {classes} classes"](), tmp_path / "m.bundle"
        )
        assert len(bundle.forest.table) == classes
        assert min(1, bundle.forest.codes.size) == codes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_either_type_score_as_at_the_source(dtype: str, tmp_path: Path) -> None:
    x, y = training_data(missing=True, dtype="float64")
    rows = x.astype(dtype)
    for model in (
        lightgbm.LGBMClassifier(n_estimators=20, verbosity=-1).fit(x, y),
        HistGradientBoostingClassifier(max_iter=20).fit(x, y),
        RandomForestClassifier(20).fit(x, y),
    ):
        forest = Forest(import_model(model, tmp_path / "m.bundle"))
        expected = model.predict_proba(rows)[:, -forest.predict(rows).shape[1] :]
        assert close(forest.predict(rows), expected, forest.bundle.meta.link).all()


def test_thresholds_that_float32_cannot_tell_apart_still_decide(tmp_path: Path) -> None:
    # Times in microseconds: neighbours are the same number in float32.
    times = 1.7e15 + np.arange(4000.0).reshape(-1, 1)
    x = np.concatenate([times, times[::-1] / 7], axis=1)
    y = np.arange(4000) // 3 % 2
    for model in (
        lightgbm.LGBMClassifier(n_estimators=30, verbosity=-1, min_child_samples=1).fit(x, y),
        HistGradientBoostingClassifier(max_iter=30, min_samples_leaf=1).fit(x, y),
    ):
        source = take_apart(model)
        bundle = import_model(model, tmp_path / "m.bundle")
        assert (bundle.rules & CODED).all()
        rows = np.concatenate([x, strict_rows(source)[:, :2]])
        assert Forest(bundle).raw(rows).tobytes() == source.raw(rows).tobytes()
        with np.errstate(over="ignore"):
            narrow = rows.astype(np.float32)
        assert Forest(bundle).raw(narrow).tobytes() == source.raw(narrow.astype(np.float64)).tobytes()


def test_labels_of_any_kind_weights_and_missing_values_go_together(tmp_path: Path) -> None:
    x, y = training_data(missing=True)
    weights = np.random.default_rng(2).random(len(y))
    for labels in (np.array(["ok", "fraud"])[y], y.astype(bool), y * 10 - 5):
        model = RandomForestClassifier(9, class_weight="balanced", random_state=0).fit(x, labels, weights)
        bundle = import_model(model, tmp_path / "m.bundle")
        assert bundle.meta.outputs == tuple(map(str, model.classes_))
        rows = rows_for(model)
        assert Forest(bundle).predict(rows).tobytes() == sklearn_scores(model, rows).tobytes()


def test_lightgbms_own_estimators_are_carried_with_their_labels(tmp_path: Path) -> None:
    x, y = training_data(missing=True)
    labels = np.array(["fraud", "ok"])[y]
    model = lightgbm.LGBMClassifier(n_estimators=30, verbosity=-1, monotone_constraints=[1, 0, 0, 0, 0, -1])
    bundle = import_model(model.fit(x, labels), tmp_path / "m.bundle")
    assert bundle.meta.outputs == ("ok",)
    rows = rows_for(model)
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
    rows = rows_for(booster)
    assert Forest(bundle).raw(rows).tobytes() == booster.predict(rows, raw_score=True).tobytes()


def test_a_batch_scores_each_row_as_if_it_were_alone(forest_model: Any, bundle: Any) -> None:
    forest = Forest(bundle)
    rows = rows_for(forest_model)[:200]
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


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    leaves=st.integers(2, 60),
    rounds=st.integers(1, 30),
    scale=st.sampled_from([1e-30, 1.0, 1e9, 1e300]),
    categories=st.booleans(),
)
def test_any_booster_scores_to_the_bit(
    seed: int, leaves: int, rounds: int, scale: float, categories: bool, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((300, 4)) * scale
    if categories:
        x[:, 1] = random.integers(0, 300, 300)
    params = {"verbosity": -1, "num_leaves": leaves, "min_data_in_leaf": 2, "seed": seed % 1000}
    data = lightgbm.Dataset(x, random.standard_normal(300), categorical_feature=[1] if categories else "auto")
    booster = lightgbm.train({"objective": "regression", **params}, data, rounds)
    rows = rows_for(booster)
    bundle = import_model(booster, tmp_path / "m.bundle")
    assert Forest(bundle).raw(rows).tobytes() == booster.predict(rows, raw_score=True).tobytes()


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
    wrongs: list[Any] = [rows[:, :5], np.zeros((3, 6), np.int64), rows[0], np.asfortranarray(rows)]
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
