"""The tee of a host: takes what its preprocessors answered, and sees to it that Kafka gets it."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

import pykka
import zmq

from actors.config import Settings, node_name, spool_directory, tee_address
from actors.probes import Probes
from actors.serving import MailboxActor
from actors.supervisor import ChildSpec, Supervisor, run_top
from models.field_policy import hash_key
from shadow.connector import Connector
from shadow.errors import RecordError
from shadow.kafka import topic
from shadow.live import Sampler, live_record
from shadow.metrics import TEE, counted_page
from shadow.outlet import Outlet, Ticket
from shadow.reporting import Reporter
from shadow.spool import Spool
from transport.health import Health
from transport.mailbox import Timer
from transport.tee import TeeIntake
from transport.tee_wire import RawRecord

logger = logging.getLogger(__name__)

#: Records that may be in memory and not safe; beyond that the senders wait.
MAX_HELD: Final = 50_000
#: How far the tee stands back behind the live nodes of its host.
NICE: Final = 5
#: Seconds that a stopping tee waits for Kafka before it spools what is on its way.
STOP_S: Final = 2.0
#: How long, and how many records that are safe, before their preprocessors are told: each word wakes one.
ACKNOWLEDGE_S: Final = 0.2
ACKNOWLEDGE_RECORDS: Final = 500
#: Seconds without a hello after which a preprocessor is forgotten.
FORGET_S: Final = 60.0
_TIDY_S, _LOG_S = 5.0, 60.0


#: What tells the counts of the actor that works now.
Shown = dict[str, Callable[[], Mapping[str, float]]]


class TeeActor(MailboxActor):
    """Takes records, makes live records of them, and acknowledges each once it is safe.

    Args:
        settings: the host's configuration, with [kafka].
        node_id: who it is.
        context: the node's ZeroMQ context.
        shown: takes what tells its counts, under `tee`, for as long as it works.
    """

    def __init__(
        self, settings: Settings, node_id: str, context: zmq.Context[zmq.Socket[bytes]], shown: Shown
    ) -> None:
        super().__init__()
        self._shown = shown
        self._settings = settings
        self._node_id = node_id
        self._context = context
        self._hash_key = hash_key(settings.tee.hash_key)
        self._sampler = Sampler(settings.tee.sample, settings.tee.always)
        self._counts = Counter(taken=0, malformed=0, sampled_out=0)
        self._waiting: dict[str, OrderedDict[int, None]] = {}
        self._last: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._senders: dict[str, tuple[float, Mapping[str, int]]] = {}
        self._gone: Counter[str] = Counter()
        self._changed: set[str] = set()
        self._safe = 0
        self._acknowledged_at = 0.0
        self._holding = False

    def on_start(self) -> None:
        """Open the spool, begin to look for Kafka, and listen."""
        settings = self._settings
        assert settings.kafka is not None  # noqa: S101 - run_tee has looked
        directory = spool_directory(settings)
        self._spool = Spool(directory, int(settings.tee.spool_mb * 1e6))
        try:
            names = [topic(settings.kafka, settings.environment, what) for what in ("live", "dead")]
            self._connector = Connector(settings.kafka, names)
            self._outlet = Outlet(names[0], self._spool, self._connector, self._note_safe)
            self._intake = TeeIntake(
                self.loop,
                self._context,
                tee_address(settings),
                on_records=self._take,
                on_hello=self._hear,
            )
        except BaseException:
            self._spool.close()
            raise
        self.loop.add(self)
        self.loop.add(Timer(_TIDY_S, self._tidy))
        self.loop.add(Timer(_LOG_S, self._log))
        self._reporter = Reporter(settings.dsn, self._node_id, settings.environment, "tee", self.counters)
        self._shown["tee"] = self.counters

    def due(self) -> float:
        """Return when to look at the outlet again."""
        due = self._outlet.due()
        return min(due, self._acknowledged_at + ACKNOWLEDGE_S) if self._changed else due

    def pump(self) -> None:
        """Let the outlet work, and acknowledge what is safe."""
        self._outlet.pump()
        self._acknowledge()

    def on_stop(self) -> None:
        """Take no more, and bring what was taken to Kafka or to the disk."""
        self._connector.close()
        self._outlet.close(STOP_S)
        self._acknowledge(at_once=True)
        self._close()

    def on_failure(self, *_: object) -> None:
        """Let all go: what was not acknowledged is sent again."""
        self._connector.close()
        self._close()

    def counters(self) -> dict[str, float]:
        """Return all counts, by name. Safe from any thread."""
        sent = Counter(self._gone)
        for _, counters in list(self._senders.values()):
            sent.update({name: counters.get(name, 0) for name in _SENT})
        return {
            **dict(self._counts),
            **{f"preprocessors_{name}": sent[name] for name in _SENT},
            "delivered": self._outlet.delivered,
            "spooled": self._outlet.spooled,
            "replayed": self._outlet.replayed,
            "refused": self._outlet.refused,
            "held": self._outlet.held,
            "kafka_away": int(self._outlet.state == "away"),
            "spool_records": len(self._spool),
            "spool_bytes": self._spool.size,
            "spool_dropped": self._spool.dropped,
            "spool_corrupt": self._spool.corrupt,
            "unreadable": self._intake.unreadable,
            "repeated": self._intake.repeated,
        }

    # -- from the preprocessors

    def _take(self, node: str, records: list[RawRecord]) -> None:
        waiting = self._waiting.setdefault(node, OrderedDict())
        self._changed.add(node)
        for raw in records:
            self._counts["taken"] += 1
            self._last[node] = raw.seq
            try:
                record = live_record(raw, node, self._hash_key, self._sampler)
                packed = record.pack() if record is not None else b""
            except RecordError as error:
                self._counts["malformed"] += 1
                logger.error("left out: %s", error)  # noqa: TRY400 - its text says it all
                continue
            if record is None:
                self._counts["sampled_out"] += 1
                continue
            waiting[raw.seq] = None
            self._outlet.send((node, raw.seq), record.id.encode("utf-8"), packed)
        self._outlet.pump()
        self._acknowledge()

    def _hear(self, node: str, counters: Mapping[str, int]) -> None:
        self._senders[node] = (time.monotonic(), counters)

    # -- to the preprocessors

    def _note_safe(self, ticket: Ticket) -> None:
        node, seq = ticket
        self._waiting[node].pop(seq, None)
        self._changed.add(node)
        self._safe += 1

    def _acknowledge(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or self._safe >= ACKNOWLEDGE_RECORDS or now >= self._acknowledged_at + ACKNOWLEDGE_S:
            self._acknowledged_at, self._safe = now, 0
            self._tell_what_is_safe()
        full = self._outlet.held > MAX_HELD
        if full != self._holding:
            self._holding = full
            self._intake.hold(off=full)

    def _tell_what_is_safe(self) -> None:
        for node in self._changed:
            first = next(iter(self._waiting[node]), None)
            safe = self._last[node] if first is None else first - 1
            if safe > self._told.get(node, 0):
                self._told[node] = safe
                self._intake.acknowledge(node, safe)
        self._changed.clear()

    def _tidy(self) -> None:
        horizon = time.monotonic() - FORGET_S
        for node, (heard, counters) in list(self._senders.items()):
            if heard < horizon and not self._waiting.get(node):
                self._gone.update({name: counters.get(name, 0) for name in _SENT})
                del self._senders[node]
                self._waiting.pop(node, None)
                self._last.pop(node, None)
                self._told.pop(node, None)
                self._intake.forget(node)

    def _log(self) -> None:
        logger.info("the tee counted %s", {k: v for k, v in self.counters().items() if v})

    def _close(self) -> None:
        self._shown.pop("tee", None)
        self._log()
        self._intake.close()
        self._reporter.close()
        self._spool.close()


#: What preprocessors count that adds up.
_SENT: Final = ("offered", "acknowledged", "dropped", "resent")


def run_tee(settings: Settings, index: int, port: int | None) -> int:
    """Run the tee of this host; return the exit code of its process."""
    del port
    node_id = node_name("tee", index)
    os.nice(NICE)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()

    shown: Shown = {}

    def start() -> pykka.ActorRef[Any]:
        return TeeActor.start(settings, node_id, context, shown)

    def health() -> Health:
        return "ready" if shown else "starting"

    def page() -> tuple[str, bytes]:
        counters = shown.get("tee", dict)
        return counted_page(TEE, settings.environment, "tee", node_id, counters(), health())

    with Probes(settings, settings.tee.health_port, health=health, pages={"/metrics": page}):
        code = run_top(lambda: Supervisor.start([ChildSpec("tee", start)], max_restarts=5, period_s=10.0))
    context.destroy(linger=0)
    return code
