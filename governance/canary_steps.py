"""A canary's plan and its steps: the times in which it has one percentage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from psycopg.types.json import Jsonb

from governance.database import Connection
from governance.errors import PromotionRefusedError

Outcome = Literal["grew", "changed", "finished", "returned", "ended"]


@dataclass(frozen=True)
class Canary:
    """Which keys are given a canary, and how it grows.

    Attributes:
        percent: how many of a hundred, by a stable hash: keys that are in stay in when it grows.
        key: the field of the transaction whose value is the key; "" is its id.
        schedule: the percentages that it grows to by itself, one after another; empty: it grows by hand.
        step_s: seconds that each lasts at least.
        stays: whether it stays a canary after the last, instead of becoming current.

    Raises:
        PromotionRefusedError: no such percentage, or a schedule that does not grow.
    """

    percent: float
    key: str = ""
    schedule: tuple[float, ...] = ()
    step_s: float = 0.0
    stays: bool = False

    def __post_init__(self) -> None:
        for percent in (self.percent, *self.schedule):
            if not 0 <= percent <= 100:  # noqa: PLR2004 - percent
                raise PromotionRefusedError(f"{percent:g} is no percentage: 0 to 100 is")
        if list(self.schedule) != sorted(set(self.schedule)) or 0 in self.schedule:
            told = ", ".join(f"{percent:g}" for percent in self.schedule)
            raise PromotionRefusedError(f"a schedule grows, as 1, 5, 25, 100 does: {told} does not")

    def after(self, percent: float) -> float | None:
        """Return the percentage that follows; None after the last."""
        return next((one for one in self.schedule if one > percent), None)


def begin_step(
    connection: Connection, environment: str, number: int, percent: float, key: str | None = None
) -> None:
    """Give a canary to some keys from now on, in a transaction that holds the environment.

    Args:
        connection: to the database.
        environment: where.
        number: the canary's release.
        percent: of a hundred keys.
        key: the field whose value is the key; None for the one that it has.
    """
    # What was counted of canaries before this one decides nothing any more.
    connection.execute(
        "DELETE FROM canary_count WHERE environment = %s AND number <> %s", (environment, number)
    )
    connection.execute(
        "INSERT INTO canary_step (environment, number, step, percent)"
        " SELECT %(environment)s, %(number)s, 1 + coalesce(max(step), 0), %(percent)s"
        " FROM canary_step WHERE environment = %(environment)s AND number = %(number)s",
        {"environment": environment, "number": number, "percent": percent},
    )
    connection.execute(
        "UPDATE environment SET canary = %s, canary_percent = %s, canary_key = coalesce(%s, canary_key)"
        " WHERE name = %s",
        (number, percent, key, environment),
    )


def end_step(
    connection: Connection, environment: str, outcome: Outcome, figures: Mapping[str, Any] | None = None
) -> None:
    """End the step that goes on, if one does, with what was counted in it."""
    connection.execute(
        "UPDATE canary_step SET until = clock_timestamp(), outcome = %s, figures = coalesce(%s, figures)"
        " WHERE environment = %s AND until IS NULL",
        (outcome, None if figures is None else Jsonb(figures), environment),
    )


def note_figures(connection: Connection, environment: str, figures: Mapping[str, Any]) -> None:
    """Keep what was counted in the step that goes on."""
    connection.execute(
        "UPDATE canary_step SET figures = %s WHERE environment = %s AND until IS NULL",
        (Jsonb(figures), environment),
    )


def end_canary(
    connection: Connection,
    environment: str,
    *,
    outcome: Outcome = "ended",
    current: int | None = None,
    figures: Mapping[str, Any] | None = None,
) -> None:
    """Give the canary, if there is one, to nobody any more, in a transaction that holds the environment.

    Args:
        connection: to the database.
        environment: where.
        outcome: how its step ends.
        current: the release that becomes current; where that is the canary, its step ends as `finished`.
        figures: what was counted in its step.
    """
    row = connection.execute(
        "SELECT canary FROM environment WHERE name = %s AND canary IS NOT NULL", (environment,)
    ).fetchone()
    if row is None:
        return
    end_step(connection, environment, "finished" if row["canary"] == current else outcome, figures)
    connection.execute(
        "UPDATE environment SET canary = NULL, canary_percent = 0, canary_key = '' WHERE name = %s",
        (environment,),
    )


def steps(connection: Connection, environment: str, count: int = 20) -> list[dict[str, Any]]:
    """Return the latest steps of an environment's canaries, the newest first, each with its figures."""
    return connection.execute(
        "SELECT number, step, percent, since, until, outcome, figures FROM canary_step WHERE environment = %s"
        " ORDER BY number DESC, step DESC LIMIT %s",
        (environment, count),
    ).fetchall()
