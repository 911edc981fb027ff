"""Freezes: an environment takes no promotion until it is thawed; it can still be led back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from governance.audit import acting
from governance.database import Connection
from governance.errors import FrozenError, PromotionRefusedError


@dataclass(frozen=True)
class Freeze:
    """That an environment takes no promotion: since when, by whom, and why."""

    since: datetime
    by: str
    reason: str


def frozen(connection: Connection, environment: str) -> Freeze | None:
    """Return an environment's freeze, or None."""
    row = connection.execute(
        "SELECT frozen_at AS since, frozen_by AS by, frozen_reason AS reason FROM environment"
        " WHERE name = %s AND frozen_at IS NOT NULL",
        (environment,),
    ).fetchone()
    return Freeze(**row) if row else None


def freeze(connection: Connection, environment: str, *, by: str, reason: str) -> None:
    """Let an environment take no promotion until it is thawed; it can still be led back.

    Raises:
        PromotionRefusedError: no reason is given, or it is frozen already.
    """
    if not reason.strip():
        raise PromotionRefusedError("say why: whoever is refused will read it")
    with acting(connection, by, reason):
        connection.execute(
            "INSERT INTO environment (name) VALUES (%s) ON CONFLICT DO NOTHING", (environment,)
        )
        done = connection.execute(
            "UPDATE environment SET frozen_at = clock_timestamp(), frozen_by = %s, frozen_reason = %s"
            " WHERE name = %s AND frozen_at IS NULL",
            (by, reason, environment),
        )
        if not done.rowcount:
            raise PromotionRefusedError(f"{environment} is frozen already: see `run.py status`")


def thaw(connection: Connection, environment: str, *, by: str, reason: str = "") -> None:
    """Let an environment take promotions again.

    Raises:
        PromotionRefusedError: it is not frozen.
    """
    with acting(connection, by, reason):
        done = connection.execute(
            "UPDATE environment SET frozen_at = NULL, frozen_by = '', frozen_reason = ''"
            " WHERE name = %s AND frozen_at IS NOT NULL",
            (environment,),
        )
        if not done.rowcount:
            raise PromotionRefusedError(f"{environment} is not frozen")


def refuse_frozen(connection: Connection, environment: str) -> None:
    """Refuse a change of an environment that is frozen.

    Raises:
        FrozenError: says since when, by whom and why.
    """
    found = frozen(connection, environment)
    if found:
        since = f"{found.since:%Y-%m-%d %H:%M}"
        raise FrozenError(f"{environment} is frozen since {since} by {found.by}: {found.reason}")
