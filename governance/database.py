"""Connections to PostgreSQL, and the migrations of its schema."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from governance.errors import MigrationError

#: The NOTIFY channel; a notification is a hint to look, never the news itself.
CHANNEL = "scorewire"

Connection = psycopg.Connection[dict[str, Any]]

_MIGRATIONS = Path(__file__).with_name("migrations")
#: The advisory lock under which one process at a time migrates.
_LOCK = 0x5C02E
#: Times that a statement is run on a direct connection before it is prepared.
_PREPARE_AFTER = 5
#: What of a DSN is no secret.
_SHOWN = ("host", "hostaddr", "port", "dbname", "user", "sslmode", "target_session_attrs")
#: How this side notices that a link is dead.
_LIVELY: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
#: What the server is asked for: else it would hold the locks of a client that was cut off, or stopped, in the
#: midst of a transaction for as long as its own kernel believes in the link, which may be hours.
_OF_SERVER = {
    "tcp_keepalives_idle": 5,
    "tcp_keepalives_interval": 2,
    "tcp_keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "idle_in_transaction_session_timeout": 30_000,
}


def connect(
    dsn: str, *, timeout_s: int = 5, statement_timeout_s: int = 0, direct: bool = False
) -> Connection:
    """Connect; each statement is its own transaction, and either side notices a dead link within seconds.

    A transaction in which nothing is asked for half a minute is ended by the server.

    Args:
        dsn: a URI or libpq's keywords; what it asks for itself holds.
        timeout_s: seconds that connecting may take.
        statement_timeout_s: seconds that a statement may take; 0 for no limit.
        direct: nothing stands between, so that the server may keep what was prepared; else nothing is kept
            from one transaction to the next, so that a pool such as PgBouncer may part them among servers.

    Raises:
        psycopg.OperationalError: the server cannot be reached.
    """
    told = conninfo_to_dict(dsn)
    asked = dict(_OF_SERVER)
    if statement_timeout_s:
        asked["statement_timeout"] = statement_timeout_s * 1000
    options = [f"-c {name}={value}" for name, value in asked.items()]
    return psycopg.connect(
        dsn,
        autocommit=True,
        row_factory=dict_row,
        prepare_threshold=_PREPARE_AFTER if direct else None,
        connect_timeout=timeout_s,
        application_name="scorewire",
        options=" ".join([*options, str(told.get("options") or "")]),
        **{name: value for name, value in _LIVELY.items() if name not in told},
    )


def checked_dsn(dsn: str) -> str:
    """Return a DSN that libpq can read.

    Raises:
        ValueError: it cannot; without the text, which may hold a password.
    """
    try:
        conninfo_to_dict(dsn)
    except psycopg.Error:
        raise ValueError(
            "is neither a URI such as postgresql://user@host/database nor keywords such as "
            "'host=... dbname=... user=...'"
        ) from None
    return dsn


def shown_dsn(dsn: str) -> str:
    """Return what of a DSN may be shown: where it leads, and as whom; no password, and no option."""
    named = conninfo_to_dict(dsn)
    return make_conninfo("", **{name: named[name] for name in _SHOWN if name in named})


def migrations() -> list[tuple[str, str]]:
    """Return the migrations in order: name and SQL."""
    files = sorted(_MIGRATIONS.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    return [(file.stem, file.read_text(encoding="utf-8")) for file in files]


def schema_version(connection: Connection) -> int:
    """Return how many migrations are applied."""
    with connection.transaction():
        known = connection.execute("SELECT to_regclass('migration') IS NOT NULL AS known").fetchone()
        if not known or not known["known"]:
            return 0
        row = connection.execute("SELECT count(*) AS n FROM migration").fetchone()
        return int(row["n"]) if row else 0


def migrate(dsn: str) -> list[str]:
    """Apply the migrations that are missing, each in a transaction; return their names.

    Any number of processes may do so at once: an advisory lock lets one in at a time. The lock is the
    connection's, so that nothing may stand between it and the server.

    Raises:
        MigrationError: one fails, or one that was applied was edited since.
    """
    with connect(dsn, direct=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        connection.execute(
            "CREATE TABLE IF NOT EXISTS migration ("
            " name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
        )
        rows = connection.execute("SELECT name, sha256 FROM migration").fetchall()
        applied = {row["name"]: row["sha256"] for row in rows}
        return [name for name, sql in migrations() if _apply(connection, name, sql, applied)]


def _apply(connection: Connection, name: str, sql: str, applied: dict[str, str]) -> bool:
    digest = hashlib.sha256(sql.encode()).hexdigest()
    if name in applied:
        if applied[name] != digest:
            raise MigrationError(f"migration {name} was edited after it was applied: write a new one instead")
        return False
    try:
        with connection.transaction():
            connection.execute(sql.encode())  # as bytes: from our own file, and nothing is put into it
            connection.execute("INSERT INTO migration (name, sha256) VALUES (%s, %s)", (name, digest))
    except psycopg.Error as error:
        raise MigrationError(f"migration {name} failed and was taken back: {error}") from error
    return True
