"""Rollouts: all nodes prepare a release, and only then is it current.

Nobody coordinates. The last word settles a rollout in its own transaction, and any node that looks settles
one whose deadline has passed; so nobody's death can block one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from governance.audit import acting
from governance.canary_steps import Canary, begin_step, end_canary, end_step
from governance.database import Connection
from governance.errors import UnknownRolloutError
from governance.membership import FRESH_S, awaited, members
from governance.notify import notify
from governance.releases import Release, releases

Kind = Literal["promotion", "rollback", "canary"]

_POLL_S = 0.01
#: Seconds that the nodes may take to act on a release that all have prepared.
TAKE_UP_S = 10.0


@dataclass(frozen=True)
class Rollout:
    """The way of an environment to a release.

    Attributes:
        id: its number.
        environment: where.
        release: the release that it leads to.
        state: `preparing`, then `active` or `abandoned` for good.
        reason: why it was abandoned.
        started_at: when it was promoted.
        deadline: when it is abandoned if it is still preparing.
        finished_at: when it was settled.
        started_by: who promoted, or led back.
        comment: why.
        kind: whether it leads to a new release, back to one that was active before, or to a canary, which is
            `active` when all nodes hold it.
        percent: of a canary, how many of a hundred keys are given it; None of others.
        key: of a canary, the field whose value is the key; "" is the transaction's id.
        schedule: of a canary, the percentages that it grows to; empty where it grows by hand.
        step_s: seconds that each of them lasts at least.
        stays: whether it stays a canary after the last, instead of becoming current.
        nodes: each node that must be ready, to whether it is; None while it has not said.
    """

    id: int
    environment: str
    release: Release
    state: Literal["preparing", "active", "abandoned"]
    reason: str
    started_at: datetime
    deadline: datetime
    finished_at: datetime | None
    started_by: str
    comment: str
    kind: Kind
    percent: float | None
    key: str
    schedule: tuple[float, ...]
    step_s: float
    stays: bool
    nodes: Mapping[str, bool | None]


def open_rollout(
    connection: Connection,
    environment: str,
    number: int,
    prepare_s: float,
    *,
    by: str,
    comment: str = "",
    kind: Kind = "promotion",
    canary: Canary | None = None,
) -> Rollout:
    """Open a rollout for all nodes that must be ready, and settle it if there are none.

    Call it in the transaction that holds the environment, and has written the release if it is new.
    """
    plan = canary or Canary(0)
    row = connection.execute(
        "INSERT INTO rollout (environment, number, deadline, started_by, comment, kind, percent, key,"
        " schedule, step_s, stays) VALUES (%s, %s, clock_timestamp() + make_interval(secs => %s), %s, %s, %s,"
        " %s, %s, %s, %s, %s) RETURNING id",
        (
            *(environment, number, prepare_s, by, comment, "canary" if canary else kind),
            *(plan.percent if canary else None, plan.key, list(plan.schedule), plan.step_s, plan.stays),
        ),
    ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of one inserted row
    return begin_rollout(connection, environment, row["id"])


def begin_rollout(connection: Connection, environment: str, rollout_id: int) -> Rollout:
    """Let a rollout that this transaction has written wait for the nodes that must be ready now."""
    connection.execute(
        "INSERT INTO rollout_node (rollout, node_id) SELECT %s, unnest(%s::text[])",
        (rollout_id, list(awaited(connection, environment))),
    )
    _settle(connection, rollout_id)
    notify(connection, environment)
    return rollout(connection, rollout_id)


def acknowledge(connection: Connection, rollout_id: int, node_id: str, *, ready: bool, reason: str) -> None:
    """Take a node's word that it has prepared the release, or refuses it; then settle the rollout."""
    with acting(connection, node_id, reason):
        _hold(connection, rollout_id)
        connection.execute(
            "INSERT INTO rollout_node (rollout, node_id, ready, reason, at)"
            " SELECT id, %(node)s, %(ready)s, %(reason)s, clock_timestamp() FROM rollout"
            " WHERE id = %(id)s AND state = 'preparing'"
            " ON CONFLICT (rollout, node_id) DO UPDATE"
            " SET ready = %(ready)s, reason = %(reason)s, at = EXCLUDED.at",
            {"id": rollout_id, "node": node_id, "ready": ready, "reason": reason},
        )
        _settle(connection, rollout_id)


def abandon(connection: Connection, rollout_id: int, reason: str) -> None:
    """Abandon a rollout that is preparing, in a transaction that holds its environment."""
    _hold(connection, rollout_id)
    row = connection.execute(
        "SELECT * FROM rollout WHERE id = %s AND state = 'preparing'", (rollout_id,)
    ).fetchone()
    if row:
        _finish(connection, row, "abandoned", reason)


def settle(connection: Connection, environment: str) -> None:
    """Settle the environment's rollout if it is due: all ready, one refused, or the deadline passed."""
    row = connection.execute(
        "SELECT id FROM rollout WHERE environment = %s AND state = 'preparing'",
        (environment,),
    ).fetchone()
    if row:
        with connection.transaction():
            _hold(connection, row["id"])
            _settle(connection, row["id"])


def rollout(connection: Connection, rollout_id: int) -> Rollout:
    """Return a rollout.

    Raises:
        UnknownRolloutError: there is none of that number.
    """
    row = connection.execute("SELECT * FROM rollout WHERE id = %s", (rollout_id,)).fetchone()
    if row is None:
        raise UnknownRolloutError(f"there is no rollout {rollout_id}")
    return _complete(connection, row)


def rollouts(connection: Connection, environment: str, count: int = 10) -> list[Rollout]:
    """Return the latest rollouts of an environment, the newest first."""
    rows = connection.execute(
        "SELECT * FROM rollout WHERE environment = %s ORDER BY id DESC LIMIT %s",
        (environment, count),
    ).fetchall()
    return [_complete(connection, row) for row in rows]


def wait_settled(connection: Connection, rollout_id: int, *, timeout_s: float = 60.0) -> Rollout:
    """Wait until a rollout is settled; return it as it is then, or when the time is over.

    Settles it itself when it is due, so that it ends even where no node is left to do so.
    """
    give_up_at = time.monotonic() + timeout_s
    while (found := rollout(connection, rollout_id)).state == "preparing" and time.monotonic() < give_up_at:
        settle(connection, found.environment)
        time.sleep(_POLL_S)
    return found


def wait_taken_up(connection: Connection, rollout: Rollout, *, timeout_s: float = TAKE_UP_S) -> float | None:
    """Wait until all live nodes act on an active rollout's release.

    Returns:
        milliseconds from the promotion to the last node, by the database's clock; None if it is not active,
        there are no nodes, or the time was over.
    """
    give_up_at = time.monotonic() + timeout_s
    while rollout.state == "active" and time.monotonic() < give_up_at:
        nodes = members(connection, rollout.environment)
        if nodes and all(node.release == rollout.release.number for node in nodes):
            since = max(node.release_at for node in nodes if node.release_at)
            return (since - rollout.started_at).total_seconds() * 1e3
        if not nodes:
            break
        time.sleep(_POLL_S)
    return None


def _hold(connection: Connection, rollout_id: int) -> None:
    # The environment first, as a promoter does, and the audit log's end last: no two wait for each other.
    connection.execute(
        "SELECT 1 FROM environment WHERE name = (SELECT environment FROM rollout WHERE id = %s) FOR UPDATE",
        (rollout_id,),
    )
    connection.execute("SELECT 1 FROM rollout WHERE id = %s FOR UPDATE", (rollout_id,))


def _settle(connection: Connection, rollout_id: int) -> None:
    """Settle a rollout that this transaction holds."""
    row = connection.execute(
        "SELECT *, deadline < clock_timestamp() AS late FROM rollout WHERE id = %s AND state = 'preparing'",
        (rollout_id,),
    ).fetchone()
    if row is None:
        return
    # A node that left, or that nobody need wait for any longer, is left out; what it refused still counts.
    nodes = connection.execute(
        "SELECT node_id, ready, reason FROM rollout_node WHERE rollout = %s ORDER BY node_id", (rollout_id,)
    ).fetchall()
    lives = awaited(connection, row["environment"])
    refused = [f"{node['node_id']}: {node['reason']}" for node in nodes if node["ready"] is False]
    waiting = [node["node_id"] for node in nodes if node["ready"] is None and node["node_id"] in lives]
    if refused:
        _finish(connection, row, "abandoned", "refused by " + "; ".join(refused))
    elif not waiting:
        _finish(connection, row, "active", "")
    elif row["late"]:
        missing = [f"{node_id}{_silence(lives[node_id])}" for node_id in waiting]
        _finish(connection, row, "abandoned", "not ready by the deadline: " + ", ".join(missing))


def _silence(silent_s: float) -> str:
    if silent_s <= FRESH_S:
        return ""
    return f" (not heard of for {silent_s:.0f} s; it may serve on without the database)"


def _finish(connection: Connection, row: dict[str, Any], state: str, reason: str) -> None:
    connection.execute(
        "UPDATE rollout SET state = %s, reason = %s, finished_at = clock_timestamp() WHERE id = %s",
        (state, reason, row["id"]),
    )
    if state == "active" and row["kind"] == "canary":
        end_step(connection, row["environment"], "ended")
        begin_step(connection, row["environment"], row["number"], row["percent"], row["key"])
    elif state == "active":
        # Whatever becomes current ends the canary: that was measured against what is no longer.
        end_canary(connection, row["environment"], current=row["number"])
        connection.execute(
            "UPDATE environment SET current = %s WHERE name = %s", (row["number"], row["environment"])
        )
    notify(connection, row["environment"])


def _complete(connection: Connection, row: dict[str, Any]) -> Rollout:
    nodes = connection.execute(
        "SELECT node_id, ready FROM rollout_node WHERE rollout = %s ORDER BY node_id",
        (row["id"],),
    ).fetchall()
    release = releases(connection, row["environment"], [row.pop("number")])[0]
    row["schedule"] = tuple(row["schedule"])
    return Rollout(**row, release=release, nodes={node["node_id"]: node["ready"] for node in nodes})
