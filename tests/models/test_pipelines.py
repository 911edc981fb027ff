"""Pipelines of scikit-learn: imported in one call, with the same features and scores, or refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier

from models.errors import ImportRefusedError, InputError
from models.forest import Forest
from models.importers.pipelines import ImportedPipeline, import_pipeline
from models.importers.pipelines.pipeline import carry
from models.spec import load_spec

NUMBERS, WORDS = ["a", "b", "c"], ["s", "t"]


@pytest.fixture(scope="module", autouse=True)
def few_rows() -> Iterator[None]:
    """Compare fewer rows in the import itself: the tests have many transformers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.importers.pipelines.pipeline.CHECKED_ROWS", 100)
        yield


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, Any]:
    random = np.random.default_rng(0)
    n = 400
    data = pd.DataFrame(
        {
            "a": random.lognormal(2, 2, n),
            "b": random.normal(50, 20, n),
            "c": random.integers(0, 6, n).astype(float),
            "s": random.choice(["x", "y", "z", "rare"], n, p=[0.5, 0.3, 0.19, 0.01]),
            "t": random.choice(["é", "", "Z z", "nan"], n),
            "unused": random.choice(["p", "q"], n),
        }
    )
    y = (data["a"] > 8).to_numpy() ^ (data["s"] == "x").to_numpy()
    return data, y


def with_holes(data: pd.DataFrame, columns: list[str], gone: Any = np.nan) -> pd.DataFrame:
    data = data.astype(dict.fromkeys(set(columns) & {*WORDS, "unused"}, object))
    random = np.random.default_rng(1)
    for column in columns:
        data.loc[random.random(len(data)) < 0.1, column] = gone
    return data


def forest() -> RandomForestClassifier:
    return RandomForestClassifier(8, random_state=0)


#: What is fitted on the numbers of the table, whole or with missing values.
ON_NUMBERS: dict[str, tuple[Any, bool]] = {
    "standard": (StandardScaler(), True),
    "standard without mean": (StandardScaler(with_mean=False), True),
    "standard without anything": (StandardScaler(with_mean=False, with_std=False), True),
    "min max": (MinMaxScaler((-1, 2)), True),
    "min max clipped": (MinMaxScaler(clip=True), True),
    "max abs": (MaxAbsScaler(), True),
    "robust": (RobustScaler(), True),
    "robust without scaling": (RobustScaler(with_scaling=False), True),
    "mean": (SimpleImputer(), True),
    "median with an indicator": (SimpleImputer(strategy="median", add_indicator=True), True),
    "constant": (SimpleImputer(strategy="constant", fill_value=-1), True),
    "most frequent of another marker": (SimpleImputer(missing_values=3.0, strategy="most_frequent"), False),
    "indicator": (MissingIndicator(features="all"), True),
    "bins": (KBinsDiscretizer(4, encode="ordinal", quantile_method="linear"), False),
    "bins one-hot": (KBinsDiscretizer(4, quantile_method="linear"), False),
    "bins dense": (KBinsDiscretizer(3, encode="onehot-dense", strategy="uniform"), False),
    "polynomial": (PolynomialFeatures(3), False),
    "interactions": (PolynomialFeatures(2, interaction_only=True, include_bias=False), False),
    "a range of degrees": (PolynomialFeatures((2, 3)), False),
    "binarizer": (Binarizer(threshold=3.5), False),
    "select": (SelectKBest(k=2), False),
    "union": (FeatureUnion([("s", StandardScaler()), ("m", MinMaxScaler())]), True),
    "one-hot numbers": (OneHotEncoder(handle_unknown="ignore"), True),
    "ordinal numbers": (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), True),
    "target numbers": (TargetEncoder(random_state=0), True),
    "log1p": (FunctionTransformer(np.log1p), True),
    "identity": (FunctionTransformer(), True),
    "nested": (
        make_pipeline(
            SimpleImputer(),
            FunctionTransformer(np.abs),
            FunctionTransformer(np.log1p),
            StandardScaler(),
            KBinsDiscretizer(3, quantile_method="linear"),
            MaxAbsScaler(),
        ),
        True,
    ),
    "functions": (
        make_pipeline(
            MinMaxScaler((1, 3)),
            FeatureUnion(
                [
                    (function.__name__, FunctionTransformer(function))
                    for function in (
                        np.sqrt, np.square, np.abs, np.exp, np.expm1, np.sin, np.cos, np.tanh, np.cbrt,
                        np.sign, np.floor, np.ceil, np.rint, np.negative, np.arcsinh, np.log, np.log2,
                        np.log10, np.fabs,
                    )
                ]
            ),
        ),
        True,
    ),
}  # fmt: skip
#: What is fitted on the texts of the table, whole or with missing values.
ON_TEXTS: dict[str, tuple[Any, bool]] = {
    "one-hot": (OneHotEncoder(handle_unknown="ignore"), False),
    "one-hot of missing": (OneHotEncoder(handle_unknown="ignore", sparse_output=False), True),
    "one-hot strict": (OneHotEncoder(), True),
    "one-hot without the first": (OneHotEncoder(drop="first", handle_unknown="ignore"), True),
    "one-hot without what is binary": (OneHotEncoder(drop="if_binary"), False),
    "one-hot of the frequent": (
        OneHotEncoder(min_frequency=0.05, handle_unknown="infrequent_if_exist"), True,
    ),
    "one-hot of three": (OneHotEncoder(max_categories=3, handle_unknown="ignore", drop="first"), False),
    "ordinal": (OrdinalEncoder(), True),
    "ordinal with an own unknown": (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=-5),
        True,
    ),
    "ordinal of the frequent": (
        OrdinalEncoder(min_frequency=0.05, handle_unknown="use_encoded_value", unknown_value=99),
        True,
    ),
    "target": (TargetEncoder(random_state=0), True),
    "filled": (
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")), True,
    ),
    "filled with a word": (
        make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OrdinalEncoder()), True,
    ),
    "filled for a marker": (
        make_pipeline(
            SimpleImputer(missing_values="", strategy="most_frequent", add_indicator=False),
            OneHotEncoder(handle_unknown="ignore"),
        ),
        False,
    ),
    "scaled afterwards": (
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), StandardScaler(with_mean=False)), False,
    ),
    "some of them": (make_pipeline(OneHotEncoder(handle_unknown="ignore"), SelectKBest(k=3)), False),
}  # fmt: skip


def imported(pipeline: Any, directory: Path, **more: Any) -> ImportedPipeline:
    return import_pipeline(pipeline, directory / "model.bundle", directory / "spec.json", **more)


def records(data: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as callers send them: null for what is missing."""
    found: list[dict[str, Any]] = data.astype(object).where(data.notna(), None).to_dict("records")
    return found


def transformed(pipeline: Any, data: pd.DataFrame) -> Any:
    found = pipeline[:-1].transform(data)
    return np.asarray(found.toarray() if hasattr(found, "toarray") else found, np.float64).astype(np.float32)


@pytest.mark.parametrize("name", [*ON_NUMBERS, *ON_TEXTS])
def test_a_transformer_computes_what_scikit_learn_computes(name: str, table: Any) -> None:
    data, y = table
    transformer, holes = {**ON_NUMBERS, **ON_TEXTS}[name]
    columns = NUMBERS if name in ON_NUMBERS else WORDS
    data = with_holes(data, columns) if holes else data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A model that refuses NaN would hide what comes out of the transformer.
        pipeline = make_pipeline(transformer, HistGradientBoostingClassifier(max_iter=3)).fit(
            *dense(transformer, data[columns], y)
        )
        found = carry(pipeline)
        expected = transformed(pipeline, data[columns])
    # On the training data, beside the random and hostile rows of the import itself.
    ours = found.spec.matrix(records(data[columns]))
    ulps = 1 if name in {"log1p", "functions", "nested"} else 0
    assert found.checked.worst_ulps <= ulps
    assert np.allclose(ours, expected, rtol=ulps * 2.0**-23, atol=0, equal_nan=True)
    assert found.checked.asked >= 100
    assert found.spec.check_golden() > 0


def dense(transformer: Any, data: pd.DataFrame, y: Any) -> tuple[Any, Any]:
    """HistGradientBoosting takes no sparse rows: whatever can is asked for dense ones."""
    for part in [transformer, *(step for _, step in getattr(transformer, "steps", []))]:
        if "sparse_output" in getattr(part, "get_params", dict)():
            part.set_params(sparse_output=False)
        if isinstance(part, KBinsDiscretizer) and part.encode == "onehot":
            part.set_params(encode="onehot-dense")
    return data, y


def whole_pipeline(model: Any, *, output: str = "default", sparse: float = 0.3) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    words = OneHotEncoder(handle_unknown="ignore", sparse_output=output == "default")
    transformer = ColumnTransformer(
        [
            ("numbers", numbers, make_column_selector(dtype_include=float)),
            ("words", words, ["s"]),
            (
                "t",
                OrdinalEncoder(
                    handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
                ),
                ["t"],
            ),
            ("away", "drop", ["unused"]),
            ("as it is", "passthrough", ["c"]),
        ],
        sparse_threshold=sparse,
    )
    if output != "default":
        transformer.set_output(transform=output)
    return Pipeline([("features", transformer), ("model", model)])


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_a_whole_pipeline_scores_as_scikit_learn_does(output: str, table: Any, tmp_path: Path) -> None:
    data, y = table
    data = with_holes(data, ["a", "b", "s", "t"])
    pipeline = whole_pipeline(forest(), output=output, sparse=1.0).fit(data, y)
    found = imported(pipeline, tmp_path, name="fraud", id_field="id", sample=records(data)[:20])
    assert found.spec.name == "fraud"
    assert list(found.spec.feature_names)[:2] == ["numbers__a", "numbers__b"]
    assert found.bundle.meta.feature_names == found.spec.feature_names
    assert found.rounded == 0
    scores = Forest(found.bundle).predict(found.spec.matrix(records(data)))
    assert np.array_equal(scores, pipeline.predict_proba(data))
    # Real transactions come first among the golden ones.
    first = {name: value for name, value in records(data)[0].items() if name != "unused"}
    assert found.spec.recipe.golden[0].transaction == first
    assert load_spec(found.spec_path).digest == found.spec.digest


@pytest.mark.parametrize("sparse", [0.0, 1.0], ids=["dense", "sparse"])
def test_other_libraries_models_at_the_end_of_a_pipeline(sparse: float, table: Any, tmp_path: Path) -> None:
    import lightgbm
    import xgboost

    data, y = table
    for model in (
        lightgbm.LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1),
        xgboost.XGBClassifier(n_estimators=5, n_jobs=1),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = whole_pipeline(model, sparse=sparse).fit(data, y)
            found = imported(pipeline, tmp_path)
            expected = pipeline.predict_proba(data)
        scores = Forest(found.bundle).predict(found.spec.matrix(records(data)))
        # These compare float64, or float32 that were rounded before: features are float32 here.
        differ = ~np.isclose(scores, expected[:, -scores.shape[1] :], rtol=1e-6).all(axis=1)
        assert differ.mean() < 0.01
        assert found.rounded < 0.02 * found.rows


@pytest.mark.parametrize(
    "model",
    [
        RandomForestRegressor(3, random_state=0),
        DecisionTreeClassifier(random_state=0),
        ExtraTreesClassifier(3, random_state=0),
        GradientBoostingClassifier(n_estimators=3),
        IsolationForest(n_estimators=3, random_state=0),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.parametrize("sparse", [0.0, 1.0], ids=["dense", "sparse"])
def test_missing_numbers_are_scored_or_refused_as_scikit_learn_does(
    model: Any, sparse: float, table: Any, tmp_path: Path
) -> None:
    """Whether NaN is taken hangs on the matrix that reaches the model: of sparse ones few take it."""
    data, y = table
    transformer = ColumnTransformer(
        [("words", OneHotEncoder(), ["s"]), ("numbers", "passthrough", ["a", "b"])], sparse_threshold=sparse
    )
    pipeline = make_pipeline(transformer, model).fit(data, y)
    found = imported(pipeline, tmp_path)
    forest, asked = Forest(found.bundle), with_holes(data, ["a", "b"])[:60]
    answer = getattr(pipeline, "predict_proba", getattr(pipeline, "score_samples", pipeline.predict))
    refusals = 0
    for place, row in enumerate(records(asked)):
        vector = found.spec.matrix([row])
        try:
            expected = np.reshape(answer(asked[place : place + 1]), (1, -1))
        except ValueError:
            refusals += 1
            with pytest.raises(InputError) as caught:
                forest.predict(vector)
            assert caught.value.rule == "not_a_number"
            assert row[caught.value.field.removeprefix("numbers__")] is None
        else:
            assert np.array_equal(forest.predict(vector), expected)
    takes = type(model) is IsolationForest or (not sparse and type(model) is not GradientBoostingClassifier)
    assert (refusals == 0) is takes


def test_arrays_without_names_remainders_and_a_pipeline_without_transformers(
    table: Any, tmp_path: Path
) -> None:
    data, y = table
    x = data[NUMBERS].to_numpy()
    transformer = ColumnTransformer([("s", StandardScaler(), [1])], remainder="passthrough")
    pipeline = make_pipeline(transformer, forest()).fit(x, y)
    found = imported(pipeline, tmp_path)
    rows = [dict(zip(("x0", "x1", "x2"), row, strict=True)) for row in x.tolist()]
    assert np.array_equal(found.spec.matrix(rows), transformed(pipeline, x))
    rest = ColumnTransformer([("s", "passthrough", ["a"])], remainder=MinMaxScaler())
    pipeline = make_pipeline(rest, forest()).fit(data[NUMBERS], y)
    found = imported(pipeline, tmp_path)
    assert np.array_equal(found.spec.matrix(records(data[NUMBERS])), transformed(pipeline, data[NUMBERS]))
    alone = make_pipeline(RandomForestRegressor(3)).fit(data[NUMBERS], y)
    found = imported(alone, tmp_path)
    assert found.spec.feature_names == tuple(NUMBERS)


def test_flags_and_none_are_carried(table: Any, tmp_path: Path) -> None:
    data, y = table
    data = pd.DataFrame({"f": data["b"] > 50, "s": with_holes(data, ["s"], None)["s"]})
    data["s"] = data["s"].where(data["s"].notna(), None)
    pipeline = make_pipeline(OneHotEncoder(sparse_output=False), forest()).fit(data, y)
    assert None in pipeline[0].categories_[1]
    found = imported(pipeline, tmp_path)
    assert found.spec.recipe.fields["f"].type == "flag"
    assert np.array_equal(found.spec.matrix(records(data)), transformed(pipeline, data))


class Mine(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, x: Any, _y: Any = None) -> Mine:
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, x: Any) -> Any:
        return x


def test_what_cannot_be_carried_is_refused_by_name(table: Any, tmp_path: Path) -> None:
    data, y = table
    numbers = data[NUMBERS]

    def refused(transformer: Any, why: str, frame: pd.DataFrame = numbers) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = make_pipeline(transformer, forest()).fit(frame, y)
        with pytest.raises(ImportRefusedError, match=why):
            imported(pipeline, tmp_path)
        assert not (tmp_path / "spec.json").exists()

    refused(PowerTransformer(), "PowerTransformer is not carried")
    refused(Mine(), "Mine of .* is not carried: it is code")
    refused(FunctionTransformer(lambda x: x + 1), "FunctionTransformer of .*lambda")
    refused(FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": 1}), "numpy.clip")
    refused(KBinsDiscretizer(3, dtype=np.float32, quantile_method="linear"), "float32")
    weighted = ColumnTransformer([("s", StandardScaler(), NUMBERS)], transformer_weights={"s": 2})
    refused(weighted, "transformer_weights")
    mixed = ColumnTransformer([("o", OneHotEncoder(), ["c"]), ("s", StandardScaler(), ["c"])])
    pipeline = make_pipeline(mixed, forest()).fit(numbers, y)
    assert imported(pipeline, tmp_path).spec.n_features == 7
    (tmp_path / "spec.json").unlink()
    with pytest.raises(ImportRefusedError, match="not fitted"):
        imported(make_pipeline(StandardScaler(), forest()), tmp_path)
    with pytest.raises(ImportRefusedError, match="no Pipeline"):
        imported(StandardScaler(), tmp_path)


def test_a_spec_that_computes_otherwise_is_never_written(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, y = table
    pipeline = make_pipeline(StandardScaler(), forest()).fit(data[NUMBERS], y)
    own = StandardScaler.transform
    monkeypatch.setattr(
        StandardScaler, "transform", lambda self, x, **more: own(self, x, **more) * (1 + 1e-6)
    )
    with pytest.raises(ImportRefusedError, match=r"feature '.' is .* here, and .* by scikit-learn"):
        imported(pipeline, tmp_path)
    assert not list(tmp_path.iterdir())
