"""Kinds of categories: mapped, looked up, target-encoded, hashed, crossed; and currencies."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from models.features.kind import (
    NUMBERS,
    TEXTS,
    Column,
    Elementwise,
    Kind,
    Name,
    OddError,
    OrError,
    Type,
    Writer,
    as_list,
    number_or_none,
    one_of,
    refuse,
    shown,
)

#: What a category may be: a text, or a number.
Key = str | FiniteFloat
KEYS: frozenset[Type] = TEXTS | NUMBERS
_UNKNOWN, _MISSING = object(), object()


def all_of_one_type(keys: Sequence[Key]) -> None:
    """Refuse keys that are not all texts or all numbers, or that are there twice.

    Raises:
        ValueError: with the reason.
    """
    if len({isinstance(key, str) for key in keys}) > 1:
        raise ValueError("categories are all texts or all numbers")
    if len(set(keys)) != len(keys):
        raise ValueError("a category is named twice")


class Lookup(Kind):
    """What a table says of a category: a number, or a row of them.

    The table stands in the spec's `tables` under a name, or here as `table`, or here as `keys` and `values`.
    `target` is the same for a target encoding: `values` are the means as fitted, `unknown` that of all.
    """

    kind: Literal["map", "lookup", "target"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (KEYS,)
    table: Name | dict[str, FiniteFloat] | None = None
    keys: tuple[Key, ...] = ()
    values: tuple[FiniteFloat | tuple[FiniteFloat, ...], ...] = ()
    unknown: OrError | tuple[FiniteFloat, ...] = "error"
    missing: OrError | tuple[FiniteFloat, ...] = "error"

    @model_validator(mode="after")
    def _is_one_table(self) -> Self:
        if (self.table is None) != bool(self.keys):
            raise ValueError("a look-up takes `table`, or `keys` with `values`")
        all_of_one_type(self.keys)
        if len(self.keys) != len(self.values):
            raise ValueError(f"{len(self.keys)} keys for {len(self.values)} values")
        widths = {len(row) if isinstance(row, tuple) else 0 for row in self.values}
        widths |= {len(row) for row in (self.unknown, self.missing) if isinstance(row, tuple)}
        if len(widths) > 1:
            raise ValueError("its rows are of several lengths")
        if self._width and not {"nan"}.isdisjoint((self.unknown, self.missing)):
            raise ValueError("of rows, `unknown` and `missing` are rows too, or errors")
        return self

    @property
    def _width(self) -> int:
        """How many numbers a row has; 0 where values are plain."""
        return len(self.values[0]) if self.values and isinstance(self.values[0], tuple) else 0

    @property
    def suffixes(self) -> tuple[str, ...] | None:
        """The columns of a row are numbered."""
        return tuple(map(str, range(self._width))) or None

    def complete(self, tables: Mapping[str, Mapping[str, float]]) -> Kind:
        """Put its table in."""
        if self.table is None:
            return self
        found = _table(self.table, tables)
        return self.model_copy(update={"table": None, "keys": tuple(found), "values": tuple(found.values())})

    def _entries(self) -> tuple[dict[Any, Any], Any, Any]:
        """Return category to value, and what stands for an unknown and for a missing one (None: error)."""
        rows = {key: _floats(row) for key, row in zip(self.keys, self.values, strict=True)}
        return rows, _or_none(self.unknown), _or_none(self.missing)

    def asks(self, position: int) -> list[dict[str, Any]]:
        """Ask for what has a value."""
        del position
        return one_of(self.keys, unknown=self.unknown != "error", missing=self.missing != "error")

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Look it up; what is not in the table goes another way."""
        rows, unknown, missing = self._entries()
        (x,) = args

        def other(value: Any) -> Any:
            if value is None or value != value:  # noqa: PLR0124 - NaN alone differs from itself
                return refuse(label, "missing", "is required, and is missing") if missing is None else missing
            if unknown is None:
                known = ", ".join(map(str, rows))[:200]
                refuse(label, "unknown_category", f"must be one of {known}; got {shown(value)}")
            return unknown

        table = out.bind(rows)
        return f"{table}[{x}] if {x} in {table} else {out.bind(other)}({x})"

    def batch(self, args: Sequence[Column]) -> Column:
        """Look each row up."""
        rows, unknown, missing = self._entries()
        return np.array(looked_up(args[0], rows, unknown, missing), np.float64)


def looked_up(column: Column, rows: dict[Any, Any], unknown: Any, missing: Any) -> list[Any]:
    """Look a column up; None stands for an error."""
    raw = as_list(column)
    get = {**rows, None: missing}.get
    found = list(map(get, raw, repeat(_UNKNOWN)))
    if _UNKNOWN in found:
        pairs = zip(raw, found, strict=True)
        nan = {True: unknown, False: missing}
        found = [nan[value == value] if one is _UNKNOWN else one for value, one in pairs]  # noqa: PLR0124
    if None in found:
        raise OddError
    return found


def _floats(row: Any) -> Any:
    return tuple(map(float, row)) if isinstance(row, tuple) else float(row)


def _or_none(value: Any) -> Any:
    return tuple(map(float, value)) if isinstance(value, tuple) else number_or_none(value)


def _table(table: str | dict[str, float], tables: Mapping[str, Mapping[str, float]]) -> Mapping[str, float]:
    found = table if isinstance(table, dict) else tables.get(table)
    if not found:
        raise ValueError(f"table {table!r} is not there, or is empty: the spec's tables are {sorted(tables)}")
    return found


class Hashed(Elementwise):
    """The bucket of a text: CRC-32 of its UTF-8, begun with the seed, modulo the buckets."""

    kind: Literal["hash"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (TEXTS,)
    buckets: Annotated[int, Field(ge=2, le=1 << 24)]
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    missing: FiniteFloat | Literal["nan"] = "nan"

    def function(self) -> Any:
        """Hash it."""
        buckets, seed, missing, crc32 = self.buckets, self.seed, float(self.missing), zlib.crc32

        def bucket(text: str | None) -> float:
            if text is None:
                return missing
            return float(crc32(text.encode("utf-8", "surrogatepass"), seed) % buckets)

        return bucket


class Cross(Elementwise):
    """Two texts as one, to be mapped, hashed or one-hot: `left|right`."""

    kind: Literal["cross"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (TEXTS, TEXTS)
    makes: ClassVar[Type] = "text"

    def function(self) -> Any:
        """Join them; missing if one is."""
        return lambda left, right: None if left is None or right is None else f"{left}|{right}"


class Currency(Kind):
    """An amount in one currency: the amount times the rate of its own, by a table."""

    kind: Literal["currency"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (NUMBERS, TEXTS)
    table: Name | dict[str, FiniteFloat]
    unknown: OrError = "error"
    missing: OrError = "error"

    def complete(self, tables: Mapping[str, Mapping[str, float]]) -> Kind:
        """Put its table in."""
        return self.model_copy(update={"table": dict(_table(self.table, tables))})

    def _rates(self) -> tuple[dict[Any, float], float | None, float | None]:
        assert isinstance(self.table, dict)  # noqa: S101 - `complete` has put it there
        rates = {currency: float(rate) for currency, rate in self.table.items()}
        return rates, number_or_none(self.unknown), number_or_none(self.missing)

    def asks(self, position: int) -> list[dict[str, Any]]:
        """Ask for a currency that has a rate."""
        rates = list(self.table) if position else []
        return (
            one_of(rates, unknown=self.unknown != "error", missing=self.missing != "error") if rates else []
        )

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Look the rate up."""
        rates, unknown, missing = self._rates()

        def other(currency: str | None) -> float:
            rate = missing if currency is None else unknown
            if rate is None and currency is None:
                refuse(label, "missing", "has no currency")
            if rate is None:
                refuse(label, "unknown_category", f"has no rate: its currency is {shown(currency)}")
            return rate

        amount, currency = args
        table = out.bind(rates)
        return f"{amount} * ({table}[{currency}] if {currency} in {table} else {out.bind(other)}({currency}))"

    def batch(self, args: Sequence[Column]) -> Column:
        """Look the rates up."""
        return args[0] * np.array(looked_up(args[1], *self._rates()), np.float64)
