"""Imputers and indicators of missing values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.errors import ImportRefusedError
from models.importers.pipelines.draft import Column, Draft, Step


def simple(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """SimpleImputer, with its indicator behind."""
    found, typed = [], []
    for column, statistic in zip(columns, model.statistics_.tolist(), strict=True):
        one = (
            draft.text(column)
            if isinstance(statistic, str) or column.type == "text"
            else draft.number(column)
        )
        typed.append(one)
        empty = statistic is None or statistic != statistic  # noqa: PLR0124 - NaN
        if empty and not model.keep_empty_features:
            continue
        if empty:
            raise ImportRefusedError(f"SimpleImputer has no value for {column.inputs[0]!r} (statistics_)")
        found.append(_filled(draft, one, model.missing_values, statistic))
    if model.indicator_ is None:
        return found
    return found + indicator(model.indicator_, typed, draft)


def _filled(draft: Draft, column: Column, marker: Any, statistic: Any) -> Column:
    """Return a column whose missing values are filled; besides another marker those are refused."""
    if column.type == "text":
        step: Step = {"kind": "fill", "value": statistic}
        draft.note(column, categories=[statistic])
        if isinstance(marker, str):
            # scikit-learn then refuses what is missing indeed.
            draft.must_be_there(column)
            draft.note(column, categories=[marker])
            step = {**step, "old": [marker]}
        elif marker is None:
            draft.none.add(column.inputs[0])
        return Column(column.inputs, (*column.steps, step), "text", present=True)
    draft.note(column, numbers=[float(statistic)])
    if _is_missing(marker):
        return draft.then(column, {"kind": "impute", "value": float(statistic)}, present=True)
    draft.note(column, numbers=[float(marker)])
    step = {"kind": "replace", "old": float(marker), "new": float(statistic)}
    return draft.then(draft.required(column), step, present=True)


def _is_missing(marker: Any) -> bool:
    return bool(marker is None or marker != marker)  # noqa: PLR0124 - NaN, and pandas' NA has no truth


def indicator(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """MissingIndicator: 1 where a value is missing."""
    if not _is_missing(model.missing_values):
        raise ImportRefusedError(
            f"an indicator of {model.missing_values!r} (missing_values) is not carried: NaN is"
        )
    chosen = range(len(columns)) if model.features == "all" else model.features_.tolist()
    if model.features != "all" and model.error_on_new and len(chosen) < len(columns):
        raise ImportRefusedError(
            "a MissingIndicator that refuses new missing values is not carried: set error_on_new to False"
        )
    found = []
    for number in chosen:
        column = columns[number]
        typed = column if column.type == "text" else draft.number(column)
        found.append(Column(typed.inputs, (*typed.steps, {"kind": "is_missing"}), "number", present=True))
    return found
