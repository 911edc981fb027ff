"""The kind that makes a column of each category."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from models.features.categories import KEYS, Key, all_of_one_type, looked_up
from models.features.kind import Column, Kind, Type, Writer, one_of, refuse, shown


class OneHot(Kind):
    """One column for each category: 1 in its own, 0 in all others.

    Attributes:
        categories: all texts, or all numbers.
        columns: the column of each category, -1 for none (several may share one); by default its own.
        unknown: the column of any other value; by default zeros everywhere.
        missing: the column of a missing value.
    """

    kind: Literal["onehot"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (KEYS,)
    categories: Annotated[tuple[Key, ...], Field(min_length=1, max_length=65536)]
    columns: tuple[Annotated[int, Field(ge=-1, le=65536)], ...] | None = None
    unknown: Annotated[int, Field(ge=0, le=65536)] | Literal["zeros", "error"] = "zeros"
    missing: Annotated[int, Field(ge=0, le=65536)] | Literal["zeros", "error"] = "zeros"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        all_of_one_type(self.categories)
        if self.columns is not None and len(self.columns) != len(self.categories):
            raise ValueError(f"{len(self.columns)} columns for {len(self.categories)} categories")
        if set(self._places) - {-1} != set(range(self._width)):
            raise ValueError("a column is left out between others, or there is none")
        return self

    @property
    def _places(self) -> tuple[int, ...]:
        own = tuple(range(len(self.categories))) if self.columns is None else self.columns
        more = tuple(one for one in (self.unknown, self.missing) if isinstance(one, int))
        return own + more

    @property
    def _width(self) -> int:
        return max(self._places) + 1

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Each column is named after its categories, or after what else it holds."""
        words: list[list[str]] = [[] for _ in range(self._width)]
        for category, place in zip(self.categories, self._places, strict=False):
            if place >= 0:
                words[place].append(str(category))
        for word, extra in (("other", self.unknown), ("missing", self.missing)):
            if isinstance(extra, int):
                words[extra].append(word)
        return tuple("|".join(found) for found in words)

    def _entries(self) -> tuple[dict[Any, int], int | None, int | None]:
        """Return category to column, and that of an unknown and of a missing one (None: error, -1: none)."""
        places = dict(zip(self.categories, self._places, strict=False))
        return places, _column(self.unknown), _column(self.missing)

    def asks(self, position: int) -> list[dict[str, Any]]:
        """Ask for what has a row."""
        del position
        return one_of(self.categories, unknown=self.unknown != "error", missing=self.missing != "error")

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Look the whole row up: narrow rows are made once, wide ones when they are asked for."""
        places, unknown, missing = self._entries()
        width = self._width
        made = [_row(place, width) for place in range(-1, width)] if width <= _MADE_ONCE else None

        def other(value: Any) -> Any:
            gone = value is None or value != value  # noqa: PLR0124 - NaN alone differs from itself
            place = missing if gone else unknown
            if place is None and gone:
                refuse(label, "missing", "is required, and is missing")
            if place is None:
                known = ", ".join(map(str, places))[:200]
                refuse(label, "unknown_category", f"must be one of {known}; got {shown(value)}")
            return place

        table, (x,) = out.bind(places), args
        place = f"{table}[{x}] if {x} in {table} else {out.bind(other)}({x})"
        if made is None:
            return f"{out.bind(functools.partial(_row, width=width))}({place})"
        # The last of them, which -1 finds, is the row of zeros.
        return f"{out.bind((*made[1:], made[0]))}[{place}]"

    def batch(self, args: Sequence[Column]) -> Column:
        """Set the ones of all rows at once."""
        places, unknown, missing = self._entries()
        found = np.array(looked_up(args[0], places, unknown, missing), np.intp)
        ones = np.zeros((len(found), self._width))
        hit = np.flatnonzero(found >= 0)
        ones[hit, found[hit]] = 1.0
        return ones


#: Columns up to which all rows of a one-hot encoding are made at once.
_MADE_ONCE = 64


def _row(place: int, width: int) -> tuple[float, ...]:
    row = [0.0] * width
    if place >= 0:
        row[place] = 1.0
    return tuple(row)


def _column(place: int | str) -> int | None:
    if isinstance(place, int):
        return place
    return -1 if place == "zeros" else None
