"""Kinds of one number: itself, clipped, scaled, binned, and what becomes of missing ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from models.features.kind import NOT_MISSING, Column, Kind, OddError, Type, Writer, refuse


class _Itself(Kind):
    """A value as it is."""

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Hand it on."""
        del out, label
        return args[0]

    def batch(self, args: Sequence[Column]) -> Column:
        """Hand them on."""
        return args[0]


class Plain(_Itself):
    """The number itself."""

    kind: Literal["numeric"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (frozenset({"number"}),)


class Code(_Itself):
    """The number of a category, as its field counts them."""

    kind: Literal["category"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (frozenset({"category"}),)


class Flag(_Itself):
    """1 where a flag is true, 0 where it is false."""

    kind: Literal["flag"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (frozenset({"flag"}),)


class Clip(Kind):
    """The number, or the bound that it lies beyond."""

    kind: Literal["clip"]
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None

    @model_validator(mode="after")
    def _has_bounds(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("clip needs `low`, `high` or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Compare with each bound that there is; NaN stays."""
        del label
        (x,) = args
        text = x
        if self.high is not None:
            high = out.bind(self.high)
            text = f"{high} if {x} > {high} else {text}"
        if self.low is not None:
            low = out.bind(self.low)
            text = f"{low} if {x} < {low} else {text}"
        return text

    def batch(self, args: Sequence[Column]) -> Column:
        """Compare as the expression does: of equal zeros the number's own sign stays."""
        (x,) = args
        if self.high is not None:
            x = np.where(x > self.high, self.high, x)
        if self.low is not None:
            x = np.where(x < self.low, self.low, x)
        return x


class Standardise(Kind):
    """The number less a mean, by a scale: (x - mean) / scale, each rounded as float64 is."""

    kind: Literal["standardise"]
    mean: FiniteFloat = 0.0
    scale: FiniteFloat = 1.0

    @model_validator(mode="after")
    def _can_divide(self) -> Self:
        if not self.scale:
            raise ValueError("scale is 0: nothing can be divided by it")
        return self

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Subtract, then divide."""
        del label
        return f"({args[0]} - {out.bind(self.mean)}) / {out.bind(self.scale)}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Subtract, then divide."""
        return (args[0] - self.mean) / self.scale


class Linear(Kind):
    """The number times a factor plus an offset: x * factor + offset, each rounded as float64 is."""

    kind: Literal["linear"]
    factor: FiniteFloat = 1.0
    offset: FiniteFloat = 0.0

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Multiply, then add."""
        del label
        return f"{args[0]} * {out.bind(self.factor)} + {out.bind(self.offset)}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Multiply, then add."""
        return args[0] * self.factor + self.offset


class Bin(Kind):
    """How many edges a number has reached: 0 below the first, their count from the last on."""

    kind: Literal["bin"]
    edges: Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _rise(self) -> Self:
        if list(self.edges) != sorted(self.edges):
            raise ValueError("the edges of bins must rise")
        return self

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Search the edges; the counts are floats already."""
        from bisect import bisect_right  # noqa: PLC0415 - bound into the generated function

        del label
        (x,) = args
        counts = out.bind(tuple(map(float, range(len(self.edges) + 1))))
        find = f"{out.bind(bisect_right)}({out.bind(self.edges)}, {x})"
        return f"{counts}[{find}] if {x} == {x} else {x}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Search the edges."""
        (x,) = args
        found = np.searchsorted(np.array(self.edges), x, side="right").astype(np.float64)
        return np.where(np.isnan(x), x, found)


class Impute(Kind):
    """The number, or another where it is missing."""

    kind: Literal["impute"]
    value: FiniteFloat

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Replace NaN, which alone differs from itself."""
        del label
        return f"{args[0]} if {args[0]} == {args[0]} else {out.bind(self.value)}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Replace NaN."""
        return np.where(np.isnan(args[0]), self.value, args[0])


class Replace(Kind):
    """The number, or another in place of one that stands for something else (-1 for missing, say)."""

    kind: Literal["replace"]
    old: FiniteFloat
    new: FiniteFloat | Literal["nan"]

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Compare."""
        del label
        return f"{out.bind(float(self.new))} if {args[0]} == {out.bind(self.old)} else {args[0]}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Compare."""
        return np.where(args[0] == self.old, float(self.new), args[0])


class Required(Kind):
    """The number, which must not be missing."""

    kind: Literal["required"]

    def asks(self, position: int) -> list[dict[str, Any]]:
        """Ask for a value."""
        del position
        return [NOT_MISSING]

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Refuse NaN."""

        def missing(_value: float) -> float:
            return refuse(label, "missing", "is required, and is missing")

        return f"{args[0]} if {args[0]} == {args[0]} else {out.bind(missing)}({args[0]})"

    def batch(self, args: Sequence[Column]) -> Column:
        """Refuse NaN."""
        if np.isnan(args[0]).any():
            raise OddError
        return args[0]


class IsMissing(Kind):
    """1 where a value is missing, 0 where it is there."""

    kind: Literal["is_missing"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (frozenset({"number", "flag", "timestamp", "text", "ip"}),)

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Compare with itself and with None."""
        del out, label
        (x,) = args
        return f"1.0 if {x} is None or {x} != {x} else 0.0"

    def batch(self, args: Sequence[Column]) -> Column:
        """Compare."""
        (x,) = args
        if isinstance(x, np.ndarray):
            return np.isnan(x).astype(np.float64)
        return np.array([one is None for one in x], np.float64)
