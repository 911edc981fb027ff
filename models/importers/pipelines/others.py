"""Polynomial features, and transformers that only choose columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from models.importers.pipelines.draft import Column, Draft


def polynomial(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """PolynomialFeatures: products in the order in which scikit-learn multiplies, from the last column on."""
    whole = [draft.required(column) for column in columns]
    found = []
    for powers in model.powers_.tolist():
        factors = [whole[number] for number, power in enumerate(powers) for _ in range(power)]
        if not factors:
            found.append(draft.then(whole[0], {"kind": "clip", "low": 1.0, "high": 1.0}, present=True))
        elif len(factors) == 1:
            found.append(factors[0])
        else:
            found.append(draft.together("product", factors[::-1]))
    return found


def selection(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """Whatever keeps some columns as they are."""
    chosen = [columns[number] for number in model.get_support(indices=True)]
    if model.__sklearn_tags__().input_tags.allow_nan:
        return chosen
    return [column if column.present else draft.required(column) for column in chosen]
