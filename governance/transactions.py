"""What was answered, as the database keeps it: stored in batches, found again by id, gone after its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import psycopg
from psycopg.types.json import Json, Jsonb

from governance.audit import acting
from governance.database import Connection
from governance.errors import RetentionError
from governance.exact_json import from_json, to_json

#: Days ahead of now that an answer may say it was given; more is a wrong clock, or no answer of ours.
DAYS_AHEAD: Final = 7
_FETCHED: Final = 1000


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction and its answer.

    Attributes:
        environment: where.
        id: the transaction's id.
        at: when the answer left.
        node: the preprocessor that answered.
        seq: the number of the answer in one life of that node.
        release: the release that scored it, which has the pipeline.
        canary: whether the release was a canary's.
        outcome: what was decided; None where the pipeline decides nothing.
        reasons: the reason codes.
        scores: output to value, in the model's order.
        features: features stage to vector, float32 little-endian.
        fields: the transaction after the field policy.
        nodes: role to the node that did it.
        us: part of the way to microseconds.
    """

    environment: str
    id: str
    at: datetime
    node: str
    seq: int
    release: int
    canary: bool = False
    outcome: str | None = None
    reasons: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, bytes] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    us: Mapping[str, int] = field(default_factory=dict)


def store(connection: Connection, transactions: Sequence[Transaction]) -> int:
    """Store transactions in one go; those that are there already stay as they are.

    The days that they belong to must be there (`make_days`).

    Returns:
        how many were new.

    Raises:
        psycopg.errors.CheckViolation: one belongs to a day that is not there.
        psycopg.errors.DataError: one cannot be stored; which one is not said.
    """
    with connection.transaction():
        try:
            with connection.transaction():
                _copy(connection, "transaction", transactions)
        except psycopg.errors.UniqueViolation:
            # Records that were delivered again: rare, and then many.
            return _store_new(connection, transactions)
    return len(transactions)


def make_days(connection: Connection, environment: str, first: date, last: date) -> int:
    """Make the tables for the days from first to last that are missing; return how many were.

    Days whose time is over, and those more than a week ahead, are left out.
    """
    row = connection.execute(
        "SELECT make_transaction_days(%s, %s, %s) AS made", (environment, first, last)
    ).fetchone()
    return int(row["made"]) if row else 0


def drop_days(connection: Connection, environment: str) -> list[str]:
    """Drop the days of an environment whose time is over; return the names of their tables."""
    rows = connection.execute("SELECT drop_transaction_days(%s) AS name", (environment,)).fetchall()
    return [row["name"] for row in rows]


def kept_days(connection: Connection, environment: str) -> int:
    """Return how many days an environment keeps what it answered."""
    row = connection.execute("SELECT retention_of(%s) AS days", (environment,)).fetchone()
    assert row is not None  # noqa: S101 - a function gives one row
    return int(row["days"])


def keep(connection: Connection, environment: str, days: int, *, by: str, reason: str) -> None:
    """Say how many days an environment keeps what it answered. Sinks drop older days within an hour.

    Raises:
        RetentionError: the number cannot be kept, no reason is given, or there is no such environment.
    """
    if not reason.strip():
        raise RetentionError("say why: whoever misses what was dropped will read it")
    try:
        with acting(connection, by, reason):
            connection.execute(
                "INSERT INTO retention VALUES (%s, %s)"
                " ON CONFLICT (environment) DO UPDATE SET days = EXCLUDED.days",
                (environment, days),
            )
    except psycopg.errors.CheckViolation as error:
        raise RetentionError(f"{days} days cannot be kept: 1 to 36500 can") from error
    except psycopg.errors.ForeignKeyViolation as error:
        raise RetentionError(f"there is no environment {environment} yet: promote a release first") from error


def find(connection: Connection, environment: str, id_: str) -> list[Transaction]:
    """Return the answers to a transaction, the oldest first; more than one if it was asked more than once."""
    rows = connection.execute(
        "SELECT * FROM transaction WHERE environment = %s AND id = %s ORDER BY at", (environment, id_)
    ).fetchall()
    return [_from_row(row) for row in rows]


def between(
    connection: Connection, environment: str, since: datetime, until: datetime
) -> Iterator[Transaction]:
    """Yield the answers from one moment on and before another, in no order, few at a time."""
    with connection.transaction(), connection.cursor(name="between") as cursor:
        # Whoever reads may take their time between two answers, and holds no lock.
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.itersize = _FETCHED
        cursor.execute(
            "SELECT * FROM transaction WHERE environment = %s AND at >= %s AND at < %s",
            (environment, since, until),
        )
        for row in cursor:
            yield _from_row(row)


def days_of(transactions: Iterable[Transaction]) -> tuple[date, date]:
    """Return the first and the last day (UTC) of some transactions."""
    days = [one.at.astimezone(UTC).date() for one in transactions]
    return min(days), max(days)


def too_early(at: datetime, kept: int) -> bool:
    """Say whether an answer is so old that it is not kept any more."""
    return at.astimezone(UTC).date() < datetime.now(UTC).date() - timedelta(days=kept)


def too_late(at: datetime) -> bool:
    """Say whether an answer says that it was given in the future, by more than clocks differ."""
    return at.astimezone(UTC).date() > datetime.now(UTC).date() + timedelta(days=DAYS_AHEAD - 1)


_COLUMNS: Final = (
    "environment, id, at, node, seq, release, canary, outcome, reasons, outputs, scores, stages, vectors,"
    " fields, nodes, us"
)
_TYPES: Final = (
    *("text", "text", "timestamptz", "text", "int8", "int4", "bool", "text", "text[]", "text[]", "float8[]"),
    *("text[]", "bytea[]", "json", "jsonb", "jsonb"),
)


def _copy(connection: Connection, table: str, transactions: Iterable[Transaction]) -> None:
    statement = f"COPY {table} ({_COLUMNS}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        copy.set_types(_TYPES)
        for one in transactions:
            copy.write_row(_row(one))


def _store_new(connection: Connection, transactions: Sequence[Transaction]) -> int:
    connection.execute("CREATE TEMP TABLE incoming (LIKE transaction INCLUDING DEFAULTS) ON COMMIT DROP")
    _copy(connection, "incoming", transactions)
    done = connection.execute("INSERT INTO transaction SELECT * FROM incoming ON CONFLICT DO NOTHING")
    return done.rowcount


def _row(one: Transaction) -> tuple[Any, ...]:
    return (
        one.environment,
        one.id,
        one.at,
        one.node,
        one.seq,
        one.release,
        one.canary,
        one.outcome,
        list(one.reasons),
        list(one.scores),
        list(one.scores.values()),
        list(one.features),
        list(one.features.values()),
        Json(one.fields, to_json),
        Jsonb(one.nodes),
        Jsonb(one.us),
    )


def _from_row(row: Mapping[str, Any]) -> Transaction:
    return Transaction(
        environment=row["environment"],
        id=row["id"],
        at=row["at"].astimezone(UTC),
        node=row["node"],
        seq=row["seq"],
        release=row["release"],
        canary=row["canary"],
        outcome=row["outcome"],
        reasons=tuple(row["reasons"]),
        scores=dict(zip(row["outputs"], row["scores"], strict=True)),
        features=dict(zip(row["stages"], map(bytes, row["vectors"]), strict=True)),
        fields=from_json(row["fields"]),
        nodes=row["nodes"],
        us=row["us"],
    )
