"""The sink: brings live records from Kafka to PostgreSQL, as one of a group; nothing is lost or doubled."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from typing import Final

from actors.config import Settings, node_name
from actors.probes import Probes
from shadow.batch import Batch, read_batch
from shadow.errors import BrokerError, Stopped
from shadow.flow import Flow
from shadow.kafka import check_kafka, ensure_topics, kafka_of, topic
from shadow.keeping import Keeping
from shadow.letters import DeadLetters
from shadow.metrics import SINK, counted_page
from shadow.reporting import Reporter
from shadow.storing import Database
from shadow.stream import LiveStream
from transport.health import Health

logger = logging.getLogger(__name__)

#: Seconds that a sink may take to store what it has read when it is told to stop.
DRAIN_S: Final = 8.0
_POLL_S, _LOOK_S = 0.2, 0.02
_BROKER_S = 2.0
_WHO: Final = "a sink"


class SinkNode:
    """One process of the group; more of them share the partitions.

    Args:
        settings: the host's configuration.
        index: which of the host's sinks it is.

    Raises:
        ConfigError: the configuration names no Kafka.
    """

    def __init__(self, settings: Settings, index: int) -> None:
        self._settings = settings
        self._index = index
        self._kafka = kafka_of(settings, _WHO)
        self.node_id = node_name("sink", index)
        self._stopping = threading.Event()  # take nothing more
        self._stop = threading.Event()  # give up what is under way
        self._database = Database(settings.direct_dsn, self._stop)
        letters = DeadLetters(self._kafka, settings.environment, self.node_id)
        self._keeping = Keeping(self._database, settings.environment, letters, self._stop)
        self._stream: LiveStream | None = None
        self._read = self._committed = 0
        self._latest = 0.0

    def stop(self) -> None:
        """Store what was read, and end."""
        self._stopping.set()

    def run(self) -> int:
        """Run until told to stop; return the exit code of the process."""
        logger.info("node %s starts", self.node_id)
        environment = self._settings.environment
        reporter = Reporter(self._settings.dsn, self.node_id, environment, "sink", self.counters)
        flow: Flow[Batch] = Flow([("store", self._keeping)])
        port, page = self._settings.sink.health_port, {"/metrics": self._page}
        probes = Probes(self._settings, port, self._index, health=self.health, pages=page)
        code = 0
        try:
            self._wait_for_topics()
            self._stream = LiveStream(self._kafka, environment, self.node_id, group="sink")
            while not self._stopping.is_set():
                self._turn(self._stream, flow)
            self._drain(self._stream, flow)
        except Stopped:
            pass
        except Exception:
            logger.exception("node %s cannot go on", self.node_id)
            code = 1
        self._stop.set()
        flow.close()
        if self._stream is not None:
            with contextlib.suppress(BrokerError):
                self._stream.close()
        reporter.close()
        probes.close()
        self._database.close()
        logger.info("node %s ends with %d, and counted %s", self.node_id, code, self.counters())
        return code

    def counters(self) -> dict[str, float]:
        """Return all counts, by name. Safe from any thread."""
        keeping, stream = self._keeping, self._stream
        return {
            "read": self._read,
            "committed": self._committed,
            "stored": keeping.stored,
            "repeated": keeping.repeated,
            "expired": keeping.expired,
            "dead": keeping.dead,
            "batches": keeping.batches,
            "days_made": keeping.days_made,
            "days_dropped": keeping.days_dropped,
            "database_away": self._database.away,
            "kafka_errors": stream.errors if stream else 0,
            "partitions": len(stream.partitions) if stream else 0,
            "behind_s": round(self._behind(), 3),
        }

    def health(self) -> Health:
        """Say how it is. Safe from any thread."""
        if self._stopping.is_set():
            return "draining"
        return "ready" if self._stream is not None else "starting"

    def _page(self) -> tuple[str, bytes]:
        environment = self._settings.environment
        return counted_page(SINK, environment, "sink", self.node_id, self.counters(), self.health())

    def _behind(self) -> float:
        """Return the age of the newest answer that is stored while more wait; 0 if none does."""
        return max(0.0, time.time() - self._latest) if self._latest and self._read > self._committed else 0.0

    def _turn(self, stream: LiveStream, flow: Flow[Batch]) -> None:
        """Take what has come if there is room for it, and commit what is stored."""
        room = flow.has_room
        messages = stream.poll(self._settings.sink.batch, _POLL_S if room else _LOOK_S, wanted=room)
        if messages:
            batch = read_batch(messages, self._settings.environment, fallbacks=True)
            self._read += len(messages)
            batch.moved = stream.partitions
            flow.put(batch)
        while (done := flow.take()) is not None:
            self._commit(stream, done)

    def _commit(self, stream: LiveStream, batch: Batch, *, wait: bool = False) -> None:
        stream.commit(batch.upto, batch.moved, wait=wait)
        read = {(one.message.partition(), one.message.offset()) for one in batch.records}
        self._committed += len(read | {(one.partition, one.offset) for one in batch.dead})
        self._latest = max([self._latest, *batch.latest.values()])

    def _drain(self, stream: LiveStream, flow: Flow[Batch]) -> None:
        give_up_at = time.monotonic() + DRAIN_S
        while flow.inside and time.monotonic() < give_up_at:
            if (done := flow.take(_LOOK_S)) is not None:
                self._commit(stream, done, wait=True)

    def _wait_for_topics(self) -> None:
        names = [topic(self._kafka, self._settings.environment, what) for what in ("live", "dead")]
        while not self._stopping.is_set():
            try:
                ensure_topics(self._kafka, names, timeout_s=_BROKER_S)
            except BrokerError as error:
                logger.warning("waiting: %s", error)
                self._stopping.wait(_BROKER_S / 2)
            else:
                return


def run_sink(settings: Settings, index: int) -> int:
    """Run a sink until SIGTERM or SIGINT; return the exit code of its process.

    Raises:
        ConfigError: as check_kafka; the process is as it was.
    """
    check_kafka(settings, _WHO)
    node = SinkNode(settings, index)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.stop())
    return node.run()
