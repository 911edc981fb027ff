"""Live records sent through everything that goes wrong at once, and what is found of them afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgpack

from actors.config import KafkaSettings
from actors.host import Host
from governance.database import migrate
from governance.embedded import EmbeddedPostgres
from shadow.broker import EmbeddedBroker
from shadow.kafka import consumer, ensure_topics, producer, topic
from shadow.record import LiveRecord
from tests.links import Link
from tests.shadow.object_store import ObjectStore
from tests.shadow.world import World, build

RUN = Path(__file__).parents[2] / "run.py"
#: Of a thousand records: sent twice, with a clock that is off, of an older writer; and poison beside them.
TWICE, SKEWED, OLDER, POISON = 50, 10, 10, 2
DAY_S = 86_400.0


@dataclass
class Found:
    """What was found.

    Attributes:
        sent: records, without those that came again.
        rows: results in the table.
        summed: results in the summary.
        poison: records that nobody can read, and
        laid_aside: how many of them are in the dead-letter topic, each counted once.
        messages: all that was sent.
        repeated: results that came again and changed nothing, as the nodes counted that lived at the end.
        restarts: of node processes.
        seconds: from the first record to the last result.
        faults: what went wrong, with the second it did.
    """

    sent: int
    rows: int = 0
    summed: int = 0
    poison: int = 0
    laid_aside: int = 0
    messages: int = 0
    repeated: int = 0
    restarts: int = 0
    seconds: float = 0.0
    faults: list[tuple[float, str]] = field(default_factory=list)


@contextlib.contextmanager
def broker_behind(directory: Path) -> Iterator[tuple[KafkaSettings, EmbeddedBroker | None, Link | None]]:
    """A broker, and the link to it that can be cut; neither for one that KAFKA_BOOTSTRAP_SERVERS names."""
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        prefix = f"faults-{os.getpid()}"
        yield (
            KafkaSettings(bootstrap_servers=named, topic_prefix=prefix, partitions=4, replication=1),
            None,
            None,
        )
        return
    with ObjectStore() as store, Link() as link:
        kept: dict[str, Any] = {"storage": store.storage, "variables": store.variables}
        with EmbeddedBroker(directory / "broker", advertised=link.port, **kept) as broker:
            link.target = broker.port
            yield broker.settings, broker, link


def run(count: int, directory: Path) -> Found:
    """Send so many records through all faults, and wait until nothing more comes of them."""
    found = Found(sent=count)
    with (
        EmbeddedPostgres(directory / "postgres") as postgres,
        broker_behind(directory) as (kafka, broker, link),
    ):
        migrate(postgres.dsn)
        world = build(postgres.dsn, kafka, directory, nodes=2, batch=500)
        world.start("one", model="other")
        ensure_topics(kafka, [topic(kafka, "test", what) for what in ("live", "dead", "shadow")])
        with Host(world.settings, world.file) as host:
            _Course(world, host, postgres, broker, link, found).run()
        found.laid_aside = letters(world, found.poison)
    return found


class _Course:
    """The order of events: how far the stream is says what goes wrong next."""

    def __init__(
        self,
        world: World,
        host: Host,
        postgres: EmbeddedPostgres,
        broker: EmbeddedBroker | None,
        link: Link | None,
        found: Found,
    ) -> None:
        self._world = world
        self._host = host
        self._postgres = postgres
        self._broker = broker
        self._link = link
        self._found = found
        self._began = 0.0
        self._joined: subprocess.Popen[bytes] | None = None
        self._sent = 0
        self._sending = threading.Thread(target=self._send, daemon=True)

    def run(self) -> None:
        self._wait(lambda: self._nodes() == 2, "two nodes")
        self._began = time.monotonic()
        self._sending.start()
        try:
            for share, fault in (
                (0.10, self._kill_a_node),
                (0.25, self._cut_the_link),
                (0.40, self._let_a_node_join),
                (0.55, self._crash_postgres),
                (0.65, self._restart_the_broker),
                (0.75, self._stop_a_node_for_longer_than_its_session),
                (0.85, self._kill_a_node),
            ):
                due = share * self._found.sent
                self._wait(lambda due=due: self._count()[0] >= due, f"{share:.0%} of the results")
                fault()
            self._wait(lambda: self._count()[0] >= self._found.sent, "all results", 120)
            self._found.seconds = time.monotonic() - self._began
            self._sending.join()
            self._found.rows, self._found.summed = self._count()
            self._found.repeated = self._nodes("sum((counters ->> 'repeated')::integer)")
        finally:
            if self._joined is not None:
                self._joined.terminate()
                self._joined.wait()
        self._found.restarts = sum(self._host.restarts().values())

    def _send(self) -> None:
        """Send the stream at a pace at which each fault meets records on their way."""
        randomly = random.Random(0)
        sender = producer(self._world.kafka)
        name = topic(self._world.kafka, "test", "live")
        chunk = max(100, self._found.sent // 100)
        for start in range(0, self._found.sent, chunk):
            numbers = range(start, min(self._found.sent, start + chunk))
            messages = list(self._messages(numbers, randomly))
            randomly.shuffle(messages)
            for key, value in messages:
                while True:
                    try:
                        sender.produce(name, key=key, value=value)
                        break
                    except BufferError:
                        sender.poll(0.1)
                sender.poll(0)
            self._found.messages += len(messages)
            while sender.flush(1.0):  # for as long as the broker is away
                pass
            self._sent = start + len(numbers)

    def _messages(self, numbers: range, randomly: random.Random) -> Iterator[tuple[bytes, bytes]]:
        for record in self._world.records(numbers):
            body = self._body(record, randomly)
            for _ in range(2 if randomly.random() < TWICE / 1000 else 1):
                yield record.id.encode(), body
            if randomly.random() < POISON / 1000:
                self._found.poison += 1
                yield record.id.encode(), b"poison %d" % self._found.poison

    @staticmethod
    def _body(record: LiveRecord, randomly: random.Random) -> bytes:
        dice = randomly.random() * 1000
        if dice < SKEWED:
            return replace(record, at=record.at + randomly.choice((-1, 1)) * DAY_S).pack()
        body = record.pack()
        if dice < SKEWED + OLDER:  # without what was added later, and with what is not known any more
            fields: dict[str, Any] = msgpack.unpackb(body)
            for name in ("us", "canary", "nodes"):
                del fields[name]
            older: bytes = msgpack.packb({**fields, "gone": 1})
            return older
        return body

    def _kill_a_node(self) -> None:
        self._note("a node is killed")
        os.kill(self._host.pids()["shadow-0"], signal.SIGKILL)

    def _cut_the_link(self) -> None:
        if self._link is None:
            return
        self._note("the link to the broker is cut")
        self._link.cut()
        time.sleep(4)
        self._link.mend()

    def _restart_the_broker(self) -> None:
        # In order: one that is killed has noted the number of a batch before it stored the batch, and tells
        # whoever sends that again that it has it. Apache Kafka does not.
        if self._broker is None:
            return
        self._note("the broker is stopped, and started again")
        self._broker.shut_down()
        time.sleep(2)
        self._broker.start()

    def _let_a_node_join(self) -> None:
        self._note("a third node joins")
        command = [sys.executable, str(RUN), "node", "shadow", "--index=2", f"--config={self._world.file}"]
        with (self._world.file.parent / "logs" / "shadow-2.log").open("ab") as log:
            self._joined = subprocess.Popen(command, stdout=log, stderr=log)

    def _crash_postgres(self) -> None:
        self._note("postgres crashes")
        self._postgres.kill()
        time.sleep(4)
        self._postgres.start()

    def _stop_a_node_for_longer_than_its_session(self) -> None:
        self._note("a node is stopped, and goes on when its partitions are others'")
        pid = self._host.pids()["shadow-1"]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(8)
        os.kill(pid, signal.SIGCONT)

    def _note(self, what: str) -> None:
        self._found.faults.append((round(time.monotonic() - self._began, 1), what))

    def _nodes(self, what: str = "count(*)") -> int:
        with self._world.connect() as connection:
            row = connection.execute(f"SELECT {what} AS n FROM shadow_node".encode()).fetchone()
        return int(row["n"]) if row else 0

    def _count(self) -> tuple[int, int]:
        return self._world.counted()["one"]

    @staticmethod
    def _wait(condition: Any, what: str, timeout_s: float = 120) -> None:
        give_up_at = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < give_up_at, f"waited {timeout_s} s in vain: {what}"
            time.sleep(0.1)


def letters(world: World, expected: int) -> int:
    """Return how many different records are in the dead-letter topic; wait for those that are expected."""
    receiver = consumer(world.kafka, "undertaker")
    receiver.subscribe([topic(world.kafka, "test", "dead")])
    found: set[bytes] = set()
    give_up_at = time.monotonic() + 20
    while len(found) < expected and time.monotonic() < give_up_at:
        found |= {message.value() for message in receiver.consume(500, 0.2) if message.error() is None}
    receiver.close()
    return len(found)
