"""What a shadow node and the database tell each other: which shadows run, how far it is, what broke."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from governance.backoff import Backoff
from governance.database import CHANNEL, Connection, connect
from governance.notify import concerns
from governance.shadows import Shadow, shadows, suspend
from shadow.errors import SummaryError
from shadow.evaluating import Running
from shadow.summaries import settle

logger = logging.getLogger(__name__)

#: Seconds between two looks when no hint comes, and between two beats.
LOOK_S = 1.0
#: Seconds after which the row of a dead node is taken away.
FORGET_S = 300.0
#: Seconds between two times that older summaries are merged.
SETTLE_S = 3600.0
_CONNECT_S, _STATEMENT_S = 3, 10


@dataclass(frozen=True, slots=True)
class Place:
    """How far a node has come in a partition.

    Attributes:
        position: the offset that comes next.
        high: the end of the partition, as the broker last said.
        behind_s: age of the newest answer whose results are stored; 0 at the end of the partition.
    """

    position: int
    high: int
    behind_s: float


@dataclass(frozen=True, slots=True)
class Sign:
    """What a node says of itself.

    Attributes:
        counters: counter to number, in this life.
        shadows: shadow's number to counter to number, in this life.
        places: partition to how far it has come.
        broken: the shadows that it has given up, and why.
    """

    counters: Mapping[str, int]
    shadows: Mapping[int, Mapping[str, int]]
    places: Mapping[int, Place]
    broken: Mapping[Running, str]


class Keeper:
    """Looks which shadows run, and says how the node stands, in a thread of its own.

    While the database is away the shadows are those that ran when it went.

    Args:
        dsn: the database itself: it listens there.
        environment: whose shadows.
        node_id: which node.
        sign: gives what to say.
    """

    def __init__(self, dsn: str, environment: str, node_id: str, sign: Callable[[], Sign]) -> None:
        self._dsn = dsn
        self._environment = environment
        self._node_id = node_id
        self._sign = sign
        self._stop = threading.Event()
        self._connection: Connection | None = None
        self._backoff = Backoff()
        self._settle_at = 0.0
        #: The shadows that run; None until the database said it for the first time.
        self.running: Sequence[Shadow] | None = None
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Say how it stands for the last time, and take the node out."""
        self._stop.set()
        self._thread.join(_CONNECT_S + _STATEMENT_S)

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self._look()
                self._backoff.reset()
            except psycopg.Error as error:
                logger.warning("the database is away: %s", str(error).strip())
                self._let_go()
                self._stop.wait(self._backoff.pause_s())
        try:
            if self._connection is not None:
                say(self._connection, self._environment, self._node_id, self._sign())
                self._connection.execute("DELETE FROM shadow_node WHERE node_id = %s", (self._node_id,))
        except psycopg.Error as error:
            logger.warning("the node could not take its leave: %s", error)
        self._let_go()

    def _look(self) -> None:
        """Look, beat, and wait until there may be something new."""
        if self._connection is None:
            self._connection = connect(
                self._dsn, timeout_s=_CONNECT_S, statement_timeout_s=_STATEMENT_S, direct=True
            )
            self._connection.execute(f"LISTEN {CHANNEL}")
        connection, sign = self._connection, self._sign()
        running = shadows(connection, self._environment, ("running",))
        for shadow in running:
            reason = sign.broken.get((shadow.id, shadow.state_at))
            if reason is not None and suspend(connection, shadow, self._node_id, reason):
                logger.warning("shadow %s is suspended", shadow.name)
        self.running = running
        if time.monotonic() >= self._settle_at:
            self._settle_at = time.monotonic() + SETTLE_S
            _settle(connection, running)
        say(connection, self._environment, self._node_id, sign)
        give_up_at = time.monotonic() + LOOK_S
        while not self._stop.is_set() and (left := give_up_at - time.monotonic()) > 0:
            notes = list(connection.notifies(timeout=min(left, 0.2), stop_after=1))
            if any(concerns(note.payload, self._environment) for note in notes):
                return

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _settle(connection: Connection, running: Sequence[Shadow]) -> None:
    """Merge the summaries of older hours, so that reports cost the same after years."""
    for shadow in running:
        try:
            settle(connection, shadow.id)
        except SummaryError as error:
            logger.warning("the summaries of shadow %s cannot be merged: %s", shadow.name, error)


def say(connection: Connection, environment: str, node_id: str, sign: Sign) -> None:
    """Write how a node stands."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO shadow_node (node_id, environment, host, pid, counters, shadows)"
            " VALUES (%(node)s, %(environment)s, %(host)s, %(pid)s, %(counters)s, %(shadows)s)"
            " ON CONFLICT (node_id) DO UPDATE SET beat_at = clock_timestamp(),"
            "  counters = EXCLUDED.counters, shadows = EXCLUDED.shadows",
            {
                "node": node_id,
                "environment": environment,
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "counters": Jsonb(dict(sign.counters)),
                "shadows": Jsonb({str(shadow): dict(counts) for shadow, counts in sign.shadows.items()}),
            },
        )
        connection.execute(
            "DELETE FROM shadow_node WHERE beat_at < clock_timestamp() - make_interval(secs => %s)",
            (FORGET_S,),
        )
        for partition, place in sorted(sign.places.items()):
            _say_place(connection, environment, node_id, partition, place)


def _say_place(connection: Connection, environment: str, node_id: str, partition: int, place: Place) -> None:
    row: dict[str, Any] = {
        "environment": environment,
        "node": node_id,
        "partition": partition,
        "position": place.position,
        "high": place.high,
        "behind": place.behind_s,
    }
    connection.execute(
        "INSERT INTO shadow_progress (environment, partition, node_id, position, high, behind_s)"
        " VALUES (%(environment)s, %(partition)s, %(node)s, %(position)s, %(high)s, %(behind)s)"
        " ON CONFLICT (environment, partition) DO UPDATE SET node_id = EXCLUDED.node_id,"
        "  position = EXCLUDED.position, high = EXCLUDED.high, behind_s = EXCLUDED.behind_s,"
        "  at = clock_timestamp()",
        row,
    )
