"""Features in the running system: what was computed in training is what is served, and drift is seen."""

from __future__ import annotations

import csv
import gzip
import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.model_selection import KFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from examples.card_payments import PAYMENT_SPEC, simulate, stream
from governance.database import connect
from governance.drift import StageDrift, drift_of
from models.importers import import_model
from models.importers.pipelines import import_pipeline
from models.spec import load_spec
from tests.acceptance.conftest import wait_until
from transport.client import Answer, Client, TransactionRefusedError

SHARED = Path(os.environ.get("SCOREWIRE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SERVED = 4_000


def rows_of(name: str) -> list[dict[str, str]]:
    file = SHARED / f"{name}.csv.gz"
    if not file.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{file} is missing: in CI the real data must be there")
        pytest.skip(f"the real data is not at {file}: set SCOREWIRE_TEST_DATA to the folder that holds it")
    with gzip.open(file, "rt", newline="") as lines:
        return list(csv.DictReader(lines))


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(20, random_state=0)


def income() -> tuple[list[dict[str, Any]], Any, Pipeline]:
    """Census data: texts with missing values, numbers; imputed, one-hot, target-encoded, scaled, binned."""
    rows = rows_of("income")
    numeric = [name for name, value in rows[0].items() if value.lstrip("-").isdigit()]
    target = next(name for name in rows[0] if name.startswith("income"))
    labels = np.array([row.pop(target) in {"1", ">50K"} for row in rows])
    transactions: list[dict[str, Any]] = [
        {name: (float(value) if name in numeric else value) if value else None for name, value in row.items()}
        for row in rows
    ]
    words = [name for name in transactions[0] if name not in numeric]
    numbers = [name for name in numeric if name in transactions[0]]
    filled = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    coded = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    features = ColumnTransformer(
        [
            ("scaled", StandardScaler(), numbers[:2]),
            ("binned", KBinsDiscretizer(8, encode="onehot", strategy="uniform"), numbers[:1]),
            ("logged", FunctionTransformer(np.log1p, feature_names_out="one-to-one"), numbers[2:]),
            ("filled", filled, words[:3]),
            ("coded", coded, words[3:5]),
            ("targeted", TargetEncoder(cv=KFold(3)), words[5:]),
        ]
    )
    return (
        transactions,
        labels,
        Pipeline([("features", features), ("model", RandomForestClassifier(20, random_state=0))]),
    )


def credit() -> tuple[list[dict[str, Any]], Any, Pipeline]:
    """Credit card clients: numbers; scaled in pandas' frames, and some as they are."""
    rows = rows_of("credit_default")
    labels = np.array([int(row.pop("default")) for row in rows])
    transactions: list[dict[str, Any]] = [{name: float(value) for name, value in row.items()} for row in rows]
    names = list(transactions[0])
    features = ColumnTransformer(
        [("scaled", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), names[:8])],
        remainder="passthrough",
    ).set_output(transform="pandas")
    return (
        transactions,
        labels,
        Pipeline([("features", features), ("model", RandomForestClassifier(20, random_state=0))]),
    )


@pytest.mark.parametrize("data", [income, credit])
def test_scores_that_are_served_are_those_of_the_pipeline(data: Any, system: Any, directory: Path) -> None:
    # Given a pipeline that was fitted on real data, and imported in one call
    transactions, labels, pipeline = data()
    table = pd.DataFrame(transactions)
    pipeline.fit(table, labels)
    name = data.__name__
    files = directory / f"{name}.bundle", directory / f"{name}.json"
    found = import_pipeline(pipeline, *files, name=name, sample=transactions[:200])
    assert found.rounded == 0
    # Then training and serving compute the same features, to the bit, of all rows
    expected = pipeline[:-1].transform(table)
    expected = np.asarray(expected.toarray() if hasattr(expected, "toarray") else expected).astype(np.float32)
    ulps = np.abs(found.spec.matrix(transactions) - expected) > np.spacing(np.abs(expected))
    assert not ulps.any()
    # And when it is promoted, then each score that is served is the pipeline's own
    features = system.register(files[1], "feature_spec", f"{name}-features")
    model = system.register(files[0], "bundle", name)
    assert system.promote(features=features, model=model).state == "active"
    some = transactions[-SERVED:]
    with Client(system.addresses(), deadline=30.0) as client:
        answers = [one for one in client.score_many(some, window=256) if isinstance(one, Answer)]
    got = np.array([list(answer.scores.values()) for answer in answers])
    assert np.array_equal(got, pipeline.predict_proba(table.iloc[-SERVED:]))


def test_a_missing_number_is_refused_alone_where_scikit_learn_refuses_it(
    system: Any, directory: Path
) -> None:
    # Given a pipeline whose forest gets a sparse matrix, in which scikit-learn takes no NaN
    random = np.random.default_rng(0)
    table = pd.DataFrame({"word": random.choice(["x", "y", "z"], 300), "amount": random.normal(size=300)})
    features = ColumnTransformer(
        [("word", OneHotEncoder(), ["word"]), ("amount", "passthrough", ["amount"])], sparse_threshold=1.0
    )
    pipeline = Pipeline([("features", features), ("model", forest())]).fit(table, table["amount"] > 0)
    files = directory / "sparse.bundle", directory / "sparse.json"
    import_pipeline(pipeline, *files)
    stages = {
        "features": system.register(files[1], "feature_spec", "sparse-features"),
        "model": system.register(files[0], "bundle", "sparse"),
    }
    assert system.promote(**stages).state == "active"
    # When some of many transactions lack the number
    table.loc[::7, "amount"] = np.nan
    transactions = table.astype(object).where(table.notna(), None).to_dict("records")
    with Client(system.addresses(), deadline=30.0) as client:
        results = list(client.score_many(transactions, window=64))
    # Then these are refused by feature and rule, as there, and the others have their scores
    for place, result in enumerate(results):
        row = table.iloc[place : place + 1]
        if place % 7:
            assert isinstance(result, Answer)
            assert list(result.scores.values()) == pipeline.predict_proba(row)[0].tolist()
            continue
        assert isinstance(result, TransactionRefusedError)
        assert (result.field, result.rule) == ("amount__amount", "not_a_number")
        with pytest.raises(ValueError, match="contains NaN"):
            pipeline.predict_proba(row)


def drifted(system: Any) -> StageDrift:
    with connect(system.settings.dsn) as connection:
        (found,) = drift_of(connection, system.settings.environment)
    return found


@pytest.fixture
def payments() -> Iterator[Any]:
    return iter(stream(seed=11))


def test_the_simulators_stream_is_served_as_trained_and_its_drift_is_counted(
    system: Any, directory: Path, payments: Any
) -> None:
    # Given a model of simulated payments, whose spec has the profile of its training data
    trained, labels = simulate(n=3_000, seed=3)
    file = directory / "payments.json"
    file.write_bytes(load_spec(PAYMENT_SPEC).profiled(trained))
    spec = load_spec(file)
    model_ = RandomForestClassifier(10, random_state=0).fit(spec.matrix(trained), labels)
    bundle = import_model(model_, directory / "payments.bundle", feature_names=spec.feature_names)
    features = system.register(file, "feature_spec", "payments-features")
    model = system.register(bundle.path, "bundle", "payments")
    assert system.promote(features=features, model=model).state == "active"
    # When payments come, of which amounts are a hundred times larger, and some are none
    some = list(islice(payments, 2_000))
    for one in some:
        one["amount"] = one["amount"] * 100
    with Client(system.addresses(), deadline=30.0) as client:
        answers = [one for one in client.score_many(some, window=128) if isinstance(one, Answer)]
        with pytest.raises(TransactionRefusedError):
            client.score({**some[0], "amount": -1})
    # Then they are scored by the features of training
    got = np.array([list(answer.scores.values()) for answer in answers])
    assert np.array_equal(got, model_.predict_proba(spec.matrix(some)))
    # And what moved is seen, by both preprocessors together
    # (A transaction that was asked of both is counted by both.)
    found = wait_until(
        lambda: one if (one := drifted(system)).seen >= 2_000 and one.refused else None, "told"
    )
    assert found.trained_rows == 3_000
    assert found.counted >= 2_000 / 4 - 2  # every fourth, of each of the two
    assert found.refused == {"amount: range": 1}
    assert found.fields["amount"].psi > 1
    assert found.fields["amount"].outside > 0.1
    assert found.fields["channel"].psi < 0.2
    assert found.fields["channel"].unseen == 0
    # And the command shows it
    from typer.testing import CliRunner

    import run

    shown = CliRunner().invoke(run.app, ["drift", "--config", str(system.file), "--json"])
    assert shown.exit_code == 0, shown.output
    (stage,) = json.loads(shown.stdout)["stages"]
    assert stage["fields"]["amount"]["psi"] > 1
    shown = CliRunner().invoke(run.app, ["drift", "--config", str(system.file)])
    assert "refused 1 times by amount: range" in shown.stdout
