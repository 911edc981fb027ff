"""Takes XGBoost's boosters apart.

XGBoost reads rows as float32, compares float32 (`x < t` goes left), sends missing values where each split
learned to, and adds float32 leaf values in tree order to a float32 base margin; a split's set of categories
goes right (`predict_fn.h`, `cpu_predictor.cc`, `categorical.h`, 3.x). The model's JSON carries every float32
with the digits that it needs.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import ImportRefusedError
from models.importers.source import (
    NO_SET,
    Answer,
    Scores,
    Source,
    SourceTree,
    accepts,
    as_scores,
    category_words,
    numbered,
)
from models.layout import FLOORED, MAX_FEATURES
from models.links import Link
from models.meta import BundleMeta


def _log(value: np.float32) -> float:
    """The system's logf, as XGBoost calls it: its last bit is not always the nearest."""
    try:
        logf = ctypes.CDLL("libm.so.6").logf
    except OSError:
        return math.log(float(value))
    logf.restype, logf.argtypes = ctypes.c_float, [ctypes.c_float]
    return float(logf(float(value)))


def _logit(probability: np.float32) -> float:
    return -_log(np.float32(1.0) / probability - np.float32(1.0))


#: Each objective's link, and how its base score becomes a margin.
_OBJECTIVES: Mapping[str, tuple[Link, Callable[[np.float32], float]]] = {
    **dict.fromkeys(
        (
            "reg:squarederror",
            "reg:linear",
            "reg:squaredlogerror",
            "reg:pseudohubererror",
            "reg:absoluteerror",
            "reg:quantileerror",
            "rank:pairwise",
            "rank:ndcg",
            "rank:map",
        ),
        ("identity", float),
    ),
    "binary:logistic": ("sigmoid32", _logit),
    "reg:logistic": ("sigmoid32", _logit),
    "binary:logitraw": ("identity", float),
    "binary:hinge": ("step", float),
    **dict.fromkeys(
        ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"), ("exp32", _log)
    ),
    "multi:softprob": ("softmax32", float),
    "multi:softmax": ("argmax", float),
}
_CLASSIFYING = ("binary:logistic", "binary:logitraw", "binary:hinge", "multi:softprob", "multi:softmax")


def take_apart(model: Any, missing: float | None = None) -> Source:
    """Take a Booster, XGBClassifier, XGBRegressor or XGBRanker apart, as it predicts: at its best iteration.

    Args:
        model: the model.
        missing: the number that is a missing value besides NaN; by default what the estimator says.

    Raises:
        ImportRefusedError: linear boosters, trees of vectors, an unknown or custom objective, not fitted.
    """
    import xgboost  # noqa: PLC0415 - only importing a model needs its library

    name = type(model).__name__
    booster, sentinel = model, math.nan
    if not isinstance(model, xgboost.Booster):
        booster, sentinel = _unwrapped(model)
    if missing is not None:
        sentinel = missing
    learner = json.loads(booster.save_raw(raw_format="json"))["learner"]
    blocks, groups, weights = _trees(learner["gradient_booster"])
    if learner["attributes"].get("scikit_learn") is None and not blocks:
        raise ImportRefusedError("the model has no trees")
    objective = learner["objective"]["name"]
    if objective not in _OBJECTIVES:
        raise ImportRefusedError(f"the objective {objective!r} is not carried: its link is not known here")
    parameters = learner["learner_model_param"]
    n_features = int(parameters["num_feature"])
    if n_features > MAX_FEATURES:
        raise ImportRefusedError(f"the model has {n_features} features, at most {MAX_FEATURES} are carried")
    n_raw = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    link, start = _OBJECTIVES[objective][0], _start(objective, parameters["base_score"], n_raw)
    pairs = hasattr(model, "predict_proba") and link == "sigmoid32"
    if hasattr(model, "predict_proba") and link == "argmax":
        link = "softmax32"
    raw, predict = _answers(booster, sentinel, pairs=pairs, softmax=link == "softmax32")
    categories: list[int] = []
    trees = [_tree(block, weights[number], categories) for number, block in enumerate(blocks)]
    types = booster.feature_types or []
    rules = np.array([FLOORED * (kind == "c") for kind in types] or [0] * n_features, np.uint8)
    meta = BundleMeta(
        task="classifier" if objective in _CLASSIFYING else "regressor",
        library="xgboost",
        library_version=xgboost.__version__,
        model_class=name,
        feature_names=tuple(booster.feature_names or numbered(n_features)),
        outputs=_outputs(model, objective, link, n_raw, pairs=pairs),
        input_dtype="float32",
        sum_dtype="float32",
        link="sigmoid_pair32" if pairs else link,
        allows_missing=True,
        allows_infinite=accepts(predict, n_features, math.inf, "float32"),
        missing_value=None if math.isnan(sentinel) else float(np.float32(sentinel)),
        n_raw=n_raw,
        n_trees=len(trees),
        n_nodes=1,  # counted when the trees are packed
    )
    return Source(
        meta,
        trees.__getitem__,
        raw=raw,
        predict=predict,
        categories=np.array(categories, np.uint32),
        groups=groups if n_raw > 1 else np.zeros(0, np.uint32),
        rules=rules,
        start=start,
        importance=_gains(trees, blocks, n_features),
        importance_kind="total gain",
    )


def _unwrapped(model: Any) -> tuple[Any, float]:
    """Return an estimator's booster at its best iteration, and what it takes for missing."""
    try:
        booster = model.get_booster()
    except Exception as error:
        raise ImportRefusedError(f"this {type(model).__name__} is not fitted") from error
    best = getattr(model, "best_iteration", None)
    missing = math.nan if model.missing is None else float(model.missing)
    return (booster if best is None else booster[: best + 1]), missing


def _trees(booster: Any) -> tuple[list[Any], NDArray[np.uint32], list[float]]:
    """Return the trees, the raw score that each adds to, and its weight."""
    if booster["name"] not in {"gbtree", "dart"}:
        raise ImportRefusedError(f"a {booster['name']!r} booster has no trees")
    weights = booster.get("weight_drop")
    model = booster.get("gbtree", booster)["model"]
    blocks = model["trees"]
    return blocks, np.array(model["tree_info"], np.uint32), weights or [1.0] * len(blocks)


def _start(objective: str, text: str, n_raw: int) -> Scores:
    """Return the base margin; the base score is one number, or (3.1 and later) a list of them, as text."""
    found = json.loads(text) if text.startswith("[") else [float(text)]
    to_margin = _OBJECTIVES[objective][1]
    margins = np.array([to_margin(np.float32(score)) for score in found], np.float32)
    return np.broadcast_to(margins.astype(np.float64), n_raw).copy()


def _answers(booster: Any, missing: float, *, pairs: bool, softmax: bool) -> tuple[Answer, Answer]:
    import xgboost  # noqa: PLC0415

    def ask(rows: NDArray[Any], *, margin: bool) -> NDArray[Any]:
        data = xgboost.DMatrix(
            rows, missing=missing, feature_types=booster.feature_types, enable_categorical=True, nthread=1
        )
        return np.asarray(booster.predict(data, output_margin=margin, validate_features=False))

    def raw(rows: NDArray[Any]) -> Scores:
        return as_scores(ask(rows, margin=True), rows)

    def predict(rows: NDArray[Any]) -> Scores:
        found = ask(rows, margin=False)
        if pairs:
            found = np.stack([np.float32(1.0) - found, found], axis=1)
        elif softmax and found.ndim == 1:  # multi:softmax answers with a class; its estimator with shares
            margins = ask(rows, margin=True)
            powers = np.exp(margins - margins.max(axis=1, keepdims=True))
            found = powers / powers.sum(axis=1, keepdims=True)
        return as_scores(found, rows)

    return raw, predict


def _outputs(model: Any, objective: str, link: Link, n_raw: int, *, pairs: bool) -> tuple[str, ...]:
    labels = [str(label) for label in getattr(model, "classes_", ())]
    if link == "argmax":
        return ("class",)
    if objective not in _CLASSIFYING:
        return ("value",) if n_raw == 1 else tuple(f"value_{number}" for number in range(n_raw))
    if pairs:
        return tuple(labels or ("0", "1"))
    if n_raw == 1:
        return (labels[1] if labels else "1",)
    return tuple(labels or map(str, range(n_raw)))


def _tree(block: Mapping[str, Any], weight: float, categories: list[int]) -> SourceTree:
    """Read one tree; its sets of categories are added to the others'."""
    if int(block["tree_param"].get("size_leaf_vector") or 1) > 1:
        raise ImportRefusedError("trees whose leaves are vectors (multi_strategy) are not carried")
    left, right = (np.array(block[f"{side}_children"], np.int32) for side in ("left", "right"))
    condition = np.array(block["split_conditions"], np.float32)
    missing_right = np.array(block["default_left"]) == 0
    # A row goes left where x < t: where x <= the float32 below t.
    threshold = np.nextafter(condition, np.float32(-np.inf)).astype(np.float64)
    sets = None
    if block["categories_nodes"]:
        sets = np.full(left.size, NO_SET, np.int64)
        words = np.array(block["categories"], np.int64)
        parts = (block[f"categories_{part}"] for part in ("nodes", "segments", "sizes"))
        for node, begin, size in zip(*parts, strict=True):
            sets[node] = len(categories)
            categories.extend(category_words(words[begin : begin + size]))
        # XGBoost's sets go right, ours left.
        swapped = sets != NO_SET
        left, right = np.where(swapped, right, left), np.where(swapped, left, right)
        missing_right ^= swapped
    return SourceTree(
        left=left,
        right=right,
        feature=np.array(block["split_indices"], np.int32),
        threshold=threshold,
        weight=np.array(block["sum_hessian"], np.float64),
        missing_right=missing_right,
        value=(condition * np.float32(weight)).astype(np.float64).reshape(-1, 1),
        category_set=sets,
    )


def _gains(trees: list[SourceTree], blocks: list[Any], n_features: int) -> NDArray[np.float64]:
    total = np.zeros(n_features)
    for tree, block in zip(trees, blocks, strict=True):
        splits = tree.left >= 0
        np.add.at(total, tree.feature[splits], np.array(block["loss_changes"], np.float64)[splits])
    return total
