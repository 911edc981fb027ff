"""The fields of a transaction: what each must look like, and how it is read, one or many."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Any, Literal, NoReturn, Self
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import Field, FiniteFloat, model_validator

from models.features.kind import (
    Column,
    Name,
    OddError,
    OrError,
    Strict,
    Writer,
    number_or_none,
    refuse,
    shown,
)
from models.features.networks import parse_address
from models.spec_errors import TransactionError

#: What becomes of a field's value where transactions are stored or sent on.
Storage = Literal["keep", "hash", "drop"]
#: Reads one field's value: a float, a datetime, a text or an address.
Read = Callable[[Any], Any]

_LARGEST = sys.float_info.max
_NONE = type(None)


class FieldRecipe(Strict):
    """What a field of a transaction must look like.

    A field of type `any` is checked by nobody and computed from by nothing: it stands there for its `store`.
    """

    type: Literal["number", "category", "flag", "timestamp", "text", "ip", "any"]
    store: Storage = "keep"
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None
    missing: OrError = "error"
    categories: tuple[Name, ...] = ()
    unknown: FiniteFloat | Literal["error"] = "error"
    max_length: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type != "number" and (self.min is not None or self.max is not None):
            raise ValueError("only a number has min and max")
        if (self.type == "category") != bool(self.categories):
            raise ValueError("a category, and nothing else, names its categories")
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("a category is named twice")
        if self.type in {"timestamp", "text", "ip"} and self.missing not in {"error", "nan"}:
            raise ValueError(f'a {self.type} that is missing is an "error", or stays missing ("nan")')
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self

    @property
    def is_any_number(self) -> bool:
        """Whether each finite float is a value of it, and nothing else is."""
        unbounded = self.low == -_LARGEST and self.high == _LARGEST
        return self.type == "number" and self.missing == "error" and unbounded

    @property
    def low(self) -> float:
        """The least number that it may be."""
        return -_LARGEST if self.min is None else max(self.min, -_LARGEST)

    @property
    def high(self) -> float:
        """The largest number that it may be."""
        return _LARGEST if self.max is None else min(self.max, _LARGEST)

    @property
    def codes(self) -> dict[str, float]:
        """The number of each category."""
        return {category: float(code) for code, category in enumerate(self.categories)}


def reader(name: str, recipe: FieldRecipe, zone: tzinfo) -> Read:
    """Return what reads and checks any value of a field, and says what is wrong with it."""
    return {
        "number": _number,
        "flag": _flag,
        "category": _category,
        "timestamp": lambda name, recipe: _timestamp(name, recipe, zone),
        "text": _text,
        "ip": _ip,
    }[recipe.type](name, recipe)


def write_field(out: Writer, var: str, recipe: FieldRecipe, read: Read) -> None:
    """Write the lines that turn a raw value into a checked one; the common case is inline."""
    slow = out.bind(read)
    if recipe.type == "number":
        low, high = out.bind(recipe.low), out.bind(recipe.high)
        out.line(f"if type({var}) is not float or not {low} <= {var} <= {high}: {var} = {slow}({var})")
    elif recipe.type == "flag":
        out.line(f"{var} = 1.0 if {var} is True else 0.0 if {var} is False else {slow}({var})")
    elif recipe.type == "category":
        codes = out.bind(recipe.codes)
        out.line(f"{var} = {codes}[{var}] if type({var}) is str and {var} in {codes} else {slow}({var})")
    elif recipe.type == "text":
        longest = out.bind(recipe.max_length)
        out.line(f"if type({var}) is not str or len({var}) > {longest}: {var} = {slow}({var})")
    else:
        out.line(f"{var} = {slow}({var})")


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name."""
    return UTC if name == "UTC" else ZoneInfo(name)


def read_column(recipe: FieldRecipe, read: Read, raw: Sequence[Any]) -> Column:
    """Read one field of many transactions.

    Args:
        recipe: what the field must look like.
        read: as `reader` gives it.
        raw: a list of raw values, or an array of float64.

    Raises:
        OddError: a value is not plain.
    """
    if recipe.type == "number":
        return _numbers(recipe, raw)
    found = raw.tolist() if isinstance(raw, np.ndarray) else raw
    if recipe.type in {"flag", "category"}:
        return _coded(recipe, found)
    if recipe.type == "text":
        if not set(map(type, found)) <= {str, _NONE} or (recipe.missing == "error" and None in found):
            raise OddError
        if max((len(text) for text in found if text is not None), default=0) > recipe.max_length:
            raise OddError
        return found
    try:
        return [read(value) for value in found]
    except TransactionError as error:
        raise OddError from error


def _numbers(recipe: FieldRecipe, raw: Sequence[Any]) -> Column:
    if isinstance(raw, np.ndarray) and raw.dtype == np.float64:
        found = raw.copy()
    elif set(map(type, raw)) <= {float, int, _NONE}:
        try:
            found = np.array(raw, np.float64)  # None becomes NaN
        except OverflowError as error:
            raise OddError from error
    else:
        raise OddError
    gone = np.isnan(found)
    if not ((found >= recipe.low) & (found <= recipe.high) | gone).all():
        raise OddError
    if gone.any():
        if recipe.missing == "error":
            raise OddError
        found[gone] = float(recipe.missing)
    return found


def _coded(recipe: FieldRecipe, raw: Sequence[Any]) -> Column:
    kind: type = bool if recipe.type == "flag" else str
    if not set(map(type, raw)) <= {kind, _NONE}:
        raise OddError
    codes: dict[Any, float | None] = {True: 1.0, False: 0.0} if kind is bool else dict(recipe.codes)
    unknown = None if kind is bool else number_or_none(recipe.unknown)
    codes[None] = number_or_none(recipe.missing)
    found = [codes.get(value, unknown) for value in raw]
    if None in found:
        raise OddError
    return np.array(found, np.float64)


def _when_missing(name: str, missing: float | None) -> float:
    return _gone(name) if missing is None else missing


def _gone(name: str) -> NoReturn:
    refuse(name, "missing", "is required, and is missing")


def _number(name: str, recipe: FieldRecipe) -> Read:
    missing = number_or_none(recipe.missing)
    low = -math.inf if recipe.min is None else recipe.min
    high = math.inf if recipe.max is None else recipe.max

    def read(value: Any) -> float:
        if value is None:
            return _when_missing(name, missing)
        if not isinstance(value, float):
            if not isinstance(value, int) or isinstance(value, bool):
                refuse(name, "type", f"must be a number, got {shown(value)}")
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
        if value != value:  # noqa: PLR0124 - NaN alone differs from itself
            if missing is None:
                refuse(name, "not_a_number", "must be a number, got NaN")
            return missing
        if math.isinf(value):
            refuse(name, "infinite", f"must be finite, got {value}")
        if not low <= value <= high:
            refuse(name, "range", f"must lie from {low} to {high}, got {value}")
        return float(value)

    return read


def _flag(name: str, recipe: FieldRecipe) -> Read:
    missing = number_or_none(recipe.missing)

    def read(value: Any) -> float:
        if value is None:
            return _when_missing(name, missing)
        return refuse(name, "type", f"must be true or false, got {shown(value)}")

    return read


def _category(name: str, recipe: FieldRecipe) -> Read:
    missing, unknown, codes = number_or_none(recipe.missing), number_or_none(recipe.unknown), recipe.codes

    def read(value: Any) -> float:
        if value is None:
            return _when_missing(name, missing)
        if not isinstance(value, str):
            refuse(name, "type", f"must be a string, got {shown(value)}")
        code = codes.get(value, unknown)
        if code is None:
            known = ", ".join(codes)[:200]
            refuse(name, "unknown_category", f"must be one of {known}; got {shown(value)}")
        return code

    return read


def _timestamp(name: str, recipe: FieldRecipe, zone: tzinfo) -> Read:
    required = recipe.missing == "error"

    def read(value: Any) -> datetime | None:
        if value is None:
            return _gone(name) if required else None
        try:
            if isinstance(value, str):
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is not None:
                    return moment.astimezone(zone)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                return datetime.fromtimestamp(value, zone)
        except (ValueError, OverflowError, OSError):
            pass
        why = "must be ISO 8601 with an offset, or seconds since 1970"
        return refuse(name, "timestamp", f"{why}, got {shown(value)}")

    return read


def _text(name: str, recipe: FieldRecipe) -> Read:
    required, longest = recipe.missing == "error", recipe.max_length

    def read(value: Any) -> str | None:
        if value is None:
            return _gone(name) if required else None
        if not isinstance(value, str):
            refuse(name, "type", f"must be a string, got {shown(value)}")
        if len(value) > longest:
            refuse(name, "length", f"must have at most {longest} characters, got {len(value)}")
        return str(value)

    return read


def _ip(name: str, recipe: FieldRecipe) -> Read:
    required = recipe.missing == "error"

    def read(value: Any) -> bytes | None:
        if value is None:
            return _gone(name) if required else None
        if not isinstance(value, str):
            refuse(name, "type", f"must be a string, got {shown(value)}")
        found = parse_address(value)
        if found is None:
            refuse(name, "address", f"must be an IPv4 or IPv6 address, got {shown(value)}")
        return found

    return read
