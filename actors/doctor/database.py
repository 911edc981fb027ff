"""What the database has to have: an answer, a version, a schema, rights, notifications, and the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

import psycopg

from actors.config import Settings
from actors.doctor.finding import Finding, failure, ok, warning
from governance.database import Connection, connect, migrations, schema_version, shown_dsn
from governance.errors import GovernanceError

#: The oldest PostgreSQL that the schema runs on.
_OLDEST: Final = 14
#: Seconds that the clocks of host and database may be apart: ages of answers are told by both.
_APART_S, _FAR_APART_S = 1.0, 30.0
#: Seconds that a notification may take.
_NOTE_S: Final = 2.0
_CHANNEL: Final = "scorewire_doctor"
#: What a node does to tables, beside reading.
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "release": ("SELECT",),
    "artifact_chunk": ("SELECT",),
    "member": ("INSERT", "UPDATE", "DELETE"),
    "rollout_node": ("INSERT", "UPDATE"),
    "canary_count": ("INSERT", "UPDATE", "DELETE"),
    "stream_node": ("INSERT", "UPDATE", "DELETE"),
}


def check_database(settings: Settings) -> Iterator[Finding]:
    """See whether nodes can work with the database."""
    where = shown_dsn(settings.dsn)
    try:
        with connect(settings.dsn, timeout_s=3, statement_timeout_s=5) as connection:
            version = connection.info.server_version // 10_000
            if version < _OLDEST:
                yield failure("database", f"{where} is PostgreSQL {version}", f"{_OLDEST} or newer is needed")
                return
            yield ok("database", f"{where} answers (PostgreSQL {version})")
            yield _clock(connection)
            schema = _schema(connection)
            yield schema
            if schema.level == "ok":
                yield from _rights(connection)
        yield from _listening(settings)
    except (psycopg.Error, GovernanceError) as error:
        yield failure(
            "database",
            f"{where}: {str(error).strip()}",
            "see that it runs and that `dsn` is right; nodes that run serve on with what they hold",
        )


def _clock(connection: Connection) -> Finding:
    before = time.time()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8 AS now").fetchone()
    after = time.time()
    assert row is not None  # noqa: S101 - it has no FROM
    # Its word is of some moment between the question and the answer.
    apart = max(0.0, before - row["now"], row["now"] - after)
    found = f"the clocks of this host and of the database are {apart:.3f} s apart"
    if apart <= _APART_S:
        return ok("clock", found)
    advice = (
        "let NTP set both (`timedatectl`, `chronyc tracking`): ages of answers and labels are told by both"
    )
    return (failure if apart > _FAR_APART_S else warning)("clock", found, advice)


def _schema(connection: Connection) -> Finding:
    there, known = schema_version(connection), len(migrations())
    found = f"{there} of {known} migrations are applied"
    if there < known:
        return failure("schema", found, "run `run.py migrate`, as a user that owns the schema")
    if there > known:
        more = f"the schema has {there} migrations, this code knows {known}"
        return failure("schema", more, "this code is older than the schema: deploy the newer one here")
    return ok("schema", found)


def _rights(connection: Connection) -> Iterator[Finding]:
    row = connection.execute("SELECT current_user AS name").fetchone()
    assert row is not None  # noqa: S101 - it has no FROM
    missing = []
    for table, rights in _NEEDED.items():
        for right in rights:
            may = connection.execute("SELECT has_table_privilege(%s, %s) AS may", (table, right)).fetchone()
            if may is None or not may["may"]:
                missing.append(f"{right} {table}")
    if missing:
        yield failure(
            "rights",
            f"{row['name']} may not {', '.join(missing)}",
            f"as an administrator: GRANT scorewire_node TO {row['name']}",
        )
    else:
        yield ok("rights", f"{row['name']} may do what nodes do")


def _listening(settings: Settings) -> Iterator[Finding]:
    """See whether a notification arrives: through a pool that parts transactions none does."""
    with (
        connect(settings.direct_dsn, timeout_s=3, direct=True) as ear,
        connect(settings.direct_dsn, timeout_s=3) as mouth,
    ):
        ear.execute(f"LISTEN {_CHANNEL}")
        mouth.execute(f"NOTIFY {_CHANNEL}")
        if list(ear.notifies(timeout=_NOTE_S, stop_after=1)):
            yield ok("notifications", "arrive")
        else:
            yield failure(
                "notifications",
                "none arrives",
                "`dsn` names a pool such as PgBouncer: name PostgreSQL itself as `listen_dsn`",
            )
