"""What cannot be carried exactly is refused by name, and leaves no file behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from sklearn import ensemble, linear_model

from models.errors import ImportRefusedError
from models.importers import import_model
from tests.models.families import FAMILIES, XM, X, Y, train_xgboost

COMMON = {"verbosity": -1, "num_leaves": 4}


def two_missing_types() -> Any:
    first = lightgbm.train({"objective": "binary", **COMMON}, lightgbm.Dataset(XM, Y), 3)
    return lightgbm.train({"objective": "binary", **COMMON}, lightgbm.Dataset(X, Y), 9, init_model=first)


def text_categories() -> Any:
    rows = np.column_stack([np.array(["a", "b", "c"], object)[Y], X[:, 0].astype(object)])
    return ensemble.HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]).fit(rows, Y)


def changed_onnx(change: Callable[[Any], None]) -> Any:
    model = onnx.ModelProto()
    model.CopyFrom(FAMILIES["ONNX, a tree"]())
    change(model.graph)
    return model


def set_attribute(name: str, value: Any) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        found = [attribute for attribute in graph.node[0].attribute if attribute.name == name]
        for attribute in found:
            graph.node[0].attribute.remove(attribute)
        graph.node[0].attribute.append(onnx.helper.make_attribute(name, value))

    return change


def set_first_mode(graph: Any) -> None:
    modes = next(a for a in graph.node[0].attribute if a.name == "nodes_modes")
    modes.strings[0] = b"BRANCH_MOON"


def compare_both_ways(graph: Any) -> None:
    modes = next(a for a in graph.node[0].attribute if a.name == "nodes_modes")
    modes.strings[0] = b"BRANCH_EQ"


def add_scaler(graph: Any) -> None:
    graph.node[0].input[0] = "scaled"
    graph.node.insert(0, onnx.helper.make_node("Identity", ["X"], ["scaled"]))


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no model": (object, "object"),
    "another estimator": (lambda: linear_model.LogisticRegression().fit(X, Y), "LogisticRegression"),
    "not fitted": (lambda: ensemble.RandomForestClassifier(2), "not fitted"),
    "several outputs": (
        lambda: ensemble.RandomForestClassifier(2).fit(X, np.column_stack([Y, Y])),
        "n_outputs_",
    ),
    "its own first guess": (
        lambda: ensemble.GradientBoostingClassifier(
            n_estimators=2, init=linear_model.LogisticRegression()
        ).fit(X, Y),
        r"LogisticRegression \(init\)",
    ),
    "categories of text": (text_categories, "categories that are no numbers"),
    "linear trees": (
        lambda: lightgbm.train({"verbosity": -1, "linear_tree": True}, lightgbm.Dataset(X, Y), 2),
        "linear_tree",
    ),
    "two missing types": (two_missing_types, "missing_type"),
    "LightGBM's custom objective": (
        lambda: lightgbm.LGBMRegressor(
            n_estimators=2, objective=lambda t, p: (p - t, np.ones_like(p)), **COMMON
        ).fit(X, Y),
        "custom objective",
    ),
    "LightGBM not fitted": (lightgbm.LGBMClassifier, "LGBMClassifier"),
    "a linear booster": (lambda: train_xgboost({"booster": "gblinear"}, Y), "gblinear"),
    "trees of vectors": (
        lambda: train_xgboost(
            {"multi_strategy": "multi_output_tree", "objective": "multi:softprob", "num_class": 2}, Y
        ),
        "multi_strategy",
    ),
    "XGBoost not fitted": (xgboost.XGBClassifier, "not fitted"),
    "an unknown mode": (lambda: changed_onnx(set_first_mode), "BRANCH_MOON"),
    "a feature compared both ways": (lambda: changed_onnx(compare_both_ways), "by order and for equality"),
    "another aggregate": (
        lambda: changed_onnx(set_attribute("aggregate_function", "MAX")),
        "aggregate_function 'MAX'",
    ),
    "another transform": (
        lambda: changed_onnx(set_attribute("post_transform", "PROBIT")),
        "post_transform 'PROBIT'",
    ),
    "an operation before the trees": (lambda: changed_onnx(add_scaler), "before the trees"),
    "no trees": (lambda: changed_onnx(lambda graph: graph.node.pop()), "0 tree ensembles"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore")  # what the libraries think of such models
def test_what_cannot_be_carried_is_refused_by_name(name: str, tmp_path: Path) -> None:
    train, reason = REFUSED[name]
    with pytest.raises(ImportRefusedError, match=reason):
        import_model(train(), tmp_path / "m.bundle")
    assert not list(tmp_path.iterdir())


def test_feature_names_that_do_not_fit_are_refused(forest_model: Any, tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError, match="5 feature names"):
        import_model(forest_model, tmp_path / "m.bundle", feature_names=list("abcde"))
