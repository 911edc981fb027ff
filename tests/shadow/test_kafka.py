from __future__ import annotations

from pathlib import Path

import pytest

from actors.config import KafkaSettings
from shadow.broker import EmbeddedBroker
from shadow.errors import BrokerError, EmbeddedBrokerError, TopicError
from shadow.kafka import admin, consumer, ensure_topics, producer, topic


def test_what_is_produced_is_consumed_with_its_key(kafka: KafkaSettings) -> None:
    name = topic(kafka, "qa", "live")
    assert name == f"{kafka.topic_prefix}.qa.live"
    ensure_topics(kafka, [name])
    ensure_topics(kafka, [name])  # again: nothing to do
    assert len(admin(kafka).list_topics(name, timeout=10).topics[name].partitions) == kafka.partitions
    sender = producer(kafka)
    for number in range(10):
        sender.produce(name, key=b"k%d" % number, value=b"%d" % number)
    assert sender.flush(10) == 0
    receiver = consumer(kafka, "readers", fetch_wait_max_ms=10)
    receiver.subscribe([name])
    found: dict[bytes, bytes] = {}
    for _ in range(200):
        for message in receiver.consume(10, 0.2):
            assert message.error() is None, message.error()
            found[message.key()] = message.value()
        if len(found) == 10:
            break
    receiver.close()
    assert found == {b"k%d" % number: b"%d" % number for number in range(10)}


def test_a_missing_topic_is_refused_where_none_may_be_made(kafka: KafkaSettings) -> None:
    with pytest.raises(TopicError, match="create_topics"):
        ensure_topics(kafka.model_copy(update={"create_topics": False}), ["not-there"])


def test_a_broker_that_is_not_there_is_named() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:9")
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:9 does not answer"):
        ensure_topics(nowhere, ["any"], timeout_s=0.5)


def test_options_reach_the_client_and_a_wrong_one_is_named(kafka: KafkaSettings) -> None:
    for make in (producer, admin):
        with pytest.raises(BrokerError, match="options"):
            make(kafka.model_copy(update={"options": {"no.such.setting": "1"}}))
    # What belongs to a producer alone does not trouble the others.
    fine = kafka.model_copy(
        update={"options": {"linger.ms": "20", "acks": "1", "enable.idempotence": "false"}}
    )
    producer(fine)
    admin(fine)


def test_a_broker_is_killed_and_comes_back_where_it_was(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    with pytest.raises(EmbeddedBrokerError, match="not started"):
        _ = broker.bootstrap_servers
    with broker:
        where = broker.bootstrap_servers
        broker.stop()
        with pytest.raises(BrokerError):
            ensure_topics(broker.settings, ["t"], timeout_s=0.5)
        broker.start()
        assert broker.bootstrap_servers == where
        ensure_topics(broker.settings, ["t"])
    broker.stop()


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    import socket

    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(EmbeddedBrokerError, match="cannot listen"),
    ):
        EmbeddedBroker(tmp_path, port=taken.getsockname()[1]).start()
