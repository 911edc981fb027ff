"""Stores results: each row once, and their summary in the very transaction that finds them new."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from governance.database import Connection
from shadow.result import COLUMNS, ResultRow, rank_of, to_columns

Document = dict[str, Any]

_ALL = ", ".join(("rank", *COLUMNS))
_COPY = f"COPY fresh_result ({_ALL}) FROM STDIN".encode()
_INSERT = (
    f"INSERT INTO shadow_result ({_ALL}) SELECT {_ALL} FROM fresh_result ORDER BY shadow, transaction_id"  # noqa: S608 - names of our own
    " ON CONFLICT DO NOTHING RETURNING transaction_id"
).encode()


@dataclass(frozen=True)
class Summarise:
    """How rows become a summary.

    Attributes:
        fold: makes the document of some rows.
        merge: makes the document of the rows of two documents; associative and commutative.
    """

    fold: Callable[[Sequence[ResultRow]], Document]
    merge: Callable[[Document, Document], Document]


def store_results(connection: Connection, rows: Sequence[ResultRow], summarise: Summarise) -> int:
    """Store a shadow's rows; those whose transaction it has a result of already change nothing.

    Everything happens in one transaction. Locks are taken in one order, rows by their id and then the
    summaries by their hour, so that nodes that store the same rows wait for each other in turn.

    Args:
        connection: to the database, with no transaction open.
        rows: of one shadow.
        summarise: how they are summarised.

    Returns:
        how many were new.
    """
    first: dict[str, ResultRow] = {}
    for row in rows:
        first.setdefault(row.transaction_id, row)
    if not first:
        return 0
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE fresh_result (LIKE shadow_result) ON COMMIT DROP")
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in first.values():
                copy.write_row([rank_of(row.transaction_id), *to_columns(row)])
        stored = connection.execute(_INSERT).fetchall()
        fresh = [first[record["transaction_id"]] for record in stored]
        if fresh:
            _summarise(connection, fresh, summarise)
    return len(fresh)


def _summarise(connection: Connection, rows: Sequence[ResultRow], summarise: Summarise) -> None:
    """Merge new rows of one shadow into the summaries of their hours."""
    by_hour: dict[datetime, list[ResultRow]] = defaultdict(list)
    for row in rows:
        by_hour[row.at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)].append(row)
    # Folded before the first lock, which other nodes wait for.
    fresh = {hour: summarise.fold(by_hour[hour]) for hour in sorted(by_hour)}
    shadow = rows[0].shadow
    for hour, document in _held(connection, shadow, list(fresh)).items():
        whole = summarise.merge(document, fresh[hour]) if document else fresh[hour]
        connection.execute(
            "UPDATE shadow_summary SET document = %s WHERE shadow = %s AND hour = %s",
            (Jsonb(whole), shadow, hour),
        )


def _held(connection: Connection, shadow: int, hours: list[datetime]) -> Mapping[datetime, Document]:
    """Hold the summaries of these hours, made where they are missing."""
    connection.execute(
        "INSERT INTO shadow_summary SELECT %s, hour, '{}' FROM unnest(%s::timestamptz[]) AS hours (hour)"
        " ORDER BY hour ON CONFLICT DO NOTHING",
        (shadow, hours),
    )
    rows = connection.execute(
        "SELECT hour, document FROM shadow_summary WHERE shadow = %s AND hour = ANY (%s)"
        " ORDER BY hour FOR UPDATE",
        (shadow, hours),
    ).fetchall()
    return {row["hour"].astimezone(UTC): row["document"] for row in rows}
