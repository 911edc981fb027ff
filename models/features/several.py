"""Kinds of several numbers: ratio, difference, product and the like, and the distance of two points."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import FiniteFloat

from models.features.kind import NAN, NUMBERS, Column, Kind, OddError, Type, Writer, refuse


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
