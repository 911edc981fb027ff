"""Takes scikit-learn's HistGradientBoosting models apart.

They compare float64 with float64 (`x <= t` goes left), send NaN and unknown categories where each split
learned to, and add float64 leaf values to a baseline (`_predictor.pyx`, 1.9). Categorical features come first
in their trees, in order; each value must be one of the known ones, and is replaced by its place among them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Rows
from models.errors import ImportRefusedError
from models.importers.source import NO_SET, Scores, Source, SourceTree, as_scores, category_words
from models.layout import LEVEL
from models.links import Link
from models.meta import BundleMeta


def take_apart(model: Any, plain: Any, describe: Callable[..., BundleMeta]) -> Source:
    """Take a fitted model apart.

    Args:
        model: the model.
        plain: the same, taking rows without names.
        describe: makes the bundle's description.

    Raises:
        ImportRefusedError: its categories are not numbers, or its loss has a link that is not known.
    """
    columns, known = _columns(model)
    classifier = hasattr(model, "classes_")
    n_raw = int(model.n_trees_per_iteration_)
    flat = [tree for iteration in model._predictors for tree in iteration]  # noqa: SLF001 - nothing else has them
    method = plain.predict_proba if classifier else plain.predict

    def predict(rows: Rows) -> Scores:
        return as_scores(method(rows), rows)

    def raw(rows: Rows) -> Scores:
        return as_scores(plain._raw_predict(rows), rows)  # noqa: SLF001 - predict has the link in it

    meta = describe(
        model,
        predict,
        input_dtype="float64",
        n_raw=n_raw,
        n_trees=len(flat),
        link=_link(model, n_raw, classifier=classifier),
    )
    categories: list[int] = []
    trees = [_tree(tree, columns, categories) for tree in flat]
    rules = np.zeros(model.n_features_in_, np.uint8)
    rules[list(known)] = LEVEL
    return Source(
        meta,
        trees.__getitem__,
        raw=raw,
        predict=predict,
        categories=np.array(categories, np.uint32),
        groups=(np.arange(len(flat)) % n_raw).astype(np.uint32) if n_raw > 1 else np.zeros(0, np.uint32),
        rules=rules,
        start=np.ascontiguousarray(model._baseline_prediction, np.float64).ravel(),  # noqa: SLF001
        levels=known,
        importance=_gains(flat, columns, model.n_features_in_),
        importance_kind="total gain",
    )


def _link(model: Any, n_raw: int, *, classifier: bool) -> Link:
    if classifier:
        return "softmax" if n_raw > 1 else "sigmoid_pair"
    links: dict[str, Link] = {"IdentityLink": "identity", "LogLink": "exp"}
    name = type(model._loss.link).__name__  # noqa: SLF001
    if name not in links:
        raise ImportRefusedError(f"its loss has the link {name!r}, which is not known here")
    return links[name]


def _columns(model: Any) -> tuple[NDArray[np.intp], dict[int, Scores]]:
    """Return the column of each feature of its trees, and the known categories of the categorical columns."""
    categorical = model.is_categorical_
    if categorical is None:
        return np.arange(model.n_features_in_), {}
    columns = np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])
    encoder = model._preprocessor.named_transformers_["encoder"]  # noqa: SLF001
    known = {}
    for column, found in zip(np.flatnonzero(categorical), encoder.categories_, strict=True):
        try:
            values = np.asarray(found, np.float64)
        except (TypeError, ValueError) as error:
            raise ImportRefusedError(
                f"feature {column} has categories that are no numbers: encode them before the model, "
                "as the feature spec's category map does"
            ) from error
        known[int(column)] = values[~np.isnan(values)]
    return columns, known


def _tree(predictor: Any, columns: NDArray[np.intp], categories: list[int]) -> SourceTree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    categorical = nodes["is_categorical"].astype(bool) & ~leaf
    sets = None
    if categorical.any():
        sets = np.full(nodes.size, NO_SET, np.int64)
        for node in np.flatnonzero(categorical):
            bits = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]]
            members = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
            sets[node] = len(categories)
            categories.extend(category_words(members))
    return SourceTree(
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)).astype(np.int32),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)).astype(np.int32),
        feature=columns[np.where(leaf, 0, nodes["feature_idx"])].astype(np.int32),
        threshold=nodes["num_threshold"].astype(np.float64),
        weight=nodes["count"].astype(np.float64),
        missing_right=nodes["missing_go_to_left"] == 0,
        value=nodes["value"].astype(np.float64).reshape(-1, 1),
        category_set=sets,
    )


def _gains(trees: list[Any], columns: NDArray[np.intp], n_features: int) -> NDArray[np.float64]:
    """Add up each feature's gains; the library itself offers no importance."""
    total = np.zeros(n_features)
    for tree in trees:
        splits = tree.nodes[tree.nodes["is_leaf"] == 0]
        np.add.at(total, columns[splits["feature_idx"]], np.maximum(splits["gain"], 0.0))
    return total
