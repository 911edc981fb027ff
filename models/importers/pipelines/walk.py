"""Follows columns through pipelines, column transformers and unions, to the transformers that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.errors import ImportRefusedError
from models.importers.pipelines import encoders, imputers, others, scalers
from models.importers.pipelines.draft import Column, Draft
from models.importers.pipelines.scalers import Take

_TAKERS: Mapping[str, Take] = {
    "StandardScaler": scalers.standard,
    "RobustScaler": scalers.robust,
    "MaxAbsScaler": scalers.max_abs,
    "MinMaxScaler": scalers.min_max,
    "Binarizer": scalers.binarizer,
    "FunctionTransformer": scalers.function,
    "OneHotEncoder": encoders.one_hot,
    "OrdinalEncoder": encoders.ordinal,
    "TargetEncoder": encoders.target,
    "KBinsDiscretizer": encoders.bins,
    "SimpleImputer": imputers.simple,
    "MissingIndicator": imputers.indicator,
    "PolynomialFeatures": others.polynomial,
    "VarianceThreshold": others.selection,
    "SelectKBest": others.selection,
    "SelectPercentile": others.selection,
    "SelectFromModel": others.selection,
    "RFE": others.selection,
    "RFECV": others.selection,
}


def walk(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """Return what a fitted transformer makes of columns.

    Raises:
        ImportRefusedError: it, or a part of it, is not carried; names it.
    """
    name = type(model).__name__
    if model == "passthrough" or model is None:
        return list(columns)
    if not type(model).__module__.startswith("sklearn."):
        raise ImportRefusedError(
            f"a {name} of {type(model).__module__} is not carried: it is code. A code package carries code"
        )
    if name == "Pipeline":
        found = list(columns)
        for _, step in model.steps:
            found = walk(step, found, draft)
        return found
    if name == "ColumnTransformer":
        return _columns(model, columns, draft)
    if name == "FeatureUnion":
        return _union(model, columns, draft)
    taker = _TAKERS.get(name)
    if taker is None:
        raise ImportRefusedError(f"a {name} is not carried: {', '.join(_TAKERS)} are")
    if hasattr(model, "n_features_in_") and model.n_features_in_ != len(columns):
        raise ImportRefusedError(
            f"the {name} was fitted on {model.n_features_in_} columns, {len(columns)} come in"
        )
    try:
        return taker(model, columns, draft)
    except AttributeError as error:
        raise ImportRefusedError(
            f"the {name} is not fitted, or of another version of its library: {error}"
        ) from error


def _columns(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    if not hasattr(model, "transformers_"):
        raise ImportRefusedError("the ColumnTransformer is not fitted")
    if model.transformer_weights:
        raise ImportRefusedError("the ColumnTransformer has weights (transformer_weights); none are carried")
    found: list[Column] = []
    for name, transformer, _ in model.transformers_:
        chosen = model._transformer_to_input_indices[name]  # noqa: SLF001 - names, masks and callables as numbers
        if isinstance(transformer, str) and transformer == "drop":
            continue
        if len(chosen):
            found += walk(transformer, [columns[number] for number in chosen], draft)
    return found


def _union(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    if model.transformer_weights:
        raise ImportRefusedError("the FeatureUnion has weights (transformer_weights); none are carried")
    found: list[Column] = []
    for _, transformer in model.transformer_list:
        if not (isinstance(transformer, str) and transformer == "drop"):
            found += walk(transformer, columns, draft)
    return found
