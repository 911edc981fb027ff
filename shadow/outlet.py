"""The outlet: records go to Kafka, through the spool while Kafka is away, in order for each key.

It is in one of three states, and starts away:

    away        Kafka is not there, or its topic is not: what comes goes to the spool. Somebody tries.
    replaying   it is there: what the spool holds goes first, oldest first; what comes goes behind it.
    direct      the spool is empty: what comes goes straight to Kafka.

Trouble leads to `away`: a record was refused, or Kafka was silent about one for STUCK_S. All that Kafka has
not acknowledged then goes to the spool, in its order, before anything newer. Some of it may have arrived all
the same, and arrives twice.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from confluent_kafka import KafkaError, KafkaException

from shadow.spool import Entry, Spool

logger = logging.getLogger(__name__)

#: Seconds of silence about a record after which Kafka counts as away.
STUCK_S: Final = 3.0
#: Records of the spool that are on their way to Kafka at once.
REPLAY_WINDOW: Final = 2_000
#: Seconds between two looks: for delivery reports, also in a replay, at whether Kafka is back, for nothing.
_POLL_S, _REPLAY_S, _AWAY_S, _IDLE_S = 0.25, 0.05, 0.05, 1.0
#: What no second try will mend; such a record is counted and let go.
_HOPELESS: Final = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD}
)

#: Whose record it is, as the owner of the outlet knows it.
Ticket = tuple[str, int]
State = Literal["away", "replaying", "direct"]


class Producing(Protocol):
    """What the outlet needs of confluent_kafka.Producer."""

    def produce(self, topic: str, value: bytes, key: bytes, *, on_delivery: Callable[..., None]) -> None:
        """Take a record; BufferError if it cannot now."""

    def poll(self, timeout: float) -> int:
        """Call the delivery reports that are due."""

    def flush(self, timeout: float) -> int:
        """Wait for what is on its way; return what is left."""


class Connecting(Protocol):
    """Somebody who tries, in the background, whether Kafka and the topic are there."""

    def begin(self, old: Producing | None = None) -> None:
        """Begin to try; let go of a producer that was given up."""

    def take(self) -> Producing | None:
        """Return a new producer once Kafka is there; None until then."""


class Outlet:
    """Brings records to a topic. One thread uses it, as a source of its loop.

    Args:
        topic: where to.
        spool: where records wait while Kafka is away.
        connector: makes producers.
        on_safe: told of each record once it is in Kafka or in the spool.

    Attributes:
        state: see above.
        problem: why it is away; "" while it is not.
        delivered: records that Kafka acknowledged.
        spooled: records that went to the spool.
        replayed: those of them that went on to Kafka.
        refused: records that Kafka will never take: too large.
    """

    def __init__(
        self, topic: str, spool: Spool, connector: Connecting, on_safe: Callable[[Ticket], None]
    ) -> None:
        self.state: State = "away"
        self.problem = "not connected yet"
        self.delivered = self.spooled = self.replayed = self.refused = 0
        self._topic = topic
        self._spool = spool
        self._connector = connector
        self._on_safe = on_safe
        self._producer: Producing | None = None
        # Each producer has a number, so that the reports of one that was given up are told apart.
        self._generation = 0
        self._count = 0
        self._looked = 0.0
        self._pending: OrderedDict[int, tuple[Ticket, bytes, bytes, float]] = OrderedDict()
        self._unspooled: deque[tuple[Ticket, bytes, bytes]] = deque()
        self._replaying: OrderedDict[int, tuple[bool, float]] = OrderedDict()
        connector.begin()

    @property
    def held(self) -> int:
        """Records in memory that are not safe yet."""
        return len(self._pending) + len(self._unspooled)

    def send(self, ticket: Ticket, key: bytes, value: bytes) -> None:
        """Take a record."""
        if self.state == "direct":
            self._count += 1
            self._pending[self._count] = (ticket, key, value, time.monotonic())
            self._produce(key, value, self._reporter(self._count))
        else:
            self._unspooled.append((ticket, key, value))

    def due(self) -> float:
        """Return when to look again."""
        if self.state == "away":
            return self._looked + _AWAY_S
        if self.state == "replaying":
            return self._looked + _REPLAY_S
        return self._looked + (_POLL_S if self._pending else _IDLE_S)

    def pump(self) -> None:
        """Take delivery reports, spool what must be, replay what can be."""
        self._looked = time.monotonic()
        if self.state == "away":
            self._come_back()
        if self._producer is not None:
            self._producer.poll(0)
        self._watch_for_silence()
        if self._unspooled:
            self._to_spool()
        if self.state == "replaying":
            self._replay()

    def close(self, seconds: float) -> None:
        """Wait for Kafka so long at most; what it has not acknowledged then goes to the spool."""
        if self._producer is not None and (self._pending or self._replaying):
            self._producer.flush(seconds)
        if self._pending:
            self._go_away("the tee stops")
        if self._unspooled:
            self._to_spool()

    # -- the ways between the states

    def _go_away(self, problem: str) -> None:
        if self.state != "away":
            logger.warning("Kafka is away, and what comes goes to the spool: %s", problem)
        self.state, self.problem = "away", problem
        old, self._producer = self._producer, None
        self._generation += 1
        # Older than all that came since, which then goes behind it.
        kept = [(ticket, key, value) for ticket, key, value, _ in self._pending.values()]
        self._unspooled.extendleft(reversed(kept))
        self._pending.clear()
        self._replaying.clear()
        self._spool.rewind()
        self._connector.begin(old)

    def _come_back(self) -> None:
        producer = self._connector.take()
        if producer is not None:
            logger.info("Kafka is there; %d records wait in the spool", len(self._spool))
            self._producer = producer
            self.state, self.problem = "replaying", ""

    def _go_direct(self) -> None:
        self.state = "direct"
        waiting, self._unspooled = self._unspooled, deque()
        for record in waiting:
            self.send(*record)

    # -- what they do

    def _to_spool(self) -> None:
        if self.state == "replaying" and not self._spool:
            return  # they go straight on
        taken = self._spool.append([(key, value) for _, key, value in self._unspooled])
        for _ in range(taken):
            self._on_safe(self._unspooled.popleft()[0])
        self.spooled += taken

    def _replay(self) -> None:
        if not self._spool:
            self._go_direct()
            return
        room = REPLAY_WINDOW - len(self._replaying)
        entries = self._spool.read(room) if room > 0 else []
        for entry in entries:
            self._replaying[entry.number] = (False, time.monotonic())
            self._produce(entry.key, entry.value, self._replay_reporter(entry))
            if self.state == "away":
                return

    def _produce(self, key: bytes, value: bytes, report: Callable[..., None]) -> None:
        producer = self._producer
        if producer is None:
            return
        try:
            producer.produce(self._topic, value, key, on_delivery=report)
        except BufferError:
            self._go_away("its client's queue is full")
        except KafkaException as error:
            report(error.args[0], None)

    def _reporter(self, number: int) -> Callable[..., None]:
        generation = self._generation

        def report(error: KafkaError | None, _: Any) -> None:
            if generation != self._generation:
                return
            if self._good(error):
                self._on_safe(self._pending.pop(number)[0])

        return report

    def _replay_reporter(self, entry: Entry) -> Callable[..., None]:
        generation = self._generation

        def report(error: KafkaError | None, _: Any) -> None:
            if generation != self._generation or not self._good(error):
                return
            self.replayed += 1
            self._replaying[entry.number] = (True, 0.0)
            last = None
            while self._replaying and next(iter(self._replaying.values()))[0]:
                last, _done = self._replaying.popitem(last=False)
            if last is not None:
                self._spool.done(last)

        return report

    def _good(self, error: KafkaError | None) -> bool:
        """Say whether a record is done with; anything else is trouble."""
        if error is None:
            self.delivered += 1
            return True
        if error.code() in _HOPELESS:
            self.refused += 1
            logger.error("Kafka will never take a record: %s", error.str())
            return True
        self._go_away(error.str())
        return False

    def _watch_for_silence(self) -> None:
        oldest = time.monotonic()
        if self._pending:
            oldest = next(iter(self._pending.values()))[3]
        elif self._replaying:
            oldest = next(iter(self._replaying.values()))[1]
        if time.monotonic() - oldest > STUCK_S:
            self._go_away(f"it said nothing of a record for {STUCK_S:g} s")
