"""The training profile: what a spec's fields looked like in training, kept in the spec itself.

Numbers are cut into bins by their own quantiles, texts and categories are counted by value; live traffic is
counted in the same bins (`drift.py`), so that two distributions are compared and no data are kept. Of fields
that are not stored as they are (`store`), only how often they were missing is told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from models.features.fields import FieldRecipe
from models.features.kind import Name, Strict

#: Bins of a number between its least and its largest.
BINS = 10
#: Values of a text that are counted one by one; the rest is counted together.
CATEGORIES = 200
#: A text that fewer transactions had is counted with the rest: it may be somebody's name.
_FEW = 5
#: Texts with more values than this have no unseen ones: most are names or numbers of something.
_MANY = 1000

Share = Annotated[float, Field(ge=0, le=1)]


class FieldProfile(Strict):
    """What a field looked like in training.

    Attributes:
        missing: the share of transactions in which it was missing.
        edges: of a number: its least, the quantiles between its bins, and its largest.
        categories: of a text, category or flag: the share of each value among those that were there.
        more: values beyond `categories` were there; none of the others is unseen then.
        shares: of a number: the share of each bin, among those that were there.
    """

    missing: Share
    edges: Annotated[tuple[FiniteFloat, ...], Field(max_length=1000)] = ()
    shares: Annotated[tuple[Share, ...], Field(max_length=1000)] = ()
    categories: dict[str, Share] | None = None
    more: bool = False

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.edges and (list(self.edges) != sorted(set(self.edges)) or len(self.edges) < 2):  # noqa: PLR2004
            raise ValueError("edges must rise, from the least to the largest")
        if len(self.shares) != max(len(self.edges) - 1, 0):
            raise ValueError(f"{len(self.shares)} shares for {len(self.edges)} edges")
        return self


class Profile(Strict):
    """The training profile of a spec.

    Attributes:
        rows: how many transactions it was made from.
        fields: field to its profile.
    """

    rows: Annotated[int, Field(ge=1)]
    fields: dict[Name, FieldProfile]


def make_profile(fields: Mapping[str, FieldRecipe], transactions: Iterable[Mapping[str, Any]]) -> Profile:
    """Return the profile of training data.

    Args:
        fields: the fields that a spec reads.
        transactions: the data, as they would have been sent to be scored.

    Raises:
        ValueError: there are none.
    """
    rows = list(transactions)
    if not rows:
        raise ValueError("a profile needs transactions, and there are none")
    found = {name: _profile(recipe, [row.get(name) for row in rows]) for name, recipe in fields.items()}
    return Profile(rows=len(rows), fields=found)


def _profile(recipe: FieldRecipe, raw: Sequence[Any]) -> FieldProfile:
    values = [value for value in raw if value is not None and value == value]  # noqa: PLR0124 - NaN
    missing = 1 - len(values) / len(raw)
    if recipe.store != "keep":
        return FieldProfile(missing=missing)
    if recipe.type == "number":
        return _of_numbers(missing, values)
    if recipe.type in {"text", "category", "flag"}:
        counts = Counter(map(str, values))
        least = _FEW if recipe.type == "text" else 1
        top = {value: count for value, count in counts.most_common(CATEGORIES) if count >= least}
        shares = {value: count / len(values) for value, count in top.items()}
        return FieldProfile(missing=missing, categories=shares, more=len(counts) > _MANY)
    return FieldProfile(missing=missing)


def _of_numbers(missing: float, values: Sequence[Any]) -> FieldProfile:
    numbers = np.array([float(value) for value in values if math.isfinite(value)])
    if not numbers.size:
        return FieldProfile(missing=missing)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)))
    if edges.size == 1:
        edges = np.array([edges[0], np.nextafter(edges[0], np.inf)])
    places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, edges.size - 2)
    shares = np.bincount(places, minlength=edges.size - 1) / numbers.size
    return FieldProfile(missing=missing, edges=tuple(edges.tolist()), shares=tuple(shares.tolist()))
