"""The tee while things go wrong for real: Kafka cut off, killed and stopped tees, preprocessors that go."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition
from sklearn.ensemble import RandomForestClassifier

from actors.config import ring_directory
from examples.card_payments import PAYMENT_SPEC, simulate
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.streams import stream_nodes
from models.importers import import_model
from models.spec import load_spec
from shadow.broker import EmbeddedBroker
from shadow.kafka import consumer, topic
from shadow.record import LiveRecord, unpack_record
from tests.acceptance.conftest import System, start_system, wait_until
from tests.links import Link
from transport.client import Client


@dataclass
class Topic:
    """All that has arrived in a topic, in the order of its partitions."""

    reader: Consumer
    name: str
    partitions: int
    records: list[LiveRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reader.assign([TopicPartition(self.name, number, 0) for number in range(self.partitions)])

    def read(self) -> list[LiveRecord]:
        while messages := self.reader.consume(500, 0.2):
            self.records += [unpack_record(m.value()) for m in messages if m.error() is None]
        return self.records

    def ids(self) -> set[str]:
        return {record.id for record in self.read()}


@dataclass
class Teed:
    """A system with a tee, a link to Kafka that can be cut, and payments that are told apart."""

    system: System
    link: Link
    payments: list[dict[str, Any]]
    client: Client
    sent: int = 0

    def topic(self) -> Topic:
        settings = self.system.settings
        assert settings.kafka is not None
        reader = consumer(settings.kafka, "test", fetch_wait_max_ms=10)
        return Topic(reader, topic(settings.kafka, settings.environment, "live"), settings.kafka.partitions)

    def score(self, count: int) -> list[str]:
        """Score so many payments; return their ids, each of which is another."""
        ids = [f"tx-{self.sent + number}" for number in range(count)]
        self.sent += count
        payments = [{**self.payments[n % len(self.payments)], "id": id_} for n, id_ in enumerate(ids)]
        answers = list(self.client.score_many(payments, window=16))
        assert [getattr(answer, "id", answer) for answer in answers] == ids
        return ids

    @contextmanager
    def stream(self) -> Iterator[list[str]]:
        """Score payments until the block ends."""
        ids: list[str] = []
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                ids.extend(self.score(16))
                time.sleep(0.02)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield ids
        finally:
            over.set()
            thread.join()

    def counters(self) -> dict[str, float]:
        """Return what the tee says in the database."""
        with connect(self.system.settings.dsn) as connection:
            nodes = stream_nodes(connection, self.system.settings.environment)
        found = [node for node in nodes if node.role == "tee"]
        return dict(max(found, key=lambda node: node.joined_at).counters) if found else {}

    def kill(self, node: str, how: signal.Signals) -> int:
        pid = self.system.host.pids()[node]
        os.kill(pid, how)
        return pid


@pytest.fixture(scope="module")
def teed(directory: Path) -> Iterator[Teed]:
    with (
        EmbeddedPostgres(directory / "postgres") as postgres,
        Link() as link,
        EmbeddedBroker(directory / "broker", advertised=link.port) as broker,
    ):
        link.target = broker.port
        migrate(postgres.dsn)
        kafka = (
            f"[kafka]\nbootstrap_servers = '{broker.bootstrap_servers}'\npartitions = 4\nreplication = 1\n"
        )
        tee = "[tee]\nmemory_mb = 6\n[sink]\nnodes = 0\n"
        system = start_system(directory, postgres, preprocessors=1, scorers=1, more=kafka + tee)
        try:
            payments = serve(system)
            with Client(system.addresses(), deadline=60.0) as client:  # a killed node starts anew meanwhile
                yield Teed(system, link, payments, client)
        finally:
            system.host.stop()


def serve(system: System) -> list[dict[str, Any]]:
    """Promote a model; return payments for it."""
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=2_000, seed=3)
    forest = RandomForestClassifier(10, random_state=0).fit(spec.matrix(payments), labels)
    bundle = import_model(forest, system.directory / "m.bundle", feature_names=list(spec.feature_names))
    system.wait_for_nodes()
    settled = system.promote(
        features=system.register(PAYMENT_SPEC, "feature_spec", "card-payments"),
        model=system.register(bundle.path, "bundle", "forest"),
    )
    assert settled.state == "active", settled
    return payments


def arrived(topic: Topic, ids: list[str]) -> Callable[[], bool]:
    return lambda: set(ids) <= topic.ids()


def in_order(records: list[LiveRecord]) -> bool:
    """Say whether each node's records came in the order of their numbers, but for what came again."""
    first: dict[tuple[str, int], int] = {}
    for place, record in enumerate(records):
        first.setdefault((record.node, record.seq), place)
    of_key: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for record in records:
        of_key[record.id].append((record.seq, first[record.node, record.seq]))
    return all(sorted(seen, key=lambda one: one[1]) == sorted(seen) for seen in of_key.values())


def test_every_answer_is_in_kafka_with_what_it_was_computed_from(teed: Teed) -> None:
    payment = {**teed.payments[0], "id": "looked-at"}
    answer = teed.client.score(payment)
    topic = teed.topic()
    wait_until(arrived(topic, ["looked-at", *teed.score(50)]), "all records")
    (record,) = [one for one in topic.records if one.id == "looked-at"]
    spec = load_spec(PAYMENT_SPEC)
    assert record.transaction == payment
    assert record.features == {"features": spec.vector(payment).tobytes()}
    assert record.scores == answer.scores
    assert list(record.scores) == list(answer.scores)
    assert (record.release, dict(record.pipeline)) == (answer.trace.release, dict(answer.trace.pipeline))
    assert record.nodes == answer.trace.nodes
    assert record.us == answer.trace.us
    assert abs(record.at - time.time()) < 60
    seqs = [one.seq for one in topic.records]
    assert sorted(seqs) == list(range(1, len(seqs) + 1))


def test_while_kafka_is_cut_off_answers_go_on_and_all_arrive_in_order_later(teed: Teed) -> None:
    topic = teed.topic()
    with teed.stream() as ids:
        wait_until(lambda: len(ids) > 100, "a stream")
        teed.link.cut()
        wait_until(lambda: teed.counters().get("spool_records", 0) > 100, "records in the spool")
        teed.link.mend()
        wait_until(lambda: teed.counters().get("spool_records", 1) == 0, "an empty spool")
    wait_until(arrived(topic, ids), "all records")
    assert in_order(topic.records)
    assert teed.counters()["spool_dropped"] == 0


def test_a_killed_tee_loses_nothing_neither_in_memory_nor_on_disk(teed: Teed) -> None:
    topic = teed.topic()
    with teed.stream() as ids:
        wait_until(lambda: len(ids) > 100, "a stream")
        teed.kill("tee-0", signal.SIGKILL)
        before = len(ids)
        wait_until(lambda: len(ids) > before + 100, "answers without a tee")
        teed.link.cut()
        wait_until(lambda: teed.counters().get("spool_records", 0) > 100, "records in the spool")
        teed.kill("tee-0", signal.SIGKILL)
        before = len(ids)
        wait_until(lambda: len(ids) > before + 100, "answers without a tee")
        teed.link.mend()
    wait_until(arrived(topic, ids), "all records")


def test_a_stopped_tee_costs_no_answer_and_little_memory_and_what_is_dropped_is_counted(teed: Teed) -> None:
    topic = teed.topic()
    preprocessor = psutil.Process(teed.system.host.pids()["preprocessor-0"])
    teed.score(200)
    pid = teed.kill("tee-0", signal.SIGSTOP)
    before = preprocessor.memory_info().rss
    try:
        ids = teed.score(12_000)  # more than fits into memory_mb
        assert preprocessor.memory_info().rss - before < 24e6
    finally:
        os.kill(pid, signal.SIGCONT)
    last = teed.score(1)
    wait_until(arrived(topic, last), "the last record")
    wait_until(lambda: teed.counters().get("preprocessors_dropped", 0) > 0, "a count of what was dropped")
    found = topic.ids() & set(ids)
    wait_until(
        lambda: len(topic.ids() & set(ids)) + teed.counters()["preprocessors_dropped"] >= len(ids), "all"
    )
    assert len(found) < len(ids)


def test_a_preprocessor_that_is_stopped_leaves_what_it_answered_to_the_tee(teed: Teed) -> None:
    topic = teed.topic()
    ids = teed.score(300)
    restarts = teed.system.host.restarts()["preprocessor-0"]
    teed.kill("preprocessor-0", signal.SIGTERM)
    wait_until(arrived(topic, ids), "all records")
    wait_until(lambda: teed.system.host.restarts()["preprocessor-0"] > restarts, "a new preprocessor")
    more = teed.score(20)
    wait_until(arrived(topic, more), "records of its successor")
    assert json.dumps(teed.counters())


def test_a_preprocessor_and_a_tee_that_are_killed_together_lose_no_answer(teed: Teed) -> None:
    topic = teed.topic()
    teed.score(50)
    tee = teed.kill("tee-0", signal.SIGSTOP)
    try:
        ids = teed.score(300)  # none of which the tee can have seen
        restarts = teed.system.host.restarts()["preprocessor-0"]
        teed.kill("preprocessor-0", signal.SIGKILL)
        wait_until(lambda: teed.system.host.restarts()["preprocessor-0"] > restarts, "a new preprocessor")
        ids += teed.score(20)
    finally:
        os.kill(tee, signal.SIGKILL)
    wait_until(arrived(topic, ids), "all records, of both lives")
    rings = ring_directory(teed.system.settings)
    wait_until(lambda: len(list(rings.iterdir())) == 1, "only the ring of the preprocessor that lives")
