"""Kinds of plain arithmetic: the value itself, clipped, scaled, and several put together."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from models.features.kind import NAN, NOT_MISSING, NUMBERS, Column, Kind, OddError, Type, Writer, refuse


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


class Ratio(Kind):
    """One number by another, and a value of its own where that is zero."""

    kind: Literal["ratio"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (NUMBERS, NUMBERS)
    zero: FiniteFloat | Literal["nan"] = 0.0

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Divide where that can be."""
        del label
        return f"{args[0]} / {args[1]} if {args[1]} else {out.bind(float(self.zero))}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Divide where that can be."""
        x, by = args
        found = np.full_like(x, float(self.zero))
        np.divide(x, by, out=found, where=by != 0)
        return found


class Difference(Kind):
    """One number less another."""

    kind: Literal["difference"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (NUMBERS, NUMBERS)

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Subtract."""
        del out, label
        return f"{args[0]} - {args[1]}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Subtract."""
        return args[0] - args[1]


_ONE: Mapping[str, Callable[[Any, Any], Any]] = {
    "product": operator.mul,
    "sum": operator.add,
    "least": lambda x, y: x if x <= y or x != x else y,  # noqa: PLR0124 - NaN alone differs from itself
    "greatest": lambda x, y: x if x >= y or x != x else y,  # noqa: PLR0124
}
_MANY: Mapping[str, Callable[[Any, Any], Any]] = {
    "product": operator.mul,
    "sum": operator.add,
    "least": lambda x, y: np.where((x <= y) | np.isnan(x), x, y),
    "greatest": lambda x, y: np.where((x >= y) | np.isnan(x), x, y),
}


class Together(Kind):
    """Several numbers put together from the first to the last: product, sum, least or greatest."""

    kind: Literal["product", "sum", "least", "greatest"]
    variadic: ClassVar[bool] = True

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Fold the inputs."""
        del label
        if self.kind in {"product", "sum"}:
            return (" * " if self.kind == "product" else " + ").join(args)
        call = out.bind(_ONE[self.kind])
        return functools.reduce(lambda left, right: f"{call}({left}, {right})", args)

    def batch(self, args: Sequence[Column]) -> Column:
        """Fold the inputs."""
        return functools.reduce(_MANY[self.kind], args)


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


class Distance(Kind):
    """Kilometres between two points on the sphere: latitude, longitude, latitude, longitude in degrees.

    The haversine formula on a sphere of 6,371.0088 km, the mean radius of the Earth (IUGG).
    """

    kind: Literal["distance"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (NUMBERS,) * 4

    def asks(self, position: int) -> list[dict[str, Any]]:
        """Ask for latitudes that are."""
        return [] if position % 2 else [{"minimum": -_POLE, "maximum": _POLE}]

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Call the function, which checks the latitudes."""

        def beyond(latitude: float) -> float:
            return refuse(label, "range", f"must be a latitude from -90 to 90, got {latitude}")

        near = functools.partial(_haversine, beyond)
        return f"{out.bind(near)}({', '.join(args)})"

    def batch(self, args: Sequence[Column]) -> Column:
        """Call it for each row: sines must be those of the expression."""
        found = map(functools.partial(_haversine, _odd), *(arg.tolist() for arg in args))
        return np.array(list(found), np.float64)


_POLE, _EARTH_KM = 90.0, 6371.0088


def _odd(_latitude: float) -> float:
    raise OddError


def _haversine(beyond: Callable[[float], float], *degrees: float) -> float:
    from math import asin, cos, isfinite, radians, sin, sqrt  # noqa: PLC0415 - short names for a formula

    if not all(map(isfinite, degrees)):
        return NAN
    for latitude in degrees[::2]:
        if not -_POLE <= latitude <= _POLE:
            return beyond(latitude)
    a, b, c, d = map(radians, degrees)
    half = sin((c - a) / 2.0) ** 2 + cos(a) * cos(c) * sin((d - b) / 2.0) ** 2
    return 2.0 * _EARTH_KM * asin(sqrt(min(1.0, half)))
