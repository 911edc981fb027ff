"""What every kind of feature has: the types that it takes and makes, and its two compiled forms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from models.spec_errors import TransactionError

Name = Annotated[str, Field(min_length=1, max_length=200)]
#: What a value is: a float (NaN is missing); or text, a datetime, the bytes of an address (None is missing).
Type = Literal["number", "category", "flag", "timestamp", "text", "ip"]
#: What stands for a value: a number, or "nan", or "error", which refuses the transaction.
OrError = FiniteFloat | Literal["error", "nan"]

Numbers = NDArray[np.float64]
#: Many values: float64 [rows] or [rows, columns] of numbers, a list of anything else.
Column = Any

NUMBERS: frozenset[Type] = frozenset({"number", "flag"})
TEXTS: frozenset[Type] = frozenset({"text"})
MOMENTS: frozenset[Type] = frozenset({"timestamp"})
ADDRESSES: frozenset[Type] = frozenset({"ip"})


class Strict(BaseModel):
    """A part of a spec's file: nothing that is not known may stand in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class OddError(Exception):
    """Raised in a batch by anything out of the ordinary: that batch is then computed row by row.

    So the error of a transaction is always that of the one compiled function.
    """


class Writer:
    """Collects the lines of the generated function and the values that they name.

    Not a character of a spec's file gets into the source: lines are written from templates here, and hold
    no names but those that this class hands out.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bound: dict[str, Any] = {}

    def bind(self, value: Any) -> str:
        """Return the name under which the function finds a value."""
        name = f"c{len(self.bound)}"
        self.bound[name] = value
        return name

    def line(self, text: str) -> None:
        """Add a line of the function's body."""
        self.lines.append(f"    {text}")


class Kind(Strict):
    """A kind of feature with its parameters.

    Attributes:
        takes: the types that each input may have; the last one again where `variadic`.
        makes: the type that it makes.
        variadic: takes two or more inputs.
    """

    takes: ClassVar[tuple[frozenset[Type], ...]] = (NUMBERS,)
    makes: ClassVar[Type] = "number"
    variadic: ClassVar[bool] = False

    kind: str

    @property
    def suffixes(self) -> tuple[str, ...] | None:
        """What tells its columns apart where it makes several; None for a plain value."""
        return None

    def complete(self, tables: Any) -> Kind:  # noqa: ARG002 - most kinds need no table
        """Return this kind with the tables that it names put in.

        Args:
            tables: the spec's tables by name.

        Raises:
            ValueError: it names one that is not there.
        """
        return self

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Return the expression that computes it.

        Args:
            out: binds values and takes lines before.
            args: expressions (plain names) of the inputs.
            label: what an error calls the input.
        """
        raise NotImplementedError

    def asks(self, position: int) -> list[dict[str, Any]]:  # noqa: ARG002 - most kinds take what there is
        """Return what it asks of a field that is its input of that position, as parts of a JSON Schema."""
        return []

    def batch(self, args: Sequence[Column]) -> Column:
        """Compute it of many; the bits are those of the expression.

        Raises:
            OddError: one of them is refused, or needs a second look.
        """
        raise NotImplementedError


class Elementwise(Kind):
    """A kind that is one Python function of its inputs, in both forms."""

    def function(self) -> Callable[..., Any]:
        """Return the function; it gets None or NaN where an input is missing."""
        raise NotImplementedError

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Call the function."""
        del label
        return f"{out.bind(self.function())}({', '.join(args)})"

    def batch(self, args: Sequence[Column]) -> Column:
        """Map the function over the rows."""
        found = list(map(self.function(), *(as_list(arg) for arg in args)))
        return np.array(found, np.float64) if self.makes == "number" else found


def as_list(column: Column) -> list[Any]:
    """Return a column as a list of Python's own values."""
    found: list[Any] = column.tolist() if isinstance(column, np.ndarray) else column
    return found


def number_or_none(value: OrError) -> float | None:
    """Return what stands for a value, None for an error."""
    return None if value == "error" else float(value)


#: The part of a JSON Schema that refuses a missing value.
NOT_MISSING: dict[str, Any] = {"not": {"type": "null"}}


def one_of(keys: Sequence[Any], *, unknown: bool, missing: bool) -> list[dict[str, Any]]:
    """Return what a look-up asks: a key where others are an error, and something where nothing is."""
    found = [] if unknown else [{"enum": [*keys, None]}]
    return found if missing else [*found, NOT_MISSING]


#: The largest float64 that is still a finite float32 once it is rounded.
LARGEST_FLOAT32 = 3.4028235677973362e38
IN_FLOAT32: dict[str, Any] = {"minimum": -LARGEST_FLOAT32, "maximum": LARGEST_FLOAT32}


def refuse(label: str, rule: str, detail: str) -> NoReturn:
    """Refuse the transaction."""
    raise TransactionError(label, rule, detail)


def shown(value: object) -> str:
    """Return a value as an error shows it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


_SHOWN = 60
NAN = math.nan
Moment = datetime
