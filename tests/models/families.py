"""One small model of every family that is carried, by name: tests/models/test_exact.py trains each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightgbm
import numpy as np
import xgboost
from sklearn import ensemble, tree

from tests.models.conftest import BOOSTERS, CATEGORICAL, train_booster, training_data

Train = Callable[[], Any]

X, Y = training_data(missing=False)
XM, YM = training_data(missing=True)
X3, Y3 = training_data(missing=True, classes=3)
X64, _ = training_data(missing=True, dtype="float64")
WEIGHTS = np.random.default_rng(2).random(len(Y))
POSITIVE = np.abs(np.nan_to_num(XM[:, 0])) + 0.1
VALUES = np.nan_to_num(XM[:, 0]) * 3 - YM


def sklearn_families() -> dict[str, Train]:
    found: dict[str, Train] = {}
    for module, name in (
        (ensemble, "RandomForest"),
        (ensemble, "ExtraTrees"),
        (tree, "DecisionTree"),
        (tree, "ExtraTree"),
    ):
        options: dict[str, Any] = {"random_state": 0, "min_samples_leaf": 2}
        if module is ensemble:
            options["n_estimators"] = 15
        classifier, regressor = getattr(module, f"{name}Classifier"), getattr(module, f"{name}Regressor")
        balanced = classifier(class_weight="balanced", **options)
        found |= {
            f"{name}Classifier": partial(classifier(**options).fit, X, Y),
            f"{name}Classifier, missing": partial(classifier(**options).fit, XM, YM),
            f"{name}Classifier, three classes, weighted": partial(balanced.fit, X3, Y3, WEIGHTS),
            f"{name}Regressor": partial(regressor(**options).fit, X, VALUES),
            f"{name}Regressor, missing, weighted": partial(regressor(**options).fit, XM, VALUES, WEIGHTS),
        }
    # Pure leaves: with four classes or fewer, lines name them themselves.
    pure = ensemble.RandomForestClassifier(n_estimators=15, random_state=0)
    found["RandomForestClassifier, pure"] = partial(pure.fit, X, Y)
    found["RandomForestClassifier, pure, missing"] = partial(pure.fit, XM, YM)
    for classes in (4, 5):
        labels = np.floor(X[:, 0] * 2).astype(int) % classes
        found[f"RandomForestClassifier, pure, {classes} classes"] = partial(pure.fit, X, labels)
    for features in (1.0, 0.5):
        isolation = ensemble.IsolationForest(n_estimators=40, max_features=features, random_state=0)
        found[f"IsolationForest, max_features {features}"] = partial(isolation.fit, X)
    return found


def boosted_families() -> dict[str, Train]:
    def classifier(**options: Any) -> Any:
        return ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0, **options)

    found: dict[str, Train] = {
        "GradientBoostingClassifier": partial(classifier().fit, X, Y, WEIGHTS),
        "GradientBoostingClassifier, exponential": partial(classifier(loss="exponential").fit, X, Y),
        "GradientBoostingClassifier, three classes": partial(classifier().fit, np.nan_to_num(X3), Y3),
        "GradientBoostingClassifier, from zero": partial(classifier(init="zero").fit, X, Y),
    }
    for loss in ("squared_error", "absolute_error", "huber", "quantile"):
        regressor = ensemble.GradientBoostingRegressor(n_estimators=20, loss=loss, random_state=0)
        found[f"GradientBoostingRegressor, {loss}"] = partial(regressor.fit, X, VALUES)
    return found


def histogram_families() -> dict[str, Train]:
    def classifier(*categorical: int) -> Any:
        return ensemble.HistGradientBoostingClassifier(
            max_iter=20, random_state=0, categorical_features=list(categorical) or None
        )

    column = np.arange(6)
    rounded = np.where(column == 0, np.round(X64), X64)
    odd = np.where(column == CATEGORICAL, X64 * -1.5, X64)  # no whole numbers, and negative
    found: dict[str, Train] = {
        "HistGradientBoostingClassifier": partial(classifier().fit, X64, YM),
        "HistGradientBoostingClassifier, complete": partial(classifier().fit, np.nan_to_num(X64), YM),
        "HistGradientBoostingClassifier, three classes": partial(classifier().fit, X3, Y3, WEIGHTS),
        "HistGradientBoostingClassifier, categorical": partial(classifier(0, CATEGORICAL).fit, rounded, YM),
        "HistGradientBoostingClassifier, odd categories": partial(classifier(CATEGORICAL).fit, odd, YM),
    }
    for loss in ("squared_error", "absolute_error", "gamma", "poisson", "quantile"):
        regressor = ensemble.HistGradientBoostingRegressor(
            max_iter=20, loss=loss, quantile=0.4, random_state=0
        )
        found[f"HistGradientBoostingRegressor, {loss}"] = partial(regressor.fit, X64, POSITIVE)
    return found


def lightgbm_families() -> dict[str, Train]:
    found: dict[str, Train] = {}
    for name, params in BOOSTERS.items():
        for kind in ("numeric", "categorical"):
            found[f"LightGBM {name}, {kind}"] = partial(
                train_booster, params, missing=True, categorical=kind == "categorical", dtype="float64"
            )
    found["LightGBM of complete rows"] = partial(
        train_booster, BOOSTERS["binary"], missing=False, categorical=False
    )
    constrained = lightgbm.LGBMClassifier(
        n_estimators=20, verbosity=-1, n_jobs=1, monotone_constraints=[1, 0, 0, 0, 0, -1]
    )
    found["LGBMClassifier"] = partial(constrained.fit, X64, YM, WEIGHTS)
    return found


def train_xgboost(params: dict[str, Any], y: Any, *, rounds: int = 20, categorical: bool = False) -> Any:
    types = ["c" if categorical and feature == CATEGORICAL else "q" for feature in range(6)]
    data = xgboost.DMatrix(XM, y, feature_types=types, enable_categorical=True)
    return xgboost.train({"max_depth": 6, "nthread": 1, "verbosity": 0, **params}, data, rounds)


def xgboost_families() -> dict[str, Train]:
    def of(y: Any, objective: str, rounds: int = 20, categorical: bool = False, **params: Any) -> Train:
        return partial(
            train_xgboost, {"objective": objective, **params}, y, rounds=rounds, categorical=categorical
        )

    found: dict[str, Train] = {}
    for objective in ("binary:logistic", "binary:logitraw", "binary:hinge", "reg:logistic", "rank:pairwise"):
        found[f"XGBoost {objective}"] = of(YM, objective)
    for loss in ("squarederror", "squaredlogerror", "pseudohubererror", "absoluteerror", "gamma", "tweedie"):
        found[f"XGBoost reg:{loss}"] = of(POSITIVE, f"reg:{loss}")
    for objective in ("count:poisson", "survival:cox"):
        found[f"XGBoost {objective}"] = of(POSITIVE, objective)
    for objective in ("multi:softprob", "multi:softmax"):
        found[f"XGBoost {objective}"] = of(Y3, objective, num_class=3)
    parallel: dict[str, Any] = {"num_class": 3, "num_parallel_tree": 3, "subsample": 0.5}
    stopping = xgboost.XGBClassifier(n_estimators=300, n_jobs=1, early_stopping_rounds=3)
    later = {"eval_set": [(XM[1500:], YM[1500:])], "verbose": False}
    other = xgboost.XGBClassifier(n_estimators=20, n_jobs=1, missing=-999.0)
    two = np.stack([VALUES, -VALUES], axis=1)
    few = {"n_estimators": 15, "n_jobs": 1}
    return found | {
        "XGBoost, two quantiles": of(POSITIVE, "reg:quantileerror", quantile_alpha=[0.2, 0.5]),
        "XGBoost, dart": of(YM, "binary:logistic", booster="dart", rate_drop=0.3),
        "XGBoost, base score": of(YM, "binary:logistic", base_score=0.07),
        "XGBoost, exact": of(YM, "binary:logistic", tree_method="exact"),
        "XGBoost, parallel trees": of(Y3, "multi:softprob", rounds=5, **parallel),
        "XGBoost, sets": of(YM, "binary:logistic", categorical=True, max_cat_to_onehot=4),
        "XGBoost, one by one": of(YM, "binary:logistic", categorical=True, max_cat_to_onehot=100),
        "XGBClassifier": partial(xgboost.XGBClassifier(**few).fit, XM, YM, sample_weight=WEIGHTS),
        "XGBClassifier, three classes": partial(xgboost.XGBClassifier(**few).fit, X3, Y3),
        "XGBClassifier, another missing value": partial(other.fit, np.nan_to_num(XM, nan=-999.0), YM),
        "XGBClassifier, stopped early": partial(stopping.fit, XM[:1500], YM[:1500], **later),
        "XGBRegressor": partial(xgboost.XGBRegressor(**few).fit, XM, VALUES),
        "XGBRegressor, two targets": partial(xgboost.XGBRegressor(**few).fit, XM, two),
        "XGBRFClassifier": partial(xgboost.XGBRFClassifier(**few).fit, XM, YM),
    }


def convert_to_onnx(estimator: Any, y: Any, kind: str) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common import data_types

    tensor = getattr(data_types, kind)([None, 6])
    return to_onnx(estimator.fit(X, y), initial_types=[("X", tensor)])


def onnx_families() -> dict[str, Train]:
    found: dict[str, Train] = {}
    floating = "FloatTensorType"
    for kind in (floating, "DoubleTensorType"):
        forest = ensemble.RandomForestClassifier(20, random_state=0)
        values = ensemble.RandomForestRegressor(100, max_depth=6, random_state=0)
        found |= {
            f"ONNX {kind}, forest of classes": partial(convert_to_onnx, forest, Y, kind),
            f"ONNX {kind}, forest of three classes": partial(convert_to_onnx, forest, Y3, kind),
            f"ONNX {kind}, forest of 100 values": partial(convert_to_onnx, values, VALUES, kind),
        }
    single = tree.DecisionTreeRegressor(random_state=0)
    boosted = ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0)
    text = np.array(["ok", "fraud"])[Y]
    return found | {
        "ONNX, a tree": partial(convert_to_onnx, single, VALUES, floating),
        "ONNX, boosted classes": partial(convert_to_onnx, boosted, Y, floating),
        "ONNX, boosted three classes": partial(convert_to_onnx, boosted, Y3, floating),
        "ONNX, labels of text": partial(convert_to_onnx, ensemble.RandomForestClassifier(9), text, floating),
        "ONNX, every mode": partial(every_mode, "float32"),
        "ONNX, every mode in float64": partial(every_mode, "float64"),
        "ONNX, TreeEnsemble": partial(every_mode, "float32", newer=True),
    }


def every_mode(dtype: str, *, newer: bool = False) -> Any:
    """Trees with each way to compare, missing values either way, and categories compared one by one."""
    import onnx
    from onnx import TensorProto, helper

    random = np.random.default_rng(3)
    modes = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"]
    inner, leaves, trees = 15, 16, 8
    rows: dict[str, list[Any]] = {
        name: [] for name in ("mode", "feature", "value", "true", "false", "missing", "tree", "node")
    }
    for number in range(trees):
        for node in range(inner + leaves):
            equal = node < inner and node % 5 == 4
            value = float(random.integers(0, 9)) if equal else float(random.choice(X[:, 1]))
            is_leaf = node >= inner
            rows["mode"].append(
                "LEAF" if is_leaf else random.choice(["BRANCH_EQ", "BRANCH_NEQ"] if equal else modes)
            )
            rows["feature"].append(CATEGORICAL if equal else int(random.choice([0, 1, 2, 4, 5])))
            rows["value"].append(value)
            rows["true"].append(0 if is_leaf else 2 * node + 1)
            rows["false"].append(0 if is_leaf else 2 * node + 2)
            rows["missing"].append(int(not is_leaf and not equal and random.random() < 0.4))
            rows["tree"].append(number)
            rows["node"].append(node)
    weights = random.standard_normal(trees * leaves)
    kind = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    x = helper.make_tensor_value_info("X", kind, [None, 6])
    y = helper.make_tensor_value_info("Y", kind if newer else TensorProto.FLOAT, [None, 1])
    maker = _newer_node if newer else _older_node
    node = maker(rows, weights, inner, leaves, trees, dtype)
    graph = helper.make_graph([node], "modes", [x], [y])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5 if newer else 3)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)


def _older_node(
    rows: dict[str, list[Any]], weights: Any, inner: int, leaves: int, trees: int, dtype: str
) -> Any:
    from onnx import helper, numpy_helper

    suffix = "_as_tensor" if dtype == "float64" else ""

    def numbers(name: str, values: Any) -> dict[str, Any]:
        array = np.array(values, dtype)
        return {f"{name}{suffix}": numpy_helper.from_array(array, name) if suffix else array.tolist()}

    return helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["Y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_modes=rows["mode"],
        nodes_featureids=rows["feature"],
        nodes_truenodeids=rows["true"],
        nodes_falsenodeids=rows["false"],
        nodes_missing_value_tracks_true=rows["missing"],
        nodes_treeids=rows["tree"],
        nodes_nodeids=rows["node"],
        target_ids=[0] * (trees * leaves),
        target_treeids=[number for number in range(trees) for _ in range(leaves)],
        target_nodeids=[inner + leaf for _ in range(trees) for leaf in range(leaves)],
        **numbers("nodes_values", rows["value"]),
        **numbers("target_weights", weights),
        **numbers("base_values", [0.3]),
    )


def _newer_node(
    rows: dict[str, list[Any]], weights: Any, inner: int, leaves: int, trees: int, dtype: str
) -> Any:
    from onnx import helper, numpy_helper

    names = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    split = [index for index, mode in enumerate(rows["mode"]) if mode != "LEAF"]

    def child(branch: str) -> tuple[list[int], list[int]]:
        ids, at_leaf = [], []
        for index in split:
            number, node = rows["tree"][index], rows[branch][index]
            at_leaf.append(int(node >= inner))
            ids.append(number * leaves + node - inner if node >= inner else number * inner + node)
        return ids, at_leaf

    (true, true_leaf), (false, false_leaf) = child("true"), child("false")
    return helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["Y"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,
        post_transform=0,
        tree_roots=[number * inner for number in range(trees)],
        nodes_modes=numpy_helper.from_array(
            np.array([names.index(rows["mode"][index]) for index in split], np.uint8), "modes"
        ),
        nodes_featureids=[rows["feature"][index] for index in split],
        nodes_splits=numpy_helper.from_array(np.array([rows["value"][i] for i in split], dtype), "splits"),
        nodes_truenodeids=true,
        nodes_trueleafs=true_leaf,
        nodes_falsenodeids=false,
        nodes_falseleafs=false_leaf,
        nodes_missing_value_tracks_true=[rows["missing"][index] for index in split],
        leaf_targetids=[0] * (trees * leaves),
        leaf_weights=numpy_helper.from_array(weights.astype(dtype), "weights"),
    )


FAMILIES: dict[str, Train] = {
    **sklearn_families(),
    **boosted_families(),
    **histogram_families(),
    **lightgbm_families(),
    **xgboost_families(),
    **onnx_families(),
}
