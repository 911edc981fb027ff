"""What a report reads: a fixed number of queries, and rows whose number has a bound, of one moment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg.pq import TransactionStatus

from governance.database import Connection
from shadow.errors import ReportError
from shadow.pairs import Bounds, LabelledPairs, Pairs, read_labelled, read_pairs
from shadow.result import rank_of, sampled
from shadow.summaries import read_summary
from shadow.summary import Document
from shadow.summary_parts import microseconds


@dataclass(frozen=True)
class Coverage:
    """Whether live transactions have a result.

    Attributes:
        looked_at: how many live transactions of the shadow's time were looked at, by chance.
        expected: those of them that its sample holds.
        found: those of these that have a result.
    """

    looked_at: int
    expected: int
    found: int


@dataclass(frozen=True)
class Reading:
    """All that a report is made of.

    Attributes:
        at: the database's time.
        shadow: the row of the table shadow.
        summary: what all results come to.
        pairs: the sample.
        labelled: the labelled ones.
        coverage: of live transactions; None where no sink stores them.
        progress: rows of the table shadow_progress.
        nodes: rows of the table shadow_node.
    """

    at: datetime
    shadow: Mapping[str, Any]
    summary: Document
    pairs: Pairs
    labelled: LabelledPairs
    coverage: Coverage | None
    progress: Sequence[Mapping[str, Any]]
    nodes: Sequence[Mapping[str, Any]]


@contextmanager
def one_moment(connection: Connection) -> Iterator[None]:
    """Have all queries see the database as of one moment, unless the caller's transaction does already."""
    ours = connection.info.transaction_status == TransactionStatus.IDLE
    with connection.transaction():
        if ours:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def find_shadow(connection: Connection, environment: str, name: str) -> int:
    """Return the number of a shadow: the one that is under way, or the last one of the name.

    Raises:
        ReportError: there is none; names those that are.
    """
    rows = connection.execute(
        "SELECT id, name FROM shadow WHERE environment = %s"
        " ORDER BY state IN ('running', 'suspended', 'stopped') DESC, id DESC",
        (environment,),
    ).fetchall()
    for row in rows:
        if row["name"] == name:
            return int(row["id"])
    known = ", ".join(dict.fromkeys(row["name"] for row in rows)) or "none"
    raise ReportError(
        f"there is no shadow {name!r} in {environment} (there are: {known}): `run.py shadow start` starts one"
    )


def read(connection: Connection, shadow: int, bounds: Bounds) -> Reading:
    """Read all that a report on a shadow is made of.

    Raises:
        ReportError: there is no such shadow.
        SummaryError: another version wrote its summaries.
    """
    with one_moment(connection):
        row = connection.execute("SELECT *, now() AS read_at FROM shadow WHERE id = %s", (shadow,)).fetchone()
        if row is None:
            raise ReportError(f"there is no shadow of the number {shadow}: `run.py shadow list` tells them")
        environment = row["environment"]
        summary = read_summary(connection, shadow)
        progress = connection.execute(
            "SELECT partition, position, high, behind_s, extract(epoch FROM now() - at)::float8 AS age_s"
            " FROM shadow_progress WHERE environment = %s ORDER BY partition LIMIT 1000",
            (environment,),
        ).fetchall()
        behind_s = max((place["behind_s"] for place in progress), default=0.0)
        return Reading(
            at=row["read_at"],
            shadow=row,
            summary=summary,
            pairs=read_pairs(connection, shadow, None, bounds),
            labelled=read_labelled(connection, environment, shadow, None, bounds, total=summary["n"]),
            coverage=_coverage(connection, row, summary, bounds, behind_s),
            progress=progress,
            nodes=connection.execute(
                "SELECT node_id, host, extract(epoch FROM now() - beat_at)::float8 AS age_s, counters,"
                " shadows -> %s AS mine FROM shadow_node WHERE environment = %s"
                " ORDER BY beat_at DESC LIMIT 100",
                (str(shadow), environment),
            ).fetchall(),
        )


#: Bytes that a stored transaction has at least, with what surrounds it: what bounds how many are drawn.
_BYTES: Final = 400


def _coverage(
    connection: Connection, shadow: Mapping[str, Any], summary: Document, bounds: Bounds, behind_s: float
) -> Coverage | None:
    """Look live transactions of the shadow's time up among its results.

    Blocks are drawn by chance, as many as hold about enough rows, since looking through all would cost more
    with every day. What a replay brought from before the shadow's start counts where there is nothing else,
    and what the slowest partition has not come to yet does not count: that is lag.
    """
    first, last = _time_of(shadow, summary, behind_s)
    size = connection.execute(
        "SELECT coalesce(sum(pg_relation_size(c.oid)), 0)::float8 AS bytes"
        " FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = to_regclass(quote_ident(transaction_table(%s)))"
        " AND right(c.relname, 8) BETWEEN to_char(to_timestamp(%s / 1e6) AT TIME ZONE 'UTC', 'YYYYMMDD')"
        " AND to_char(to_timestamp(%s / 1e6) AT TIME ZONE 'UTC', 'YYYYMMDD')",
        (shadow["environment"], first, last),
    ).fetchone()
    percent = min(100.0, 100.0 * bounds.live * _BYTES / max(size["bytes"] if size else 0.0, 1.0))
    rows = connection.execute(
        "SELECT t.id, r.transaction_id IS NOT NULL AS found FROM ("
        "  SELECT DISTINCT id FROM (SELECT id FROM transaction"
        # Not repeatable: that would draw the same blocks of each day.
        "   TABLESAMPLE SYSTEM (%(percent)s)"
        "   WHERE environment = %(environment)s AND at >= to_timestamp(%(first)s / 1e6)"
        "   AND at <= to_timestamp(%(last)s / 1e6) LIMIT %(limit)s) drawn) t"
        " LEFT JOIN LATERAL (SELECT transaction_id FROM shadow_result"
        "  WHERE shadow = %(shadow)s AND transaction_id = t.id LIMIT 1) r ON true",
        {
            "percent": percent,
            "environment": shadow["environment"],
            "first": first,
            "last": last,
            "limit": 2 * bounds.live,
            "shadow": shadow["id"],
        },
    ).fetchall()
    if not rows:
        return None
    due = [row["found"] for row in rows if sampled(rank_of(row["id"]), shadow["sample"])]
    return Coverage(len(rows), len(due), sum(due))


def _time_of(shadow: Mapping[str, Any], summary: Document, behind_s: float) -> tuple[int, int]:
    """Return from when to when live transactions are due, in Unix microseconds."""
    if summary["last"] is None:
        return 0, 0
    started = microseconds(shadow["started_at"])
    first, last = summary["first"], summary["last"]
    arrived = microseconds(shadow["read_at"]) - round(behind_s * 1e6)
    return (max(first, started) if last > started else first), min(last, arrived)
