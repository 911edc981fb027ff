"""Turns the recipe of a feature spec into closures, once, so that no transaction waits for the recipe."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from models.spec_errors import TransactionError
from models.spec_schema import FeatureRecipe, FieldRecipe

#: Reads one field of a transaction: a float, or a datetime for a timestamp.
Read = Callable[[Mapping[str, Any]], Any]
#: Computes one feature from the fields that were read.
Compute = Callable[[Sequence[Any]], float]

_SATURDAY = 5
_NIGHT_BEGINS, _NIGHT_ENDS = 22, 6
_SHOWN = 60


def compile_field(name: str, recipe: FieldRecipe, timezone: str) -> Read:
    """Return what reads and checks a field."""
    if recipe.type == "timestamp":
        return _timestamp(name, UTC if timezone == "UTC" else ZoneInfo(timezone))
    missing = None if recipe.missing == "error" else float(recipe.missing)
    if recipe.type == "number":
        low = -math.inf if recipe.min is None else recipe.min
        high = math.inf if recipe.max is None else recipe.max
        return _number(name, missing, low, high)
    if recipe.type == "flag":
        return _flag(name, missing)
    unknown = None if recipe.unknown == "error" else float(recipe.unknown)
    codes = {category: float(code) for code, category in enumerate(recipe.categories)}
    return _category(name, missing, unknown, codes)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _when_missing(name: str, missing: float | None) -> float:
    if missing is None:
        raise TransactionError(name, "missing", "is required, and is missing")
    return missing


def _number(name: str, missing: float | None, low: float, high: float) -> Read:
    def read(transaction: Mapping[str, Any]) -> float:
        value = transaction.get(name)
        if value is None:
            return _when_missing(name, missing)
        if not isinstance(value, float):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TransactionError(name, "type", f"must be a number, got {_shown(value)}")
            try:
                value = float(value)
            except OverflowError:
                value = math.inf
        if value != value:  # noqa: PLR0124 - NaN alone differs from itself
            if missing is None:
                raise TransactionError(name, "not_a_number", "must be a number, got NaN")
            return missing
        if not low <= value <= high or value in (math.inf, -math.inf):
            raise _out_of_range(value)
        return value

    def _out_of_range(value: float) -> TransactionError:
        if math.isinf(value):
            return TransactionError(name, "infinite", f"must be finite, got {value}")
        return TransactionError(name, "range", f"must lie from {low} to {high}, got {value}")

    return read


def _flag(name: str, missing: float | None) -> Read:
    def read(transaction: Mapping[str, Any]) -> float:
        value = transaction.get(name)
        if value is None:
            return _when_missing(name, missing)
        if value is True:
            return 1.0
        if value is False:
            return 0.0
        raise TransactionError(name, "type", f"must be true or false, got {_shown(value)}")

    return read


def _category(name: str, missing: float | None, unknown: float | None, codes: Mapping[str, float]) -> Read:
    def read(transaction: Mapping[str, Any]) -> float:
        value = transaction.get(name)
        if value is None:
            return _when_missing(name, missing)
        if not isinstance(value, str):
            raise TransactionError(name, "type", f"must be a string, got {_shown(value)}")
        code = codes.get(value, unknown)
        if code is None:
            known = ", ".join(codes)[:200]
            raise TransactionError(name, "unknown_category", f"must be one of {known}; got {_shown(value)}")
        return code

    return read


def _timestamp(name: str, timezone: Any) -> Read:
    def read(transaction: Mapping[str, Any]) -> datetime:
        value = transaction.get(name)
        if value is None:
            raise TransactionError(name, "missing", "is required, and is missing")
        try:
            if isinstance(value, str):
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is not None:
                    return moment.astimezone(timezone)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                return datetime.fromtimestamp(value, timezone)
        except (ValueError, OverflowError, OSError):
            pass
        raise TransactionError(
            name,
            "timestamp",
            f"must be ISO 8601 with an offset, or seconds since 1970, got {_shown(value)}",
        )

    return read


_OF_NUMBER: Mapping[str, Callable[[float], float]] = {
    "numeric": float,
    "category": float,
    "flag": float,
}
_OF_TIMESTAMP: Mapping[str, Callable[[datetime], float]] = {
    "hour": lambda moment: moment.hour,
    "weekday": datetime.weekday,
    "day": lambda moment: moment.day,
    "month": lambda moment: moment.month,
    "is_weekend": lambda moment: moment.weekday() >= _SATURDAY,
    "is_night": lambda moment: moment.hour >= _NIGHT_BEGINS or moment.hour < _NIGHT_ENDS,
}


def compile_feature(recipe: FeatureRecipe, places: Mapping[str, int]) -> Compute:
    """Return what computes a feature; `places` says where each field's value stands."""
    place = places[recipe.field]
    if recipe.by is not None:
        return _of_two(recipe, place, places[recipe.by])
    if recipe.kind == "log1p":
        return _log1p(recipe.field, place)
    compute = _OF_TIMESTAMP.get(recipe.kind) or _OF_NUMBER[recipe.kind]
    return lambda fields: compute(fields[place])


def _log1p(field: str, place: int) -> Compute:
    def compute(fields: Sequence[Any]) -> float:
        value = fields[place]
        if value <= -1.0:
            raise TransactionError(field, "range", f"must be above -1 for its logarithm, got {value}")
        return math.log1p(value)

    return compute


def _of_two(recipe: FeatureRecipe, place: int, by: int) -> Compute:
    if recipe.kind == "difference":
        return lambda fields: fields[place] - fields[by]
    zero = float(recipe.zero)
    return lambda fields: fields[place] / fields[by] if fields[by] else zero
