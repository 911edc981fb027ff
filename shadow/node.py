"""A shadow node: reads the live topic as one of a group, and has each running shadow evaluate it."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Sequence
from typing import Final

from actors.config import Settings, node_name
from actors.priority import step_back
from actors.probes import Probes
from shadow.batch import Batch, read_batch
from shadow.errors import BrokerError, Stopped
from shadow.evaluating import Evaluating
from shadow.flow import Flow
from shadow.kafka import check_kafka, ensure_topics, kafka_of, topic
from shadow.keeper import Keeper, Place, Sign
from shadow.letters import DeadLetters
from shadow.metrics import shadow_page
from shadow.outlets import outlets
from shadow.process import PROGRAM, CandidateProcess, limits_of
from shadow.replaying import ReplayWorker
from shadow.store import Summarise
from shadow.storing import Database, Storing
from shadow.stream import LiveStream
from shadow.summary import fold, merge
from transport.health import Health

logger = logging.getLogger(__name__)

#: Seconds that a node may take to finish what it has begun when it is told to stop.
DRAIN_S: Final = 8.0
_POLL_S, _LOOK_S = 0.1, 0.05
_BROKER_S = 2.0
_WHO: Final = "a shadow node"


class ShadowNode:
    """One process of the group; more of them share the partitions.

    Args:
        settings: the host's configuration.
        index: which of the host's shadow nodes it is.
        program: the command line of a candidate's process.

    Raises:
        ConfigError: the configuration names no Kafka.
    """

    def __init__(self, settings: Settings, index: int, program: Sequence[str] = PROGRAM) -> None:
        self._settings = settings
        self._index = index
        self._kafka = kafka_of(settings, _WHO)
        self.node_id = node_name("shadow", index)
        self._stopping = threading.Event()  # take nothing more
        self._stop = threading.Event()  # give up what is under way
        limits = limits_of(settings)
        self._database = Database(settings.direct_dsn, self._stop)
        self._evaluating = Evaluating(
            lambda shadow: CandidateProcess(shadow.overrides, settings, limits, program),
            lambda: self._keeper.running or (),
            self._stop,
        )
        self._letters = DeadLetters(self._kafka, settings.environment, self.node_id)
        self._outlets = outlets(settings, self.node_id, self._stop)
        self._storing = Storing(
            self._database, Summarise(fold, merge), self._outlets, self._letters, self._stop
        )
        self._keeper = Keeper(settings.direct_dsn, settings.environment, self.node_id, self._sign)
        self._replaying = threading.Thread(
            target=ReplayWorker(settings, self.node_id, self._stopping, program=program).run,
            name="replay",
            daemon=True,
        )
        self._stream: LiveStream | None = None
        self._places: dict[int, Place] = {}
        self._read = self._committed = 0

    def stop(self) -> None:
        """Finish what is under way, and end."""
        self._stopping.set()

    def run(self) -> int:
        """Run until told to stop; return the exit code of the process."""
        logger.info("node %s starts", self.node_id)
        flow: Flow[Batch] = Flow([("evaluate", self._evaluating), ("store", self._storing)])
        port, page = self._settings.shadow.health_port, {"/metrics": self._page}
        probes = Probes(self._settings, port, self._index, health=self.health, pages=page)
        code = 0
        self._keeper.start()
        try:
            self._wait_for_what_it_needs()
            self._replaying.start()
            self._stream = LiveStream(self._kafka, self._settings.environment, self.node_id)
            while not self._stopping.is_set():
                self._turn(flow)
            self._drain(flow)
        except Stopped:
            pass
        except Exception:
            logger.exception("node %s cannot go on", self.node_id)
            code = 1
        self._close(flow)
        probes.close()
        logger.info("node %s ends with %d", self.node_id, code)
        return code

    def _turn(self, flow: Flow[Batch]) -> None:
        """Take what has come if there is room for it, and commit what is done."""
        stream = self._stream
        assert stream is not None  # noqa: S101 - run has made it
        room = flow.has_room and self._keeper.running is not None
        messages = stream.poll(self._settings.shadow.batch, _POLL_S if room else _LOOK_S, wanted=room)
        if messages:
            batch = read_batch(messages, self._settings.environment)
            self._read += len(messages)
            batch.moved = stream.partitions
            flow.put(batch)
        while (done := flow.take()) is not None:
            self._commit(done)
        for outlet in self._outlets:
            outlet.look()

    def _commit(self, batch: Batch, *, wait: bool = False) -> None:
        stream = self._stream
        assert stream is not None  # noqa: S101 - run has made it
        now = time.time()
        for partition in stream.commit(batch.upto, batch.moved, wait=wait):
            position, high = batch.upto[partition], stream.high(partition)
            behind = now - batch.latest.get(partition, now) if position < high else 0.0
            self._places[partition] = Place(position, high, max(0.0, behind))
        self._committed += len(batch.records) + len(batch.dead)

    def _drain(self, flow: Flow[Batch]) -> None:
        """Finish what is under way, for a while."""
        give_up_at = time.monotonic() + DRAIN_S
        while flow.inside and time.monotonic() < give_up_at:
            if (done := flow.take(_LOOK_S)) is not None:
                self._commit(done, wait=True)

    def _wait_for_what_it_needs(self) -> None:
        """Wait for the broker, and to know the shadows: before that, records would be passed by."""
        kafka, environment = self._kafka, self._settings.environment
        names = [topic(kafka, environment, what) for what in ("live", "dead", "shadow")]
        while not self._stopping.is_set():
            try:
                ensure_topics(kafka, names, timeout_s=_BROKER_S)
                break
            except BrokerError as error:
                logger.warning("waiting: %s", error)
                self._stopping.wait(_BROKER_S / 2)
        while self._keeper.running is None and not self._stopping.wait(_LOOK_S):
            pass

    def _sign(self) -> Sign:
        stream, storing = self._stream, self._storing
        held = stream.partitions if stream else {}
        counters = {
            "read": self._read,
            "committed": self._committed,
            "stored": storing.stored,
            "repeated": storing.repeated,
            "unstorable": storing.unstorable,
            "dead": storing.dead,
            "database_away": self._database.away,
            "kafka_errors": stream.errors if stream else 0,
            "partitions_moved": stream.moves if stream else 0,
        }
        places = {one: place for one, place in list(self._places.items()) if one in held}
        return Sign(counters, self._evaluating.counters(), places, self._evaluating.broken())

    def health(self) -> Health:
        """Say how it is. Safe from any thread."""
        if self._stopping.is_set():
            return "draining"
        return "ready" if self._stream is not None else "starting"

    def _page(self) -> tuple[str, bytes]:
        return shadow_page(self._settings.environment, self.node_id, self._sign(), self.health())

    def _close(self, flow: Flow[Batch]) -> None:
        self._stop.set()
        flow.close()
        self._evaluating.close()
        for outlet in self._outlets:
            outlet.close()
        self._keeper.close()  # while its partitions are still this node's
        if self._stream is not None:
            with contextlib.suppress(BrokerError):
                self._stream.close()
        self._database.close()


def run_shadow_node(settings: Settings, index: int) -> int:
    """Run a shadow node until SIGTERM or SIGINT; return the exit code of the process.

    Raises:
        ConfigError: as check_kafka; the process is as it was.
    """
    check_kafka(settings, _WHO)
    step_back(settings.shadow.nice)  # live nodes of the same host come first
    node = ShadowNode(settings, index)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: node.stop())
    return node.run()
