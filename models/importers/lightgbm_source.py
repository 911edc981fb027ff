"""Takes LightGBM's boosters apart.

LightGBM compares float64 values with float64 thresholds (`x <= t` goes left). Its prediction drops values up
to 1e-35 from zero (it passes rows as pairs), and each feature has one rule for what is missing (`tree.h`,
`predictor.hpp`, 4.x). The model's text carries every number with 17 digits, which is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.bundle import Rows
from models.errors import ImportRefusedError
from models.importers.source import NO_SET, Scores, Source, SourceTree, as_scores
from models.layout import (
    KIND_BITS,
    MAX_CATEGORY,
    MAX_FEATURES,
    NAN_IS_ZERO,
    TINY_IS_ZERO,
    TRUNCATED,
    ZERO_IS_MISSING,
)
from models.links import Link
from models.meta import BundleMeta

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
#: LightGBM's missing types to what is done with a feature's value first.
_MISSING_RULES = {0: NAN_IS_ZERO, 1: ZERO_IS_MISSING, 2: TINY_IS_ZERO}

_LINKS: Mapping[str, Link] = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid_each",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "log1p_exp",
    "poisson": "exp",
    "gamma": "exp",
    "tweedie": "exp",
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"),
    **dict.fromkeys(("lambdarank", "rank_xendcg"), "identity"),
}
_CLASSIFYING = ("binary", "multiclass", "multiclassova")


def take_apart(model: Any) -> Source:
    """Take a Booster, LGBMClassifier or LGBMRegressor apart, at its best iteration where it has one.

    Raises:
        ImportRefusedError: linear trees, an unknown or custom objective, a feature whose missing values are
            treated in two ways, too many features, not fitted.
    """
    import lightgbm  # noqa: PLC0415 - only importing a model needs its library

    name = type(model).__name__
    booster, classes = model, None
    if not isinstance(model, lightgbm.Booster):
        if not hasattr(model, "booster_"):
            raise ImportRefusedError(
                f"a {name} is not carried: Booster, LGBMClassifier and LGBMRegressor are"
            )
        booster, classes = model.booster_, getattr(model, "classes_", None)
    header, blocks = _read(booster.model_to_string())
    n_features = int(header["max_feature_idx"]) + 1
    if n_features > MAX_FEATURES:
        raise ImportRefusedError(f"the model has {n_features} features, at most {MAX_FEATURES} are carried")
    if not blocks:
        raise ImportRefusedError("the model has no trees")
    per_iteration = int(header["num_tree_per_iteration"])
    objective, link, scale = _link(header.get("objective", ""))
    categories: list[int] = []
    rules = np.full(n_features, TINY_IS_ZERO, np.uint8)
    settled: dict[int, int] = {}
    trees = [_tree(block, categories, rules, settled) for block in blocks]
    meta = BundleMeta(
        task="classifier" if objective in _CLASSIFYING else "regressor",
        library="lightgbm",
        library_version=lightgbm.__version__,
        model_class=name,
        feature_names=tuple(booster.feature_name()),
        outputs=_outputs(objective, per_iteration, classes),
        input_dtype="float64",
        link=link,
        link_scale=scale,
        divisor=len(trees) // per_iteration if "average_output" in header else 1,
        allows_missing=True,
        allows_infinite=True,
        n_raw=per_iteration,
        n_trees=len(trees),
        n_nodes=1,  # counted when the trees are packed
    )

    def raw(x: Rows) -> Scores:
        return as_scores(booster.predict(x, raw_score=True, num_threads=1), x)

    def predict(x: Rows) -> Scores:
        return as_scores(booster.predict(x, num_threads=1), x)

    return Source(
        meta,
        trees.__getitem__,
        raw=raw,
        predict=predict,
        categories=np.array(categories, np.uint32),
        groups=(np.arange(len(trees)) % per_iteration).astype(np.uint32)[: len(trees) * (per_iteration > 1)],
        rules=rules,
        importance=booster.feature_importance("gain"),
        importance_kind="total gain",
    )


def _outputs(objective: str, n_raw: int, classes: Any) -> tuple[str, ...]:
    if objective not in _CLASSIFYING:
        return ("value",) if n_raw == 1 else tuple(f"value_{number}" for number in range(n_raw))
    if objective == "binary":
        return (str(classes[1]) if classes is not None else "1",)
    return tuple(str(label) for label in (classes if classes is not None else range(n_raw)))


def _link(objective: str) -> tuple[str, Link, float]:
    """Return the objective's name, its link, and the link's parameter."""
    name, *parameters = objective.split() or [""]
    if name not in _LINKS:
        what = f"the objective {name!r}" if name else "a custom objective"
        raise ImportRefusedError(f"{what} is not carried: how its scores become outputs is not known here")
    values = dict(parameter.partition(":")[::2] for parameter in parameters)
    if "sqrt" in values:
        return name, "signed_square", 1.0
    return name, _LINKS[name], float(values.get("sigmoid", "1"))


def _read(text: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Split a model's text into its header and its trees, each as key to value."""
    head, *blocks = text.partition("end of trees")[0].split("\nTree=")
    parsed = [
        dict(line.partition("=")[::2] for line in part.splitlines() if line) for part in (head, *blocks)
    ]
    return parsed[0], parsed[1:]


def _tree(
    block: Mapping[str, str],
    categories: list[int],
    rules: NDArray[np.uint8],
    settled: dict[int, int],
) -> SourceTree:
    """Read one tree; its sets of categories and its features' missing rules are added to the others'."""
    if block.get("is_linear", "0") != "0":
        raise ImportRefusedError("linear trees (linear_tree=true) are not carried")
    n_leaves = int(block["num_leaves"])
    n_splits = n_leaves - 1

    def numbers(name: str, dtype: type[np.generic], count: int) -> NDArray[Any]:
        found = np.array([float(part) for part in block.get(name, "").split()]) if count else np.zeros(0)
        if found.size != count:
            raise ImportRefusedError(
                f"the model's text is damaged: {name} has {found.size} values, not {count}"
            )
        return found.astype(dtype)

    # Splits keep their numbers, leaves follow them; a child is a split, or ~leaf where it is negative.
    left, right = (numbers(f"{side}_child", np.int32, n_splits) for side in ("left", "right"))
    left, right = (np.where(child >= 0, child, n_splits + ~child) for child in (left, right))
    feature = numbers("split_feature", np.int32, n_splits)
    kind = numbers("decision_type", np.int32, n_splits)
    threshold = numbers("threshold", np.float64, n_splits)
    categorical = (kind & _CATEGORICAL) > 0
    sets = np.full(n_splits + n_leaves, NO_SET, np.int64)
    for split in np.flatnonzero(categorical):
        sets[split] = _add_set(block, int(threshold[split]), categories)
        rules[feature[split]] = TINY_IS_ZERO | TRUNCATED
    numeric = feature[~categorical].tolist(), (kind[~categorical] >> 2 & 3).tolist()
    for number, missing in sorted({*zip(*numeric, strict=True)}):
        if settled.setdefault(number, missing) != missing:
            raise ImportRefusedError(f"feature {number} is split with two missing types (missing_type)")
        rules[number] = (rules[number] & KIND_BITS) | _MISSING_RULES[missing]
    counts = numbers("internal_count", np.float64, n_splits), numbers("leaf_count", np.float64, n_leaves)
    values = numbers("leaf_value", np.float64, n_leaves)
    leaf = np.full(n_leaves, -1, np.int32)
    return SourceTree(
        left=np.concatenate([left, leaf]).astype(np.int32),
        right=np.concatenate([right, leaf]).astype(np.int32),
        feature=_padded(feature, n_leaves),
        threshold=_padded(threshold, n_leaves),
        weight=np.concatenate(counts),
        # A missing category goes right, whatever the split says.
        missing_right=_padded(((kind & _DEFAULT_LEFT) == 0) | categorical, n_leaves),
        value=np.concatenate([np.zeros(n_splits), values]).reshape(-1, 1),
        category_set=sets if categorical.any() else None,
    )


def _padded(array: NDArray[Any], count: int) -> NDArray[Any]:
    return np.concatenate([array, np.zeros(count, array.dtype)])


def _add_set(block: Mapping[str, str], number: int, categories: list[int]) -> int:
    """Append a split's set of categories; return where it starts."""
    bounds = [int(part) for part in block["cat_boundaries"].split()]
    words = [int(part) for part in block["cat_threshold"].split()][bounds[number] : bounds[number + 1]]
    if len(words) * 32 > MAX_CATEGORY:
        raise ImportRefusedError(f"a category of {MAX_CATEGORY} or more (cat_threshold) is not carried")
    start = len(categories)
    categories.extend([len(words), *words])
    return start
