"""The nodes of the stream: tees and sinks, each by its own word. No release waits for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from governance.database import Connection

#: Seconds after its last word that a node counts as alive, and that its row stays.
FRESH_S, _FORGET_S = 10.0, 86_400.0


@dataclass(frozen=True)
class StreamNode:
    """A tee or a sink, as it says of itself.

    Attributes:
        node_id: its name, for one life of its process.
        environment: the environment that it serves.
        role: `tee` or `sink`.
        host: where it runs.
        pid: its process there.
        joined_at: when it first gave a sign.
        beat_at: when it last did.
        counters: counter to number, in this life.
    """

    node_id: str
    environment: str
    role: str
    host: str
    pid: int
    joined_at: datetime
    beat_at: datetime
    counters: Mapping[str, float]


def tell(
    connection: Connection,
    node_id: str,
    *,
    environment: str,
    role: str,
    host: str,
    pid: int,
    counters: Mapping[str, float],
) -> None:
    """Give a sign of life, with what was counted."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO stream_node (node_id, environment, role, host, pid, counters)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (node_id) DO UPDATE SET beat_at = clock_timestamp(), counters = EXCLUDED.counters",
            (node_id, environment, role, host, pid, Jsonb(dict(counters))),
        )
        connection.execute(
            "DELETE FROM stream_node WHERE beat_at < clock_timestamp() - make_interval(secs => %s)",
            (_FORGET_S,),
        )


def leave(connection: Connection, node_id: str) -> None:
    """Take a node out."""
    connection.execute("DELETE FROM stream_node WHERE node_id = %s", (node_id,))


def stream_nodes(
    connection: Connection, environment: str, *, fresh_s: float = FRESH_S
) -> tuple[StreamNode, ...]:
    """Return the nodes that gave a sign of life of late, by name."""
    rows = connection.execute(
        "SELECT * FROM stream_node WHERE environment = %s"
        " AND beat_at > clock_timestamp() - make_interval(secs => %s) ORDER BY node_id",
        (environment, fresh_s),
    ).fetchall()
    return tuple(StreamNode(**row) for row in rows)
