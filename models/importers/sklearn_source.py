"""Takes scikit-learn's trees apart: single ones, forests, gradient boosting, isolation forests.

scikit-learn casts rows to float32, compares them with float64 thresholds (`x <= t` goes left), sends NaN
where each split learned to, and adds float64 leaf values tree by tree, before a forest divides by their
number (`_forest.py`, `_gb.py`, `_iforest.py`, `_tree.pyx`, 1.9). With n_jobs=1 that order is fixed, and so
are the bits. Gradient boosting by histograms is another library inside: see histogram_source.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Rows
from models.errors import ImportRefusedError
from models.importers import histogram_source
from models.importers.source import Answer, Scores, Source, SourceTree, accepts, as_scores, numbered
from models.links import Link
from models.meta import BundleMeta

_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor")
_SINGLE = ("DecisionTreeClassifier", "ExtraTreeClassifier", "DecisionTreeRegressor", "ExtraTreeRegressor")
_BOOSTED = ("GradientBoostingClassifier", "GradientBoostingRegressor")
_HISTOGRAM = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
_ISOLATION = ("IsolationForest",)
_CARRIED = _FORESTS + _SINGLE + _BOOSTED + _HISTOGRAM + _ISOLATION
_PURITY = "impurity decrease"
#: How rows are handed to a model: as they are, or sparse.
Form = Callable[[Rows], Any]


def take_apart(model: Any, *, sparse: bool = False) -> Source:
    """Take a fitted model apart.

    Args:
        model: the model.
        sparse: it is asked with sparse rows. Of these, trees and forests refuse NaN, which they take in
            dense ones whatever they were trained on, and isolation forests send it to the right
            (`_support_missing_values` in `_classes.py`, `_apply_sparse_csr` in `_tree.pyx`).

    Raises:
        ImportRefusedError: another estimator, not fitted, several outputs, sparse labels, or its own init.
    """
    name = type(model).__name__
    if name not in _CARRIED:
        raise ImportRefusedError(f"a {name} is not carried: {', '.join(_CARRIED)} are")
    if not hasattr(model, "n_features_in_"):
        raise ImportRefusedError(f"this {name} is not fitted")
    if getattr(model, "n_outputs_", 1) != 1:
        raise ImportRefusedError(f"this {name} has {model.n_outputs_} outputs (n_outputs_); one is carried")
    plain = _without_names(model)
    if name in _HISTOGRAM:
        if sparse:
            raise ImportRefusedError(f"a {name} takes no sparse rows")
        return histogram_source.take_apart(model, plain, _meta)
    taker = _boosted if name in _BOOSTED else _isolation if name in _ISOLATION else _averaged
    return taker(model, plain, _as_sparse if sparse else np.ascontiguousarray)


def _without_names(model: Any) -> Any:
    """Return a copy that takes rows without names, and adds its trees in their order."""
    plain = copy.copy(model)  # shares the trees; only these attributes are its own
    if hasattr(plain, "n_jobs"):
        plain.n_jobs = 1
    if hasattr(plain, "feature_names_in_"):
        del plain.feature_names_in_
    return plain


def _meta(model: Any, predict: Answer, **facts: Any) -> BundleMeta:
    """Describe a model, but for what each kind has of its own."""
    import sklearn  # noqa: PLC0415 - only importing a model needs its library

    classes = getattr(model, "classes_", None)
    outputs = tuple(str(label) for label in classes) if classes is not None else ("value",)
    if len(set(outputs)) != len(outputs):
        raise ImportRefusedError(f"the classes {outputs} (classes_) cannot be told apart by name")
    names = getattr(model, "feature_names_in_", None)
    dtype = facts.setdefault("input_dtype", "float32")
    return BundleMeta(
        **{
            "task": "classifier" if classes is not None else "regressor",
            "library": "scikit-learn",
            "library_version": sklearn.__version__,
            "model_class": type(model).__name__,
            "feature_names": tuple(map(str, names)) if names is not None else numbered(model.n_features_in_),
            "outputs": outputs,
            "n_nodes": 1,  # counted when the trees are packed
            "allows_missing": accepts(predict, model.n_features_in_, np.nan, dtype),
            "allows_infinite": accepts(predict, model.n_features_in_, np.inf, dtype),
            **facts,
        }
    )


def _as_sparse(rows: Rows) -> Any:
    from scipy.sparse import csr_matrix  # noqa: PLC0415 - comes with scikit-learn

    return csr_matrix(rows)


def _answer(method: Callable[[Any], Any], form: Form) -> Answer:
    return lambda rows: as_scores(method(form(rows)), rows)


def _averaged(model: Any, plain: Any, form: Form) -> Source:
    """Forests, whose trees' answers are averaged, and single trees, which are forests of one."""
    classes = getattr(model, "classes_", None)
    predict = _answer(plain.predict_proba if classes is not None else plain.predict, form)
    trees = getattr(model, "estimators_", [model])
    n_raw = len(classes) if classes is not None else 1
    meta = _meta(model, predict, n_raw=n_raw, n_trees=len(trees), divisor=len(trees), raw_divided=True)
    # A single tree's answer is its leaf's value: only -0.0 added to a number leaves all of them as they are.
    start = -np.zeros(n_raw) if trees == [model] else None
    return Source(
        meta,
        lambda number: tree_of(trees[number].tree_),
        raw=predict,
        predict=predict,
        start=start,
        importance=model.feature_importances_,
        importance_kind=_PURITY,
    )


def _boosted(model: Any, plain: Any, form: Form) -> Source:
    zero = np.zeros((1, model.n_features_in_), np.float32)
    if model.init_ != "zero" and not type(model.init_).__module__.startswith("sklearn.dummy"):
        raise ImportRefusedError(
            f"its first guess is a {type(model.init_).__name__} (init); a constant is carried"
        )
    stages = model.estimators_
    n_raw = stages.shape[1]
    classifier = hasattr(model, "classes_")
    predict = _answer(plain.predict_proba if classifier else plain.predict, form)
    link: Link = "identity"
    if classifier:
        link = "softmax" if n_raw > 1 else "sigmoid_pair"
    meta = _meta(
        model,
        predict,
        n_raw=n_raw,
        n_trees=stages.size,
        link=link,
        # The exponential loss has half a logit: its link is the sigmoid of the double.
        link_scale=2.0 if classifier and model.loss == "exponential" else 1.0,
    )
    flat = stages.ravel()

    def tree(number: int) -> SourceTree:
        return tree_of(flat[number].tree_, model.learning_rate)

    return Source(
        meta,
        tree,
        raw=_answer(plain.decision_function, form) if classifier else predict,
        predict=predict,
        groups=groups_of(stages.size, n_raw),
        start=np.ascontiguousarray(plain._raw_predict_init(zero)[0], np.float64),  # noqa: SLF001 - nothing else has it
        importance=model.feature_importances_,
        importance_kind=_PURITY,
    )


def groups_of(n_trees: int, n_raw: int) -> NDArray[np.uint32]:
    """Trees that add to the raw scores in turns; empty where there is one raw score."""
    return (np.arange(n_trees) % n_raw).astype(np.uint32) if n_raw > 1 else np.zeros(0, np.uint32)


def _isolation(model: Any, plain: Any, form: Form) -> Source:
    """Isolation forests: a leaf's value is how deep it lies, and how deep its rows would lie on."""
    depths, below = model._decision_path_lengths, model._average_path_length_per_tree  # noqa: SLF001
    used = model.estimators_features_
    estimators = model.estimators_
    # As in _compute_score_samples: the mean depth of that many rows, for each tree.
    from sklearn.ensemble._iforest import _average_path_length  # noqa: PLC0415

    scale = float(len(estimators) * _average_path_length([model._max_samples])[0])  # noqa: SLF001
    if scale == 0.0:
        raise ImportRefusedError("its trees saw one row each (max_samples): its score says nothing")
    predict = _answer(plain.score_samples, form)
    meta = _meta(
        model,
        predict,
        task="anomaly",
        outputs=("score",),
        n_raw=1,
        n_trees=len(estimators),
        link="isolation",
        link_scale=scale,
    )

    def value(number: int) -> Scores:
        found: Scores = (depths[number] + below[number] - 1.0).reshape(-1, 1)
        return found

    def tree(number: int) -> SourceTree:
        found = tree_of(estimators[number].tree_, value=value(number), features=used[number])
        return (
            replace(found, missing_right=np.ones_like(found.missing_right)) if form is _as_sparse else found
        )

    def raw(rows: Rows) -> Scores:
        total = np.zeros(len(rows))
        for number, estimator in enumerate(estimators):
            leaf = estimator.tree_.apply(form(np.ascontiguousarray(rows[:, used[number]], np.float32)))
            total += value(number)[leaf, 0]
        return total.reshape(-1, 1)

    return Source(meta, tree, raw=raw, predict=predict)


def tree_of(
    tree: Any, scale: float | None = None, value: Scores | None = None, features: NDArray[Any] | None = None
) -> SourceTree:
    """Read a scikit-learn Tree; `features` are the columns that it saw."""
    splits = tree.children_left >= 0
    leaf = tree.value[:, 0, :] if value is None else value
    used = np.where(splits, tree.feature, 0)
    return SourceTree(
        left=tree.children_left.astype(np.int32),
        right=tree.children_right.astype(np.int32),
        feature=(used if features is None else np.asarray(features)[used]).astype(np.int32),
        threshold=tree.threshold,
        weight=tree.weighted_n_node_samples,
        missing_right=tree.missing_go_to_left == 0,
        value=leaf if scale is None else scale * leaf,
    )
