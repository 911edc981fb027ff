"""The step that stores: results to PostgreSQL, and where wanted to Kafka and files; the unusable aside."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import psycopg

from governance.backoff import Backoff
from governance.database import Connection, connect
from shadow.batch import Batch, Dead, dead
from shadow.errors import Stopped
from shadow.result import ResultRow
from shadow.store import Summarise, store_results

logger = logging.getLogger(__name__)
T = TypeVar("T")

_CONNECT_S, _STATEMENT_S = 3, 60


class Sink(Protocol):
    """Something else that takes results."""

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Take results, for good when this returns. The same may come again."""

    def look(self) -> None:
        """Do what time asks for."""

    def close(self) -> None:
        """Finish what is open."""


class Graveyard(Protocol):
    """What takes the records that cannot be used; see shadow.letters.DeadLetters."""

    def bury(self, letters: Sequence[Dead], stop: threading.Event) -> bool:
        """Take them, for good when this returns true."""


class Database:
    """A connection that is made again for as long as it takes.

    Args:
        dsn: the database, with no pool in between.
        stop: set when the node stops.
    """

    def __init__(self, dsn: str, stop: threading.Event) -> None:
        self._dsn = dsn
        self._stop = stop
        self._connection: Connection | None = None
        self._backoff = Backoff()
        #: How often it was away.
        self.away = 0

    def run(self, work: Callable[[Connection], T]) -> T:
        """Do some work, again and again for as long as the database is away.

        Raises:
            Stopped: the node stops.
            psycopg.Error: what is no trouble of the connection.
        """
        while not self._stop.is_set():
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = connect(
                        self._dsn, timeout_s=_CONNECT_S, statement_timeout_s=_STATEMENT_S, direct=True
                    )
                found = work(self._connection)
            except (
                psycopg.OperationalError,
                psycopg.InterfaceError,
                psycopg.errors.ReadOnlySqlTransaction,
            ) as error:
                self.away += 1
                logger.warning("the database is away, and this waits for it: %s", str(error).strip())
                self.close()
                self._stop.wait(self._backoff.pause_s())
            else:
                self._backoff.reset()
                return found
        raise Stopped

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Storing:
    """Stores what a batch came to. When it returns, the batch's place may be committed.

    Args:
        database: where results go.
        summarise: how they are summarised.
        sinks: what else takes results.
        graveyard: what takes the records that cannot be used.
        stop: set when the node stops.
    """

    def __init__(
        self,
        database: Database,
        summarise: Summarise,
        sinks: Sequence[Sink],
        graveyard: Graveyard,
        stop: threading.Event,
    ) -> None:
        self._database = database
        self._summarise = summarise
        self._sinks = sinks
        self._graveyard = graveyard
        self._stop = stop
        #: Results that were stored, that were there before, that no database takes, and records laid aside.
        self.stored = self.repeated = self.unstorable = self.dead = 0

    def __call__(self, batch: Batch) -> None:
        """Store a batch.

        Raises:
            Stopped: the node stops before all of it is safe.
        """
        for rows in batch.rows.values():
            # The others first: what they miss when this node dies here is handed out again, since the
            # database has not got it either.
            for sink in self._sinks:
                sink.write(rows)
            self._store(rows, batch)
        if batch.dead:
            if not self._graveyard.bury(batch.dead, self._stop):
                raise Stopped
            self.dead += len(batch.dead)

    def _store(self, rows: list[ResultRow], batch: Batch) -> None:
        try:
            fresh = self._database.run(lambda c: store_results(c, rows, self._summarise))
        except (psycopg.DataError, psycopg.IntegrityError):
            fresh = sum(self._store_one(row, batch) for row in rows)
        self.stored += fresh
        self.repeated += len(rows) - fresh

    def _store_one(self, row: ResultRow, batch: Batch) -> int:
        """Store one of several rows of which the database does not take one; lay that one aside."""
        try:
            return self._database.run(lambda c: store_results(c, [row], self._summarise))
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            self.unstorable += 1
            logger.warning("a result cannot be stored: %s", error)
            why = f"its result cannot be stored: {error}"
            hit = (one for one in batch.records if one.record.id == row.transaction_id)
            batch.dead.extend(dead(one.message, why) for one in hit)
            return 0
