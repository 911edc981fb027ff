"""Canaries: a release that all nodes hold, given to some keys beside the current one."""

from __future__ import annotations

from typing import Any

from governance.audit import acting
from governance.canary_steps import Canary, begin_step, end_canary, end_step
from governance.database import Connection
from governance.errors import PromotionRefusedError
from governance.freezes import refuse_frozen
from governance.notify import notify
from governance.rollouts import Rollout, open_rollout

__all__ = ["Canary", "canary", "finish", "set_percent", "stop"]


def canary(connection: Connection, environment: str) -> dict[str, Any] | None:
    """Return an environment's canary: its release, percent and key; or None."""
    return connection.execute(
        "SELECT canary AS release, canary_percent AS percent, canary_key AS key FROM environment"
        " WHERE name = %s AND canary IS NOT NULL",
        (environment,),
    ).fetchone()


def set_percent(connection: Connection, environment: str, percent: float, *, by: str, reason: str) -> None:
    """Give the canary to more keys, or to fewer; 0 leaves it to callers who name its release.

    A schedule goes on from there, but not from 0.

    Raises:
        PromotionRefusedError: there is no canary, or no such percentage.
        FrozenError: the environment is frozen; taking all keys away is still possible.
    """
    wanted = Canary(percent)
    with acting(connection, by, reason):
        number = _held(connection, environment)
        if wanted.percent:
            refuse_frozen(connection, environment)
        end_step(connection, environment, "changed")
        begin_step(connection, environment, number, wanted.percent)
        notify(connection, environment)


def finish(connection: Connection, environment: str, *, by: str, reason: str, prepare_s: float) -> Rollout:
    """Make the canary the current release, for all keys. Its gates were passed when it was promoted.

    Raises:
        PromotionRefusedError: there is no canary, or another rollout is under way.
        FrozenError: the environment is frozen.
    """
    with acting(connection, by, reason):
        number = _held(connection, environment)
        refuse_frozen(connection, environment)
        busy = connection.execute(
            "SELECT 1 FROM rollout WHERE environment = %s AND state = 'preparing'", (environment,)
        ).fetchone()
        if busy:
            raise PromotionRefusedError(f"{environment} has a rollout under way: wait for it")
        return open_rollout(connection, environment, number, prepare_s, by=by, comment=reason)


def stop(connection: Connection, environment: str, *, by: str, reason: str) -> int:
    """Give the canary to nobody any more, and let nodes drop it; return its number.

    Raises:
        PromotionRefusedError: there is no canary.
    """
    with acting(connection, by, reason):
        number = _held(connection, environment)
        end_canary(connection, environment)
        notify(connection, environment)
    return number


def _held(connection: Connection, environment: str) -> int:
    """Hold the environment, and return its canary."""
    row = connection.execute(
        "SELECT canary FROM environment WHERE name = %s FOR UPDATE", (environment,)
    ).fetchone()
    if row is None or row["canary"] is None:
        raise PromotionRefusedError(f"{environment} has no canary: `run.py promote --canary 5` starts one")
    return int(row["canary"])
