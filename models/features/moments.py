"""Kinds of dates and times, in any time zone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import Field, model_validator

from models.features.fields import zone_of
from models.features.kind import MOMENTS, NAN, Column, Elementwise, Kind, OddError, Type, Writer, refuse
from models.spec_errors import TransactionError

_SATURDAY = 5
_NIGHT_BEGINS, _NIGHT_ENDS = 22, 6
_WEEKEND = tuple(float(day >= _SATURDAY) for day in range(7))
_NIGHT = tuple(float(hour >= _NIGHT_BEGINS or hour < _NIGHT_ENDS) for hour in range(24))
_COUNT = tuple(map(float, range(367)))
_QUARTER = (NAN, *(float((month + 2) // 3) for month in range(1, 13)))

#: Each part: what it is asked of a datetime (a method has parentheses), and the number of each answer.
_PARTS: Mapping[str, tuple[str, Sequence[float]]] = {
    "hour": ("hour", _COUNT),
    "minute": ("minute", _COUNT),
    "second": ("second", _COUNT),
    "day": ("day", _COUNT),
    "month": ("month", _COUNT),
    "quarter": ("month", _QUARTER),
    "weekday": ("weekday()", _COUNT),
    "is_weekend": ("weekday()", _WEEKEND),
    "is_night": ("hour", _NIGHT),
}


def check_zone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        ValueError: there is none of that name.
    """
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone, such as UTC or Europe/Paris") from error
    return name


class Local(Kind):
    """A moment on the clock of another time zone."""

    kind: Literal["local"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (MOMENTS,)
    makes: ClassVar[Type] = "timestamp"
    timezone: str

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        check_zone(self.timezone)
        return self

    def _function(self, label: str) -> Callable[[datetime | None], datetime | None]:
        zone = zone_of(self.timezone)

        def local(moment: datetime | None) -> datetime | None:
            try:
                return None if moment is None else moment.astimezone(zone)
            except (ValueError, OverflowError):
                return refuse(label, "timestamp", f"is too far away for {self.timezone}")

        return local

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Call the function."""
        return f"{out.bind(self._function(label))}({args[0]})"

    def batch(self, args: Sequence[Column]) -> Column:
        """Call it for each."""
        try:
            return list(map(self._function(""), args[0]))
        except TransactionError as error:
            raise OddError from error


class Part(Kind):
    """A part of a date or time as the clocks of the spec's time zone show it, or of another one."""

    kind: Literal[
        "hour", "minute", "second", "day", "month", "quarter", "weekday", "is_weekend", "is_night",
    ]  # fmt: skip
    takes: ClassVar[tuple[frozenset[Type], ...]] = (MOMENTS,)

    def write(self, out: Writer, args: Sequence[str], label: str) -> str:
        """Ask the moment, and look the number up."""
        del label
        asked, numbers = _PARTS[self.kind]
        return f"{out.bind(numbers)}[{args[0]}.{asked}] if {args[0]} is not None else {out.bind(NAN)}"

    def batch(self, args: Sequence[Column]) -> Column:
        """Ask each."""
        asked, numbers = _PARTS[self.kind]
        ask: Callable[[Any], int]
        ask = datetime.weekday if asked.endswith("()") else operator.attrgetter(asked)
        found = [NAN if moment is None else numbers[ask(moment)] for moment in args[0]]
        return np.array(found, np.float64)


class Calendar(Elementwise):
    """A number of a date: its year, day of the year, ISO week, or seconds since 1970."""

    kind: Literal["year", "day_of_year", "week", "unix"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (MOMENTS,)

    def function(self) -> Callable[[datetime | None], float]:
        """Ask the calendar."""
        ask = _CALENDAR[self.kind]
        return lambda moment: NAN if moment is None else float(ask(moment))


_CALENDAR: Mapping[str, Callable[[datetime], float]] = {
    "year": lambda moment: moment.year,
    "day_of_year": lambda moment: moment.timetuple().tm_yday,
    "week": lambda moment: moment.isocalendar().week,
    "unix": datetime.timestamp,
}


class OnDates(Elementwise):
    """1 on some days (holidays, for instance), 0 on others."""

    kind: Literal["on_dates"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (MOMENTS,)
    dates: Annotated[tuple[str, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _are_dates(self) -> Self:
        self._days()
        return self

    def _days(self) -> frozenset[Any]:
        return frozenset(datetime.fromisoformat(text).date() for text in self.dates)

    def function(self) -> Callable[[datetime | None], float]:
        """Look the day up."""
        days = self._days()
        return lambda moment: NAN if moment is None else 1.0 if moment.date() in days else 0.0


class Elapsed(Elementwise):
    """Seconds from the second moment (`by`) to the first."""

    kind: Literal["elapsed"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (MOMENTS, MOMENTS)

    def function(self) -> Callable[[datetime | None, datetime | None], float]:
        """Subtract moments, whatever their zones."""
        return _elapsed


def _elapsed(until: datetime | None, since: datetime | None) -> float:
    if until is None or since is None:
        return NAN
    # Two moments of one zone would be subtracted as clocks show them, an hour off where those were set.
    return until.timestamp() - since.timestamp()
