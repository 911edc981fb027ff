from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition

from shadow import outlet as module
from shadow.broker import EmbeddedBroker
from shadow.connector import Connector
from shadow.kafka import consumer, topic
from shadow.outlet import Outlet, Ticket
from shadow.spool import Spool
from tests.links import Link


class Rig:
    """An outlet, its spool, and a broker behind a link that can be cut."""

    def __init__(self, broker: EmbeddedBroker, link: Link, directory: Path) -> None:
        self.broker = broker
        self.settings = settings = broker.settings
        self.link = link
        self.spool = Spool(directory, 1 << 20)
        self.safe: list[Ticket] = []
        self.name = topic(settings, "qa", "live")
        self.connector = Connector(settings, [self.name])
        self.outlet = Outlet(self.name, self.spool, self.connector, self.safe.append)
        self.sent = 0

    def send(self, count: int, size: int = 10) -> None:
        for _ in range(count):
            self.outlet.send(("n", self.sent), b"k%d" % (self.sent % 3), b"%06d" % self.sent + b"x" * size)
            self.sent += 1
        self.outlet.pump()

    def run_until(self, condition: Callable[[], object]) -> None:
        give_up_at = time.monotonic() + 40
        while not condition():
            assert time.monotonic() < give_up_at, (self.outlet.state, self.outlet.problem)
            self.outlet.pump()
            time.sleep(0.002)

    def all_safe(self) -> bool:
        return {seq for _, seq in self.safe} == set(range(self.sent))

    def arrived(self) -> dict[bytes, list[int]]:
        """Return the numbers that are in Kafka, by key, each where it came first."""
        reader = consumer(self.settings, "test", fetch_wait_max_ms=10)
        reader.assign([TopicPartition(self.name, number, 0) for number in range(self.settings.partitions)])
        found: dict[bytes, list[int]] = {}
        give_up_at = time.monotonic() + 30
        while sum(map(len, found.values())) < self.sent and time.monotonic() < give_up_at:
            for message in reader.consume(500, 0.2):
                seen = found.setdefault(message.key(), [])
                number = int(message.value()[:6])
                if number not in seen:
                    seen.append(number)
        reader.close()
        return found


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(module, "STUCK_S", 1.5)
    with Link() as link, EmbeddedBroker(tmp_path / "broker", advertised=link.port) as broker:
        link.target = broker.port
        rig = Rig(broker, link, tmp_path / "spool")
        yield rig
        rig.connector.close()
        rig.outlet.close(0.1)
        rig.spool.close()


def in_order(rig: Rig) -> bool:
    found = rig.arrived()
    assert sum(map(len, found.values())) == rig.sent
    return all(numbers == sorted(numbers) for numbers in found.values())


def test_records_go_straight_to_kafka_once_it_is_there(rig: Rig) -> None:
    rig.run_until(lambda: rig.outlet.state == "direct")
    rig.send(100)
    rig.run_until(rig.all_safe)
    assert (rig.outlet.delivered, rig.outlet.spooled) == (100, 0)
    assert in_order(rig)


def test_what_comes_before_between_and_after_is_in_order_for_each_key(rig: Rig) -> None:
    rig.send(50)  # before the topic is there
    rig.run_until(lambda: rig.outlet.state == "direct")
    rig.send(50)
    rig.link.cut()
    rig.send(200)
    rig.run_until(rig.all_safe)
    assert rig.outlet.state == "away"
    assert rig.outlet.problem
    assert len(rig.spool) >= 200
    rig.send(100)
    rig.link.mend()
    rig.run_until(lambda: rig.outlet.state == "replaying")
    rig.send(100)
    rig.run_until(lambda: rig.outlet.state == "direct")
    rig.send(50)
    rig.run_until(rig.all_safe)
    assert len(rig.spool) == 0
    assert in_order(rig)


def test_kafka_goes_away_in_the_middle_of_a_replay(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPLAY_WINDOW", 50)
    rig.link.cut()
    rig.send(2_000)
    rig.run_until(rig.all_safe)
    rig.link.mend()
    rig.run_until(lambda: rig.outlet.replayed > 100)
    rig.link.cut()
    rig.run_until(lambda: rig.outlet.state == "away")
    rig.link.mend()
    rig.run_until(lambda: rig.outlet.state == "direct")
    assert in_order(rig)


def test_a_broker_that_was_killed_and_forgot_its_topics_gets_all_that_it_had_not_acknowledged(
    rig: Rig,
) -> None:
    rig.run_until(lambda: rig.outlet.state == "direct")
    rig.broker.stop()
    rig.send(100)
    rig.run_until(rig.all_safe)
    assert len(rig.spool) == 100
    rig.broker.start()
    rig.run_until(lambda: rig.outlet.state == "direct")
    rig.send(20)
    rig.run_until(rig.all_safe)
    assert in_order(rig)


def test_a_record_that_kafka_never_takes_holds_up_no_other(rig: Rig) -> None:
    rig.run_until(lambda: rig.outlet.state == "direct")
    rig.send(1, size=5 << 20)
    rig.send(10)
    rig.run_until(rig.all_safe)
    assert rig.outlet.refused == 1
    assert rig.outlet.state == "direct"


def test_a_stop_brings_all_to_kafka_or_to_the_disk(rig: Rig) -> None:
    rig.run_until(lambda: rig.outlet.state == "direct")
    rig.send(20)
    rig.link.cut()
    rig.send(30)
    rig.connector.close()
    rig.outlet.close(0.3)
    assert rig.all_safe()
    assert len(rig.spool) >= 30
