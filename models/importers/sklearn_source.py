"""Takes scikit-learn's forests apart.

scikit-learn casts rows to float32, compares them with float64 thresholds (`x <= t` goes left), sends NaN
where each split learned to, and adds float64 leaf values tree by tree before it divides by their number
(`_forest.py`, `_tree.pyx`, 1.9). With n_jobs=1 that order is fixed, and so are the bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from models.errors import ImportRefusedError
from models.importers.source import Rows, Scores, Source, round_down
from models.meta import BundleMeta
from models.pack import Tree

_CLASSIFIERS = ("RandomForestClassifier", "ExtraTreesClassifier")
_REGRESSORS = ("RandomForestRegressor", "ExtraTreesRegressor")


def take_apart(model: Any) -> Source:
    """Take a fitted forest apart.

    Raises:
        ImportRefusedError: another estimator, not fitted, several outputs, or sparse labels.
    """
    import sklearn  # noqa: PLC0415 - only importing a model needs its library

    name = type(model).__name__
    if name not in _CLASSIFIERS + _REGRESSORS:
        raise ImportRefusedError(f"a {name} is not carried: {', '.join(_CLASSIFIERS + _REGRESSORS)} are")
    if not hasattr(model, "estimators_"):
        raise ImportRefusedError(f"this {name} is not fitted")
    if model.n_outputs_ != 1:
        raise ImportRefusedError(f"this {name} has {model.n_outputs_} outputs (n_outputs_); one is carried")
    classifier = name in _CLASSIFIERS
    outputs = tuple(str(label) for label in model.classes_) if classifier else ("value",)
    if len(set(outputs)) != len(outputs):
        raise ImportRefusedError(f"the classes {outputs} (classes_) cannot be told apart by name")
    names = getattr(model, "feature_names_in_", None)
    predict = _predictor(model, classifier=classifier)
    meta = BundleMeta(
        task="classifier" if classifier else "regressor",
        library="scikit-learn",
        library_version=sklearn.__version__,
        model_class=name,
        feature_names=tuple(map(str, names)) if names is not None else _numbered(model.n_features_in_),
        outputs=outputs,
        input_dtype="float32",
        divisor=len(model.estimators_),
        raw_divided=True,
        allows_missing=_allows_missing(predict, model.n_features_in_),
        n_raw=len(outputs),
        n_trees=len(model.estimators_),
        n_nodes=sum(int(tree.tree_.node_count) for tree in model.estimators_),
    )
    trees = [_tree(estimator.tree_) for estimator in model.estimators_]
    none = np.zeros(0, np.uint32)
    return Source(meta, trees, none, np.zeros(model.n_features_in_, np.uint8), predict, predict)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"f{number}" for number in range(count))


def _allows_missing(predict: Callable[[Rows], Scores], n_features: int) -> bool:
    """Ask the model itself whether it takes NaN: that depends on its version, criterion and constraints."""
    row = np.zeros((1, n_features), np.float32)
    row[0, 0] = np.nan
    try:
        predict(row)
    except ValueError:
        return False
    return True


def _predictor(model: Any, *, classifier: bool) -> Callable[[Rows], Scores]:
    """Return the model's own answer, with its trees added in their order."""
    ordered = copy.copy(model)  # shares the trees; only these two attributes are its own
    ordered.n_jobs = 1
    if hasattr(ordered, "feature_names_in_"):
        del ordered.feature_names_in_  # rows come without names here, and that is no mistake

    def predict(x: Rows) -> Scores:
        found = ordered.predict_proba(x) if classifier else ordered.predict(x)
        return np.ascontiguousarray(found, np.float64).reshape(len(x), -1)

    return predict


def _tree(tree: Any) -> Tree:
    splits = tree.children_left >= 0
    return Tree(
        left=tree.children_left.astype(np.int32),
        right=tree.children_right.astype(np.int32),
        feature=np.where(splits, tree.feature, 0).astype(np.int32),
        threshold=round_down(np.where(splits, tree.threshold, 0.0)),
        weight=tree.weighted_n_node_samples,
        missing_right=splits & (tree.missing_go_to_left == 0),
        category=np.zeros(tree.node_count, np.bool_),
        value=np.ascontiguousarray(tree.value[:, 0, :]),
    )
