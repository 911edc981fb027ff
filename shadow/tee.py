"""The tee of a host: takes what its preprocessors answered, and sees to it that Kafka gets it.

Nobody tells it that there is something: it looks into the rings, so that no answer pays for a word to it. It
takes at once what has come together, and looks again a quarter of a second later, or sooner where much comes:
the more there is at a time, the less each record costs it, Kafka's client and the broker.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import pykka

from actors.config import Settings, node_name, ring_directory, spool_directory
from actors.mailbox_actor import MailboxActor
from actors.priority import Breather, step_back
from actors.probes import Probes
from actors.supervisor import ChildSpec, Supervisor, run_top
from models.field_policy import hash_key
from shadow.connector import Connector
from shadow.errors import RecordError
from shadow.intake import TURN, Intake
from shadow.kafka import check_kafka, kafka_of, topic
from shadow.live import Sampler, live_record
from shadow.metrics import TEE, counted_page
from shadow.outlet import Outlet, Ticket
from shadow.reporting import Reporter
from shadow.spool import Spool
from transport.health import Health
from transport.mailbox import Timer
from transport.tee_record import RawRecord

logger = logging.getLogger(__name__)

#: Records that may be in memory and not safe; beyond that the rest stays in the rings.
MAX_HELD: Final = 50_000
#: How far the tee stands back behind the live nodes of its host: it has to keep up with them all the same.
NICE: Final = 5
#: Seconds that a stopping tee reads on at most, and waits for Kafka before it spools what is on its way.
STOP_S: Final = 2.0
#: Seconds between two looks into the rings, at least and at most; and how many records a look is to find.
LEAST_S, READ_S, WANTED = 0.05, 0.25, 200
#: Seconds between two looks for rings that are new, or done with.
LOOK_S: Final = 0.5
_LOG_S: Final = 60.0
_WHO: Final = "a tee"


#: What tells the counts of the actor that works now.
Shown = dict[str, Callable[[], Mapping[str, float]]]


class TeeActor(MailboxActor):
    """Takes records, makes live records of them, and acknowledges each once it is safe.

    Args:
        settings: the host's configuration, with [kafka].
        node_id: who it is.
        shown: takes what tells its counts, under `tee`, for as long as it works.
    """

    def __init__(self, settings: Settings, node_id: str, shown: Shown) -> None:
        super().__init__()
        self._shown = shown
        self._settings = settings
        self._node_id = node_id
        self._hash_key = hash_key(settings.tee.hash_key)
        self._sampler = Sampler(settings.tee.sample, settings.tee.always)
        self._counts = Counter(taken=0, malformed=0, sampled_out=0)
        self._breather = Breather()
        self._pause = READ_S
        self._read_at = 0.0

    def on_start(self) -> None:
        """Open the spool, begin to look for Kafka, and find the rings."""
        settings = self._settings
        kafka = kafka_of(settings, _WHO)
        self._spool = Spool(spool_directory(settings), int(settings.tee.spool_mb * 1e6))
        try:
            self._intake = Intake(ring_directory(settings), self._take)
            names = [topic(kafka, settings.environment, what) for what in ("live", "dead")]
            self._connector = Connector(kafka, names)
            self._outlet = Outlet(names[0], self._spool, self._connector, self._settle)
        except BaseException:
            self._spool.close()
            raise
        self._intake.look()
        self.loop.add(self)
        self.loop.add(Timer(LOOK_S, self._intake.look))
        self.loop.add(Timer(_LOG_S, self._log))
        self._reporter = Reporter(settings.dsn, self._node_id, settings.environment, "tee", self.counters)
        self._shown["tee"] = self.counters

    def due(self) -> float:
        """Return when to look again."""
        return min(self._outlet.due(), self._read_at)

    def pump(self) -> None:
        """Take what has come, let the outlet work, and say what is safe."""
        found = 0
        if self._outlet.held <= MAX_HELD:
            found = self._intake.read()
        self._pause = min(READ_S, max(LEAST_S, self._pause * WANTED / max(found, 1)))
        self._read_at = time.monotonic() + (0.0 if found >= TURN else self._pause)
        self._outlet.pump()
        self._intake.settle_all()

    def on_stop(self) -> None:
        """Bring what was answered to Kafka or to the disk; what there is no time for stays in its ring."""
        give_up_at = time.monotonic() + STOP_S
        self._intake.look()
        while self._intake.read() and time.monotonic() < give_up_at:
            self._outlet.pump()
        self._connector.close()
        self._outlet.close(STOP_S)
        self._intake.settle_all()
        self._intake.look()
        self._close()

    def on_failure(self, *_: object) -> None:
        """Let all go: what is not safe stays in the rings."""
        self._connector.close()
        self._close()

    def counters(self) -> dict[str, float]:
        """Return all counts, by name. Safe from any thread."""
        return {
            **dict(self._counts),
            **{f"preprocessors_{name}": count for name, count in self._intake.counters().items()},
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
        }

    def _take(self, raw: RawRecord, node: str, ticket: Ticket) -> bool:
        """Bring a record on its way; say whether it has one."""
        self._breather.breathe()
        self._counts["taken"] += 1
        try:
            record = live_record(raw, node, self._hash_key, self._sampler)
            packed = record.pack() if record is not None else b""
        except RecordError as error:
            self._counts["malformed"] += 1
            logger.error("left out: %s", error)  # noqa: TRY400 - its text says it all
            return False
        if record is None:
            self._counts["sampled_out"] += 1
            return False
        self._outlet.send(ticket, record.id.encode("utf-8"), packed)
        return True

    def _settle(self, ticket: Ticket) -> None:
        self._breather.breathe()
        self._intake.settle(ticket)

    def _log(self) -> None:
        logger.info("the tee counted %s", {k: v for k, v in self.counters().items() if v})

    def _close(self) -> None:
        self._shown.pop("tee", None)
        self._log()
        self._intake.close()
        self._reporter.close()
        self._spool.close()


def run_tee(settings: Settings, index: int, port: int | None) -> int:
    """Run the tee of this host; return the exit code of its process.

    Raises:
        ConfigError: as check_kafka; the process is as it was.
    """
    del port
    check_kafka(settings, _WHO)
    node_id = node_name("tee", index)
    step_back(NICE, session=False)
    shown: Shown = {}

    def start() -> pykka.ActorRef[Any]:
        return TeeActor.start(settings, node_id, shown)

    def health() -> Health:
        return "ready" if shown else "starting"

    def page() -> tuple[str, bytes]:
        counters = shown.get("tee", dict)
        return counted_page(TEE, settings.environment, "tee", node_id, counters(), health())

    with Probes(settings, settings.tee.health_port, health=health, pages={"/metrics": page}):
        return run_top(lambda: Supervisor.start([ChildSpec("tee", start)], max_restarts=5, period_s=10.0))
