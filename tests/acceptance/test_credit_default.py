"""On real input: every score that comes out of the running system is its source library's."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from models.importers import import_model
from models.spec import FeatureSpec, load_spec
from transport.client import Answer, Client

SHARED = Path(os.environ.get("SCOREWIRE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
FILE = SHARED / "credit_default.csv.gz"
TARGET = "default"


@pytest.fixture(scope="module")
def rows() -> tuple[list[dict[str, float]], NDArray[np.int64]]:
    if not FILE.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{FILE} is missing: in CI the real data must be there")
        pytest.skip(f"the real data is not at {FILE}: set SCOREWIRE_TEST_DATA to the folder that holds it")
    with gzip.open(FILE, "rt", newline="") as lines:
        records = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
    labels = np.array([int(record.pop(TARGET)) for record in records])
    return records, labels


@pytest.fixture(scope="module")
def spec_file(rows: Any, directory: Path) -> Path:
    names = list(rows[0][0])
    fields = {name: {"type": "number"} for name in names}
    features = [{"name": name, "field": name, "kind": "numeric"} for name in names]
    file = directory / "credit.json"
    file.write_text(json.dumps({"name": "credit", "version": 1, "fields": fields, "features": features}))
    return file


def scored(system: Any, transactions: list[dict[str, float]]) -> list[Answer]:
    with Client(system.addresses(), deadline=30.0) as client:
        results = list(client.score_many(transactions, window=256))
    failed = [result for result in results if not isinstance(result, Answer)]
    assert not failed, failed[:3]
    return [result for result in results if isinstance(result, Answer)]


def test_all_24000_rows_of_both_libraries_come_back_with_their_own_scores(
    system: Any,
    rows: tuple[list[dict[str, float]], NDArray[np.int64]],
    spec_file: Path,
    directory: Path,
) -> None:
    transactions, labels = rows
    assert len(transactions) == 24_000
    spec: FeatureSpec = load_spec(spec_file)
    x = spec.matrix(transactions)
    names = list(spec.feature_names)
    features = system.register(spec_file, "feature_spec", "credit")

    # Given a scikit-learn forest, promoted
    forest = RandomForestClassifier(60, random_state=3, n_jobs=-1).fit(x[:12_000], labels[:12_000])
    forest.set_params(n_jobs=1)
    bundle = import_model(forest, directory / "forest.bundle", feature_names=names)
    model = system.register(bundle.path, "bundle", "forest")
    assert system.promote(features=features, model=model).state == "active"
    # Then every score is its own, to the bit, for both classes
    answers = scored(system, transactions)
    got = np.array([list(answer.scores.values()) for answer in answers])
    assert np.array_equal(got, forest.predict_proba(x))
    assert {answer.trace.pipeline["model"] for answer in answers} == {model}

    # Given a LightGBM model, promoted in its place
    booster = lightgbm.train(
        {"objective": "binary", "verbosity": -1, "num_leaves": 63, "seed": 3},
        lightgbm.Dataset(x[:12_000], labels[:12_000], feature_name=names),
        num_boost_round=120,
    )
    bundle = import_model(booster, directory / "booster.bundle", feature_names=names)
    model = system.register(bundle.path, "bundle", "booster")
    assert system.promote(model=model).state == "active"
    # Then every score is its own within one unit in the last place
    answers = scored(system, transactions)
    got = np.array([answer.score for answer in answers])
    expected = booster.predict(x)
    assert np.all(np.abs(got - expected) <= np.spacing(expected))
    assert {answer.trace.pipeline["model"] for answer in answers} == {model}
    # And both preprocessors and both scorers had their share
    assert len({answer.trace.nodes["preprocessor"] for answer in answers}) == 2
    assert len({answer.trace.nodes["scorer"] for answer in answers}) == 2
