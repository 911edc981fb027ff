"""Membership: the nodes of an environment, each by its own word, judged by the database's clock."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from governance.database import CHANNEL, Connection
from governance.notify import notify

State = Literal["starting", "ready", "draining"]

#: Seconds after its last beat that a node counts as alive.
FRESH_S = 5.0
#: Seconds after which the row of a dead node is taken away, by whoever beats next.
_FORGET_S = 300.0


@dataclass(frozen=True)
class Member:
    """A node, as it says of itself.

    Attributes:
        node_id: its name, for one life of its process.
        environment: the environment that it serves.
        role: what it does.
        host: where it runs.
        pid: its process there.
        endpoints: where its actors listen.
        state: `starting` until it holds the current release, then `ready`; `draining` when it leaves.
        release: the release that it acts on, or None.
        release_at: since when.
        joined_at: when it joined.
        beat_at: when it last gave a sign.
        health: where it says whether it is ready, as host:port; "" if it does not.
    """

    node_id: str
    environment: str
    role: str
    host: str
    pid: int
    endpoints: tuple[str, ...]
    state: State
    release: int | None
    release_at: datetime | None
    joined_at: datetime
    beat_at: datetime
    health: str = ""


def join(
    connection: Connection,
    *,
    node_id: str,
    environment: str,
    role: str,
    host: str,
    pid: int,
    endpoints: tuple[str, ...] = (),
    state: State = "starting",
    release: int | None = None,
    health: str = "",
) -> None:
    """Enter a node, or enter it again; take out those of this host whose process is gone.

    A node that was killed cannot leave by itself, and a rollout would wait for its beat to grow old. Should
    another host bear the same name, a node of it that is taken out in error enters again with its next beat.
    """
    with connection.transaction():
        dead = [
            node for node in members(connection, environment) if node.host == host and not _runs(node.pid)
        ]
        connection.execute("DELETE FROM member WHERE node_id = ANY (%s)", ([node.node_id for node in dead],))
        connection.execute(
            "INSERT INTO member"
            " (node_id, environment, role, host, pid, endpoints, state, release, health, release_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp())"
            " ON CONFLICT (node_id) DO UPDATE SET beat_at = clock_timestamp()",
            (node_id, environment, role, host, pid, list(endpoints), state, release, health),
        )
        connection.execute(
            "DELETE FROM member WHERE beat_at < clock_timestamp() - make_interval(secs => %s)",
            (_FORGET_S,),
        )
        notify(connection, environment)


def beat(
    connection: Connection,
    node_id: str,
    *,
    state: State,
    release: int | None,
    endpoints: tuple[str, ...],
    health: str = "",
) -> bool:
    """Give a sign of life; others are told only if something changed. False if the node is not entered.

    It is one statement: a node that is cut off meanwhile leaves no lock that its next beat would wait for.
    """
    row = connection.execute(
        "WITH before AS (SELECT environment, state, endpoints, health FROM member WHERE node_id = %(node)s),"
        " after AS (UPDATE member SET beat_at = clock_timestamp(), state = %(state)s,"
        "  endpoints = %(endpoints)s, health = %(health)s,"
        "  release_at = CASE WHEN release IS DISTINCT FROM %(release)s::integer"
        "   THEN clock_timestamp() ELSE release_at END,"
        "  release = %(release)s WHERE node_id = %(node)s"
        "  RETURNING environment, state, endpoints, health)"
        " SELECT CASE WHEN before IS DISTINCT FROM after THEN"
        "  pg_notify(%(channel)s, json_build_object('environment', after.environment)::text) END"
        " FROM after, before",
        {
            "state": state,
            "endpoints": list(endpoints),
            "release": release,
            "node": node_id,
            "health": health,
            "channel": CHANNEL,
        },
    ).fetchone()
    return row is not None


def leave(connection: Connection, node_id: str) -> None:
    """Take a node out: nobody waits for it or calls it any more."""
    with connection.transaction():
        row = connection.execute(
            "DELETE FROM member WHERE node_id = %s RETURNING environment",
            (node_id,),
        ).fetchone()
        if row:
            notify(connection, row["environment"])


def members(connection: Connection, environment: str, *, fresh_s: float = FRESH_S) -> tuple[Member, ...]:
    """Return the nodes that gave a sign of life of late, by name."""
    rows = connection.execute(
        "SELECT * FROM member WHERE environment = %s"
        " AND beat_at > clock_timestamp() - make_interval(secs => %s) ORDER BY node_id",
        (environment, fresh_s),
    ).fetchall()
    return tuple(Member(**{**row, "endpoints": tuple(row["endpoints"])}) for row in rows)


def with_silence(connection: Connection, environment: str) -> list[tuple[Member, float | None]]:
    """Return the nodes that are entered, those included that fell silent of late and did not leave.

    Returns:
        each node, with the seconds since its last sign by the database's clock; None while it is alive. One
        that is silent may serve on without the database, or be dead.
    """
    row = connection.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None  # noqa: S101 - it has no FROM
    found = []
    for member in members(connection, environment, fresh_s=_FORGET_S):
        silent_s = (row["now"] - member.beat_at).total_seconds()
        found.append((member, silent_s if silent_s > FRESH_S else None))
    return found


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    return True
