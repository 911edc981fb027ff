"""Scalers, and other transformers that are one number in, one number out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from models.errors import ImportRefusedError
from models.importers.pipelines.draft import Column, Draft, Step

#: NumPy's function by its own name: ours.
_FUNCTIONS: Mapping[str, str] = {
    **{
        name: name for name in ("log1p", "log", "log2", "log10", "sqrt", "exp", "expm1", "sin", "cos", "tanh")
    },
    **{name: name for name in ("arcsinh", "cbrt", "square", "negative", "sign", "floor", "ceil")},
    "absolute": "abs",
    "fabs": "abs",
    "rint": "round",
}


def standard(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """(x - mean) / scale, as StandardScaler computes it."""
    means, scales = model.mean_ if model.with_mean else None, model.scale_
    return _scaled(columns, draft, means, scales)


def robust(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """(x - center) / scale, as RobustScaler computes it."""
    centers = model.center_ if model.with_centering else None
    return _scaled(columns, draft, centers, model.scale_ if model.with_scaling else None)


def max_abs(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """X / scale, as MaxAbsScaler computes it."""
    if getattr(model, "clip", False):
        limit = {"kind": "clip", "low": -1.0, "high": 1.0}
        return [draft.then(column, limit) for column in _scaled(columns, draft, None, model.scale_)]
    return _scaled(columns, draft, None, model.scale_)


def min_max(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """X * scale + min, and the bounds of its range where it clips, as MinMaxScaler computes it."""
    low, high = map(float, model.feature_range)
    found = []
    for column, factor, offset in zip(columns, model.scale_, model.min_, strict=True):
        draft.note(column, numbers=[(bound - offset) / factor for bound in (low, high)])
        found.append(draft.then(column, {"kind": "linear", "factor": float(factor), "offset": float(offset)}))
    limit = {"kind": "clip", "low": low, "high": high}
    return [draft.then(column, limit) for column in found] if model.clip else found


def binarizer(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """1 above a threshold: a bin that begins at the next float64."""
    edge = math.nextafter(float(model.threshold), math.inf)
    for column in columns:
        draft.note(column, numbers=[float(model.threshold), edge])
    return [draft.then(draft.required(column), {"kind": "bin", "edges": [edge]}) for column in columns]


def function(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """One of NumPy's functions; others are code, and code is no spec."""
    if model.func is None:
        return list(columns)
    name = getattr(model.func, "__name__", repr(model.func))
    if type(model.func).__module__ != "numpy" or name not in _FUNCTIONS or model.kw_args:
        module = getattr(model.func, "__module__", None) or type(model.func).__module__
        raise ImportRefusedError(
            f"a FunctionTransformer of {module}.{name} (func) is not carried: numpy's "
            f"{', '.join(_FUNCTIONS)} are, without kw_args; other code is a code package's"
        )
    step: Step = {"kind": _FUNCTIONS[name]}
    if _FUNCTIONS[name] in {"log1p", "log", "log2", "log10", "sqrt", "exp", "expm1", "sin", "cos"}:
        step = {**step, "invalid": "nan"}
    return [draft.then(column, step) for column in columns]


def _scaled(columns: Sequence[Column], draft: Draft, means: Any, scales: Any) -> list[Column]:
    found = []
    for number, column in enumerate(columns):
        mean = 0.0 if means is None else float(means[number])
        scale = 1.0 if scales is None else float(scales[number])
        draft.note(column, numbers=[mean, mean + scale, mean - scale])
        if mean or scale != 1.0:
            found.append(draft.then(column, {"kind": "standardise", "mean": mean, "scale": scale}))
        else:
            found.append(draft.number(column))
    return found


Take = Callable[[Any, Sequence[Column], Draft], list[Column]]
