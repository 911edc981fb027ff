"""The watcher: what an environment looks like now, re-read whenever there may be something new.

PostgreSQL holds the truth and NOTIFY is only a hint to look: the watcher re-reads everything on a hint, when
it (re)connects, and every few seconds. A lost notification delays a change and never loses it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import psycopg
from pydantic import TypeAdapter

from governance.backoff import Backoff
from governance.database import CHANNEL, Connection, connect, migrations, schema_version
from governance.membership import FRESH_S, Member
from governance.notify import concerns
from governance.releases import Release
from governance.rollouts import Rollout

#: Seconds between two looks when no hint comes.
REREAD_S = 2.0
_CONNECT_S, _STATEMENT_S = 3, 10


@dataclass(frozen=True)
class CanaryView:
    """A canary that is active; see governance.canary.

    Attributes:
        release: the release that some keys are given.
        percent: how many of a hundred.
        key: the field whose value is the key; "" is the transaction's id.
        step: the number of the step that goes on.
        watched: whether it grows by a schedule, or has gates that may end it.
    """

    release: Release
    percent: float
    key: str
    step: int
    watched: bool


@dataclass(frozen=True)
class View:
    """An environment at one moment.

    Attributes:
        current: the release that it serves; None before the first.
        canary: the release that some keys are given, and which; or None.
        earlier: those that were current before it, the last one first, kept loaded for a return.
        coming: the rollout that is preparing, or None.
        members: the nodes that are alive.
        activation: counts up with each release that becomes current, also with one that is led back to, and
            with each step of a canary.
    """

    current: Release | None
    canary: CanaryView | None
    earlier: tuple[Release, ...]
    coming: Rollout | None
    members: tuple[Member, ...]
    activation: int


_VIEW: Final = TypeAdapter(View)


class Watcher:
    """Watches an environment for an owner who waits on file descriptors and times.

    It never raises for the database's troubles: it says them in `reason`, and tries again.

    Args:
        dsn: the database itself, or a pool that gives a connection to one client for as long as it lasts.
        environment: what to watch.
        reread_s: seconds between two looks when no hint comes.
        keep: how many earlier releases to look at.

    Attributes:
        connection: for the owner's own words, while connected; each statement its own transaction.
        reason: why it is not connected; "" while it is.
    """

    def __init__(self, dsn: str, environment: str, *, reread_s: float = REREAD_S, keep: int = 1) -> None:
        self.connection: Connection | None = None
        self.reason = "not connected yet"
        self._dsn = dsn
        self._environment = environment
        self._reread_s = reread_s
        self._keep = keep
        self._backoff = Backoff()
        self._due = time.monotonic()

    @property
    def connected(self) -> bool:
        """Whether the database is there, with a schema that this version knows."""
        return self.connection is not None

    def fileno(self) -> int | None:
        """Return the descriptor on which a hint arrives; None while not connected."""
        if self.connection is None or self.connection.closed:
            return None
        return self.connection.fileno()

    def due(self) -> float:
        """Return when pump must be called at the latest (time.monotonic seconds)."""
        return self._due

    def pump(self) -> View | None:
        """Take the hints that have come, connect if need be, and look if there may be something new.

        Returns:
            what was read, or None if nothing was.
        """
        try:
            hinted = self._hinted() if self.connection is not None else self._connect()
            if not hinted and time.monotonic() < self._due:
                return None
            view = self._read()
        except psycopg.Error as error:
            self._lose(str(error).strip() or type(error).__name__)
            return None
        self._backoff.reset()
        self.reason = ""
        self._due = time.monotonic() + self._reread_s
        return view

    def close(self) -> None:
        """Let the connection go."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _connect(self) -> bool:
        connection = connect(self._dsn, timeout_s=_CONNECT_S, statement_timeout_s=_STATEMENT_S, direct=True)
        self.connection = connection
        found, wanted = schema_version(connection), len(migrations())
        if found != wanted:
            what = (
                "`run.py migrate` applies them"
                if found < wanted
                else "this node is older: deploy the new one"
            )
            why = f"the schema has {found} migrations, this node knows {wanted}: {what}"
            raise psycopg.OperationalError(why)
        # Before the first look: what changes after it is hinted at.
        connection.execute(f"LISTEN {CHANNEL}")
        return True

    def _hinted(self) -> bool:
        assert self.connection is not None  # noqa: S101 - the caller has looked
        notes = list(self.connection.notifies(timeout=0))  # all of them: they are one hint together
        return any(concerns(note.payload, self._environment) for note in notes)

    def _read(self) -> View:
        connection = self.connection
        assert connection is not None  # noqa: S101 - the caller has connected
        row = connection.execute(
            "SELECT view_of(%s, %s, %s)::text AS view", (self._environment, FRESH_S, self._keep)
        ).fetchone()
        assert row is not None  # noqa: S101 - it has no FROM
        return _VIEW.validate_json(row["view"])

    def _lose(self, reason: str) -> None:
        self.close()
        self.reason = reason
        self._due = time.monotonic() + self._backoff.pause_s()
