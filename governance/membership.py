"""Membership: the nodes of an environment, each by its own word, judged by the database's clock."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Final, Literal

from governance.database import CHANNEL, Connection
from governance.notify import notify

State = Literal["starting", "ready", "draining"]

#: Seconds after its last beat that a node counts as alive.
FRESH_S = 5.0
#: Seconds within which all that can come back after an outage have: twice the longest pause between two tries
#: and the time that a try may take.
RETURN_S = 10.0
#: Seconds after which the row of a dead node is taken away, by whoever joins next.
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


_COLUMNS: Final = ", ".join(field.name for field in fields(Member))


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
        there = connection.execute(
            "SELECT node_id, pid FROM member WHERE environment = %s AND host = %s", (environment, host)
        ).fetchall()
        dead = [row["node_id"] for row in there if not _runs(row["pid"])]
        # Who is first to be heard after a silence of all is as one that comes back; the dead tell since when.
        connection.execute(
            "INSERT INTO member (node_id, environment, role, host, pid, endpoints, state, release, health,"
            "  release_at, gone_at, back_at)"
            " SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), last,"
            "  CASE WHEN last IS NOT NULL THEN clock_timestamp() END"
            " FROM (SELECT CASE WHEN max(beat_at) < clock_timestamp() - make_interval(secs => %s)"
            "  THEN max(beat_at) END AS last FROM member WHERE environment = %s) silence"
            " ON CONFLICT (node_id) DO UPDATE SET beat_at = clock_timestamp()",
            (
                *(node_id, environment, role, host, pid, list(endpoints), state, release, health),
                *(FRESH_S, environment),
            ),
        )
        connection.execute("DELETE FROM member WHERE node_id = ANY (%s)", (dead,))
        connection.execute(
            "DELETE FROM member WHERE environment = %s AND NOT node_id = ANY (%s)"
            " AND beat_at < clock_timestamp() - make_interval(secs => %s)",
            (environment, list(awaited(connection, environment)), _FORGET_S),
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
        "  gone_at = CASE WHEN beat_at < clock_timestamp() - make_interval(secs => %(fresh_s)s)"
        "   THEN beat_at ELSE gone_at END,"
        "  back_at = CASE WHEN beat_at < clock_timestamp() - make_interval(secs => %(fresh_s)s)"
        "   THEN clock_timestamp() ELSE back_at END,"
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
            "fresh_s": FRESH_S,
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
        f"SELECT {_COLUMNS} FROM member WHERE environment = %s"  # noqa: S608 - names of this module's own
        " AND beat_at > clock_timestamp() - make_interval(secs => %s) ORDER BY node_id",
        (environment, fresh_s),
    ).fetchall()
    return tuple(Member(**{**row, "endpoints": tuple(row["endpoints"])}) for row in rows)


def awaited(connection: Connection, environment: str) -> dict[str, float]:
    """Return the nodes that must be ready before a release is current, and the seconds since their last sign.

    These are all that are fresh, and besides them those that may serve on out of the database's sight: nodes
    of a role of which nobody is heard (a release that no scorer holds could be served by none), and nodes
    that fell silent together with one that has come back of late, for as long as they may need for that.
    While nobody at all is heard, it is the database that was away, and nobody's silence grows.
    """
    rows = connection.execute(
        "WITH entered AS (SELECT *, max(beat_at) OVER () AS last,"
        "  beat_at > clock_timestamp() - make_interval(secs => %(fresh_s)s) AS fresh"
        "  FROM member WHERE environment = %(env)s AND state <> 'draining')"
        " SELECT node_id, extract(epoch FROM clock_timestamp() - beat_at)::double precision AS silent_s"
        " FROM entered m WHERE fresh"
        "  OR beat_at > last - make_interval(secs => %(forget_s)s)"
        "   AND NOT EXISTS (SELECT FROM entered o WHERE o.role = m.role AND o.fresh)"
        "  OR EXISTS (SELECT FROM entered o WHERE m.beat_at > o.gone_at - make_interval(secs => %(fresh_s)s)"
        "   AND o.back_at > clock_timestamp() - make_interval(secs => %(return_s)s))"
        " ORDER BY node_id",
        {"env": environment, "fresh_s": FRESH_S, "forget_s": _FORGET_S, "return_s": RETURN_S},
    ).fetchall()
    return {row["node_id"]: row["silent_s"] for row in rows}


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
