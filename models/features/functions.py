"""Kinds that are one mathematical function of a number.

In both forms a function is Python's own (libm), called for each number, unless IEEE 754 leaves numpy no
choice: numpy's vector versions of logarithms and sines differ in the last bit from processor to processor.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from models.features.kind import (
    IN_FLOAT32,
    LARGEST_FLOAT32,
    NAN,
    Column,
    Kind,
    OddError,
    Writer,
    refuse,
)


@dataclass(frozen=True)
class Function:
    """A function of one number.

    Attributes:
        call: Python's function.
        guard: where it can be called and gives a number, as a template of its argument; "" for anywhere.
        needs: what that is, in words.
        beyond: the function elsewhere, as numpy has it: infinities and NaN; NaN where there is none.
        exact: numpy's function where its bits are the same.
    """

    call: Callable[[float], float]
    guard: str = ""
    needs: str = ""
    beyond: Callable[[float], float] = lambda _x: NAN
    exact: Callable[[Any], Any] | None = None


def _log(at: float) -> Callable[[float], float]:
    return lambda x: -math.inf if x == at else math.inf if x > at else NAN


def _even(x: float) -> float:
    """Round to the nearest whole number, halves to the even one; zeros keep their sign."""
    return math.copysign(float(round(x)), x) if abs(x) < _WHOLE else x


def _floor(x: float) -> float:
    return math.copysign(float(math.floor(x)), x) if abs(x) < _WHOLE else x


def _ceil(x: float) -> float:
    return math.copysign(float(math.ceil(x)), x) if abs(x) < _WHOLE else x


def _square(x: float) -> float:
    return x * x


def _negative(x: float) -> float:
    return -x


def _sign(x: float) -> float:
    return 1.0 if x > 0 else -1.0 if x < 0 else abs(x)


#: From here on every float64 is whole.
_WHOLE = 2.0**52
_FINITE = "-1.7976931348623157e308 <= {x} <= 1.7976931348623157e308"

FUNCTIONS: Mapping[str, Function] = {
    "log1p": Function(math.log1p, "{x} > -1.0", "above -1 for its logarithm", _log(-1.0)),
    "log": Function(math.log, "{x} > 0.0", "above 0 for its logarithm", _log(0.0)),
    "log2": Function(math.log2, "{x} > 0.0", "above 0 for its logarithm", _log(0.0)),
    "log10": Function(math.log10, "{x} > 0.0", "above 0 for its logarithm", _log(0.0)),
    "sqrt": Function(math.sqrt, "{x} >= 0.0", "at least 0 for its root", exact=np.sqrt),
    "exp": Function(math.exp, "{x} < 709.0", "at most 709 for its power", lambda x: _power(math.exp, x)),
    "expm1": Function(
        math.expm1, "{x} < 709.0", "at most 709 for its power", lambda x: _power(math.expm1, x)
    ),
    "sin": Function(math.sin, _FINITE, "finite"),
    "cos": Function(math.cos, _FINITE, "finite"),
    "tanh": Function(math.tanh),
    "arcsinh": Function(math.asinh),
    "cbrt": Function(math.cbrt),
    "abs": Function(abs, exact=np.abs),
    "square": Function(_square, exact=np.square),
    "negative": Function(_negative, exact=np.negative),
    "sign": Function(_sign, exact=np.sign),
    "round": Function(_even, exact=np.rint),
    "floor": Function(_floor, exact=np.floor),
    "ceil": Function(_ceil, exact=np.ceil),
}
_INLINE: Mapping[str, str] = {"abs": "abs({x})", "square": "{x} * {x}", "negative": "-{x}"}


def _power(call: Callable[[float], float], x: float) -> float:
    try:
        return call(x)
    except OverflowError:
        return math.inf


class OfNumber(Kind):
    """A function of a number.

    Attributes:
        invalid: where it has no value the transaction is refused, or it is what numpy has there.
        numpy: numpy's own function, to its last bit: ten times as dear for one number, and worth it where
            training used it and a step behind it cuts at exact values. Its bits may differ by processor.
    """

    kind: Literal[
        "log1p", "log", "log2", "log10", "sqrt", "exp", "expm1", "sin", "cos", "tanh", "arcsinh", "cbrt",
        "abs", "square", "negative", "sign", "round", "floor", "ceil",
    ]  # fmt: skip
    invalid: Literal["error", "nan"] = "error"
    numpy: bool = False

    @property
    def _call(self) -> Callable[[float], float]:
        """The function of one number."""
        if not self.numpy or FUNCTIONS[self.kind].exact:
            return FUNCTIONS[self.kind].call
        vector = getattr(np, self.kind)
        return lambda x: float(vector(x))

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Call it inside its guard."""
        (x,) = args
        if self.kind in _INLINE:
            return _INLINE[self.kind].format(x=x)
        function = FUNCTIONS[self.kind]
        call = f"{out.bind(self._call)}({x})"
        if not function.guard:
            return call
        return f"{call} if {function.guard.format(x=x)} else {out.bind(self._elsewhere(label))}({x})"

    def asks(self, position: int) -> list[dict[str, Any]]:
        """Ask for what lies inside the guard."""
        del position
        return [_ASKED[self.kind]] if self.invalid == "error" and self.kind in _ASKED else []

    def _elsewhere(self, label: str) -> Callable[[float], float]:
        function, strict = FUNCTIONS[self.kind], self.invalid == "error"

        def elsewhere(x: float) -> float:
            if x != x:  # noqa: PLR0124 - NaN alone differs from itself
                return x
            if strict:
                refuse(label, "range", f"must be {function.needs}, got {x}")
            return function.beyond(x)

        return elsewhere

    def batch(self, args: Sequence[Column]) -> Column:
        """Compute it of many."""
        function, (x,) = FUNCTIONS[self.kind], args
        exact = getattr(np, self.kind) if self.numpy else function.exact
        if not function.guard:
            return exact(x) if exact else _each(function.call, x)
        inside = _GUARDS[self.kind](x)
        if inside.all():
            return exact(x) if exact else _each(function.call, x)
        if self.invalid == "error" and not (inside | np.isnan(x)).all():
            raise OddError
        found = np.empty_like(x)
        found[inside] = exact(x[inside]) if exact else _each(function.call, x[inside])
        found[~inside] = [NAN if at != at else function.beyond(at) for at in x[~inside].tolist()]  # noqa: PLR0124
        return found


def _each(call: Callable[[float], float], x: Column) -> Column:
    return np.array(list(map(call, x.tolist())), np.float64)


_GUARDS: Mapping[str, Callable[[Any], Any]] = {
    "log1p": lambda x: x > -1.0,
    **dict.fromkeys(("log", "log2", "log10"), lambda x: x > 0.0),
    "sqrt": lambda x: x >= 0.0,
    **dict.fromkeys(("exp", "expm1"), lambda x: x < 709.0),  # noqa: PLR2004 - below where exp overflows
    **dict.fromkeys(("sin", "cos"), np.isfinite),
}


_ASKED: Mapping[str, dict[str, Any]] = {
    "log1p": {"exclusiveMinimum": -1},
    **{kind: {"exclusiveMinimum": 0} for kind in ("log", "log2", "log10")},
    "sqrt": {"minimum": 0},
    **{kind: {"exclusiveMaximum": 709} for kind in ("exp", "expm1")},
}


def _largest(call: Callable[[float], float]) -> float:
    """Return the largest number of which a growing function is a finite float32; bisects the floats."""
    low, high = 0, _bits(1.7976931348623157e308)
    while low < high:
        middle = (low + high + 1) // 2
        if call(_float(middle)) <= LARGEST_FLOAT32:
            low = middle
        else:
            high = middle - 1
    return _float(low)


def _bits(x: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", x))[0]
    return bits


def _float(bits: int) -> float:
    x: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return x


#: What a number may be of which a feature is computed by one function: a vector has float32.
IN_VECTOR: Mapping[str, dict[str, Any]] = {
    **dict.fromkeys(("numeric", "abs", "negative", "round", "floor", "ceil"), IN_FLOAT32),
    "sqrt": {"maximum": _largest(math.sqrt)},
    **{
        kind: {"maximum": _largest(partial(_power, call))}
        for kind, call in (("exp", math.exp), ("expm1", math.expm1))
    },
    **{
        kind: {"minimum": -_largest(call), "maximum": _largest(call)}
        for kind, call in (("cbrt", math.cbrt), ("square", _square))
    },
}


class Cycle(Kind):
    """The sine or cosine of a number on a circle: hours of a day, days of a week."""

    kind: Literal["cycle_sin", "cycle_cos"]
    period: Annotated[FiniteFloat, Field(gt=0)]

    def _function(self) -> Callable[[float], float]:
        call = math.sin if self.kind == "cycle_sin" else math.cos
        turn = 2.0 * math.pi

        def cycle(x: float) -> float:
            return call(turn * math.fmod(x, self.period) / self.period) if math.isfinite(x) else NAN

        return cycle

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Call the function."""
        del label
        return f"{out.bind(self._function())}({args[0]})"

    def batch(self, args: Sequence[Column]) -> Column:
        """Compute it of many."""
        return _each(self._function(), args[0])
