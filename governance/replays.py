"""Replays: the past of an environment, cut into parts, which a shadow evaluates on whatever node is free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.types.json import Jsonb

from governance.audit import acting
from governance.database import Connection
from governance.errors import ShadowRefusedError
from governance.notify import notify
from governance.shadows import OPEN, Shadow

Source = Literal["kafka", "database", "parquet"]

#: Seconds after its last sign that a node counts as dead, and its part is another's to take.
SILENT_S = 20.0


@dataclass(frozen=True)
class Part:
    """A part of a replay, as whoever took it has it.

    Attributes:
        replay: the replay's number.
        number: its own there.
        shadow: the shadow that evaluates it.
        source: what it is read from.
        since: answers from this moment on,
        until: and before this one.
        place: where it is, as the source has it.
    """

    replay: int
    number: int
    shadow: Shadow
    source: Source
    since: datetime
    until: datetime
    place: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """How far a replay is.

    Attributes:
        parts: how many it has.
        done: how many are done.
        failed: how many failed.
        read: records that were read.
        fresh: results that were not there before.
        reason: why the first of the failed ones did.
    """

    parts: int
    done: int
    failed: int
    read: int
    fresh: int
    reason: str

    @property
    def over(self) -> bool:
        """Whether nothing of it is left to do."""
        return self.done + self.failed == self.parts


def ask(
    connection: Connection,
    shadow: Shadow,
    source: Source,
    since: datetime,
    until: datetime,
    places: Sequence[Mapping[str, Any]],
    *,
    by: str,
) -> int:
    """Ask for a replay; return its number.

    Raises:
        ShadowRefusedError: the shadow is over, or there is nothing to read.
    """
    if shadow.state not in OPEN:
        raise ShadowRefusedError(f"shadow {shadow.name} is {shadow.state}: it evaluates nothing any more")
    if not places:
        raise ShadowRefusedError(f"there is nothing from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M}")
    with acting(connection, by, f"replay for shadow {shadow.name}"):
        row = connection.execute(
            "INSERT INTO shadow_replay (environment, shadow, source, since, until, asked_by)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            (shadow.environment, shadow.id, source, since, until, by),
        ).fetchone()
        assert row is not None  # noqa: S101 - RETURNING of one inserted row
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO shadow_replay_part (replay, number, place) VALUES (%s, %s, %s)",
                [(row["id"], number, Jsonb(dict(place))) for number, place in enumerate(places)],
            )
        notify(connection, shadow.environment)
    return int(row["id"])


def claim(
    connection: Connection, environment: str, node_id: str, *, replay: int | None = None
) -> Part | None:
    """Take a part that nobody works on; None if there is none.

    Args:
        connection: to the database.
        environment: whose replays.
        node_id: who takes it.
        replay: of which; None for any whose source every host reaches, which files are not.
    """
    row = connection.execute(
        "UPDATE shadow_replay_part p SET state = 'taken', node_id = %(node)s, beat_at = clock_timestamp()"
        " WHERE (replay, number) = (SELECT replay, number FROM shadow_replay_part q"
        "  JOIN shadow_replay r ON r.id = q.replay"
        "  WHERE r.environment = %(environment)s AND (q.state = 'waiting' OR (q.state = 'taken'"
        "    AND q.beat_at < clock_timestamp() - make_interval(secs => %(silent)s)))"
        "   AND CASE WHEN %(replay)s::bigint IS NULL THEN r.source <> 'parquet' ELSE r.id = %(replay)s END"
        "  ORDER BY replay, number LIMIT 1 FOR UPDATE OF q SKIP LOCKED)"
        " RETURNING replay, number, place",
        {"node": node_id, "environment": environment, "silent": SILENT_S, "replay": replay},
    ).fetchone()
    if row is None:
        return None
    asked = connection.execute(
        "SELECT source, since, until, shadow FROM shadow_replay WHERE id = %s", (row["replay"],)
    ).fetchone()
    assert asked is not None  # noqa: S101 - its part refers to it
    found = connection.execute("SELECT * FROM shadow WHERE id = %s", (asked.pop("shadow"),)).fetchone()
    assert found is not None  # noqa: S101 - the replay refers to it
    return Part(**row, **asked, shadow=Shadow(**found))


def beat(connection: Connection, part: Part, node_id: str, read: int, fresh: int) -> bool:
    """Give a sign of life, and say how far it is; False if the part is another's by now."""
    done = connection.execute(
        "UPDATE shadow_replay_part SET beat_at = clock_timestamp(), read = %s, fresh = %s"
        " WHERE replay = %s AND number = %s AND node_id = %s AND state = 'taken'",
        (read, fresh, part.replay, part.number, node_id),
    )
    return bool(done.rowcount)


def finish(connection: Connection, part: Part, node_id: str, reason: str = "") -> None:
    """Say that a part is done; or, with a reason, that it and all that is left of its replay failed."""
    if not reason:
        connection.execute(
            "UPDATE shadow_replay_part SET state = 'done' WHERE replay = %s AND number = %s AND node_id = %s"
            " AND state = 'taken'",
            (part.replay, part.number, node_id),
        )
        return
    connection.execute(
        "UPDATE shadow_replay_part SET state = 'failed', reason = %s, node_id = coalesce(node_id, %s)"
        " WHERE replay = %s AND state IN ('waiting', 'taken')",
        (reason, node_id, part.replay),
    )


def progress(connection: Connection, replay: int) -> Progress:
    """Return how far a replay is."""
    row = connection.execute(
        "SELECT count(*) AS parts, count(*) FILTER (WHERE state = 'done') AS done,"
        " count(*) FILTER (WHERE state = 'failed') AS failed, coalesce(sum(read), 0)::bigint AS read,"
        " coalesce(sum(fresh), 0)::bigint AS fresh,"
        " coalesce(min(reason) FILTER (WHERE state = 'failed'), '') AS reason"
        " FROM shadow_replay_part WHERE replay = %s",
        (replay,),
    ).fetchone()
    assert row is not None  # noqa: S101 - it has no GROUP BY
    return Progress(**row)
