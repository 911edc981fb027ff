"""The step of the sink that stores: answers to PostgreSQL in batches, the unusable aside."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import psycopg

from governance.database import Connection
from governance.transactions import (
    Transaction,
    drop_days,
    kept_days,
    make_days,
    store,
    too_early,
    too_late,
)
from shadow.batch import Arrived, Batch, dead
from shadow.errors import Stopped
from shadow.record import LiveRecord
from shadow.storing import Database, Graveyard

logger = logging.getLogger(__name__)

#: Seconds between two looks at the days: which are over, and which come next.
TIDY_S: Final = 600.0
#: Days that are made before they begin.
_AHEAD: Final = timedelta(days=2)


class Keeping:
    """Stores the answers of a batch. When it returns, the batch's place may be committed.

    Args:
        database: where answers go.
        environment: whose they are.
        graveyard: what takes the records that cannot be stored.
        stop: set when the node stops.

    Attributes:
        stored: answers that are new in the database.
        repeated: those that were there before.
        expired: those whose time was over before they came.
        dead: records that were laid aside.
        batches: batches that were stored.
        days_made: days that were made.
        days_dropped: days whose time was over.
    """

    def __init__(
        self, database: Database, environment: str, graveyard: Graveyard, stop: threading.Event
    ) -> None:
        self._database = database
        self._environment = environment
        self._graveyard = graveyard
        self._stop = stop
        self._days: set[date] = set()
        self._kept = 0
        self._tidy_at = 0.0
        self.stored = self.repeated = self.expired = self.dead = self.batches = 0
        self.days_made = self.days_dropped = 0

    def __call__(self, batch: Batch) -> None:
        """Store a batch.

        Raises:
            Stopped: the node stops before all of it is safe.
        """
        if time.monotonic() >= self._tidy_at:
            self._database.run(self._tidy)
            self._tidy_at = time.monotonic() + TIDY_S
        self._store(self._timely(batch), batch)
        if batch.dead:
            if not self._graveyard.bury(batch.dead, self._stop):
                raise Stopped
            self.dead += len(batch.dead)
        self.batches += 1

    def _timely(self, batch: Batch) -> list[tuple[Transaction, Arrived]]:
        found = []
        for arrived in batch.records:
            one = transaction_of(arrived.record)
            if too_late(one.at):
                batch.dead.append(dead(arrived.message, f"it says that it was answered at {one.at}"))
            elif too_early(one.at, self._kept):
                self.expired += 1
            else:
                found.append((one, arrived))
        return found

    def _store(self, rows: Sequence[tuple[Transaction, Arrived]], batch: Batch) -> None:
        """Store rows; of those that the database does not take, find the one at fault, and lay it aside."""
        if not rows:
            return
        transactions = [one for one, _ in rows]
        try:
            new = self._database.run(lambda connection: self._put(connection, transactions))
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            if len(rows) == 1:
                why = f"it cannot be stored: {str(error).strip()}"
                batch.dead.append(dead(rows[0][1].message, why))
                return
            middle = len(rows) // 2
            self._store(rows[:middle], batch)
            self._store(rows[middle:], batch)
            return
        self.stored += new
        self.repeated += len(rows) - new

    def _put(self, connection: Connection, transactions: Sequence[Transaction]) -> int:
        missing = {one.at.date() for one in transactions} - self._days
        if missing:
            self.days_made += make_days(connection, self._environment, min(missing), max(missing))
            self._days |= missing
        return store(connection, transactions)

    def _tidy(self, connection: Connection) -> None:
        """Make the days that come, and drop those whose time is over."""
        today = datetime.now(UTC).date()
        self._kept = kept_days(connection, self._environment)
        self.days_made += make_days(connection, self._environment, today, today + _AHEAD)
        self._days = {today, today + timedelta(days=1), today + _AHEAD}
        try:
            dropped = drop_days(connection, self._environment)
        except psycopg.errors.UndefinedTable:
            return  # another sink was quicker
        self.days_dropped += len(dropped)
        if dropped:
            logger.info("dropped what is over its time: %s", ", ".join(dropped))


def transaction_of(record: LiveRecord) -> Transaction:
    """Return a live record as the database keeps it."""
    decision = record.decision or {}
    return Transaction(
        environment=record.environment,
        id=record.id,
        at=datetime.fromtimestamp(record.at, UTC),
        node=record.node,
        seq=record.seq,
        release=record.release,
        canary=record.canary,
        outcome=decision.get("outcome"),
        reasons=tuple(decision.get("reasons", ())),
        scores=record.scores,
        features=record.features,
        fields=record.transaction,
        nodes=record.nodes,
        us=record.us,
    )
