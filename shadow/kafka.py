"""Kafka as this room uses it: topics, producers, consumers and the administration that they need.

Only what Apache Kafka documents is relied on. `options` of the configuration go to librdkafka as they are,
so that SASL, TLS and tuning need no word of ours; what durability rests on cannot be taken away by them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from actors.config import KafkaSettings, Settings
from actors.errors import ConfigError
from shadow.errors import BrokerError, TopicError
from shadow.record import MAX_RECORD_BYTES

logger = logging.getLogger(__name__)

#: Seconds that an administrative request may take.
ADMIN_S: Final = 10.0
#: Largest message, in bytes: a record, its key, and what Kafka adds.
MAX_MESSAGE_BYTES: Final = MAX_RECORD_BYTES + (64 << 10)
#: What the tee's durability rests on: each record acknowledged by all replicas in sync, once, in order.
DURABLE: Final[dict[str, Any]] = {"acks": "all", "enable.idempotence": True}
#: What consumers rest on: offsets are committed by hand after the results are stored.
BY_HAND: Final[dict[str, Any]] = {"enable.auto.commit": False, "enable.auto.offset.store": False}


def kafka_of(settings: Settings, who: str) -> KafkaSettings:
    """Return the Kafka that the configuration names.

    Raises:
        ConfigError: it names none, and `who` needs one.
    """
    if settings.kafka is None:
        raise ConfigError(f"{who} needs Kafka: name one in [kafka] of scorewire.toml")
    return settings.kafka


def check_kafka(settings: Settings, who: str) -> None:
    """See, once and before a node starts, that it is told of a Kafka that its client can be made for.

    Raises:
        ConfigError: as kafka_of; or librdkafka refuses an option, which would end a node that works.
    """
    kafka = kafka_of(settings, who)
    try:
        # Each leaves out the other's options, so that between them they are asked for all.
        producer(kafka)
        consumer(kafka, "none").close()
    except BrokerError as error:
        raise ConfigError(str(error)) from error


def topic(settings: KafkaSettings, environment: str, what: str) -> str:
    """Name a topic: `live`, `dead` or `shadow` of an environment."""
    return f"{settings.topic_prefix}.{environment}.{what}"


def producer(settings: KafkaSettings, **more: Any) -> Producer:
    """Make an idempotent producer that waits for all replicas in sync, and compresses.

    Args:
        settings: the configuration.
        more: librdkafka's settings, with `_` for `.`; they come before `options`' but not before durability.

    Raises:
        BrokerError: librdkafka refuses a setting.
    """
    defaults = {"compression.type": "lz4", "linger.ms": 5, "message.max.bytes": MAX_MESSAGE_BYTES}
    return _made(
        Producer, _common(settings) | defaults | _dotted(more) | _options(settings, _CONSUMERS) | DURABLE
    )


def consumer(settings: KafkaSettings, group: str, **more: Any) -> Consumer:
    """Make a consumer of a group, with cooperative rebalancing and offsets committed by hand.

    It reads from the oldest record on where its group has committed nothing.

    Args:
        settings: the configuration.
        group: the group's name.
        more: librdkafka's settings, with `_` for `.`.

    Raises:
        BrokerError: librdkafka refuses a setting.
    """
    defaults = {
        "group.id": group,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        # Seconds, not most of a minute, until the partitions of a consumer that died are another's.
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 1_000,
        # A consumer that has caught up waits for the next record, and should have it at once.
        "fetch.wait.max.ms": 50,
    }
    return _made(
        Consumer, _common(settings) | defaults | _dotted(more) | _options(settings, _PRODUCERS) | BY_HAND
    )


def admin(settings: KafkaSettings) -> AdminClient:
    """Make a client for administration.

    Raises:
        BrokerError: librdkafka refuses a setting.
    """
    return _made(AdminClient, _common(settings) | _options(settings, _CONSUMERS, _PRODUCERS))


def ensure_topics(settings: KafkaSettings, names: Sequence[str], *, timeout_s: float = ADMIN_S) -> None:
    """See to it that topics are there: make those that are missing, or refuse if that is not wanted.

    Args:
        settings: the configuration; partitions and replication of what is made.
        names: the topics.
        timeout_s: seconds that it may take.

    Raises:
        TopicError: a topic is missing and `create_topics` is off, or it cannot be made.
        BrokerError: the broker does not answer in time.
    """
    client = admin(settings)
    missing = [name for name in names if name not in _existing(client, settings, timeout_s)]
    if not missing:
        return
    if not settings.create_topics:
        raise TopicError(
            f"Kafka has no topic {', '.join(missing)}: make it, or set create_topics = true in [kafka]"
        )
    config = {
        "min.insync.replicas": str(max(1, settings.replication - 1)),
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    wanted = [NewTopic(name, settings.partitions, settings.replication, config=config) for name in missing]
    for name, future in client.create_topics(wanted, request_timeout=timeout_s).items():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            # Another node was quicker.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise TopicError(f"the topic {name} cannot be made: {error.args[0].str()}") from error
        else:
            logger.info("made the topic %s with %d partitions", name, settings.partitions)


def wait_for_broker(settings: KafkaSettings, timeout_s: float = ADMIN_S) -> None:
    """Wait until the broker answers.

    Raises:
        BrokerError: it does not in time.
    """
    client, give_up_at = admin(settings), time.monotonic() + timeout_s
    while True:
        try:
            _existing(client, settings, 1.0)
        except BrokerError:
            if time.monotonic() > give_up_at:
                raise
        else:
            return


def _existing(client: AdminClient, settings: KafkaSettings, timeout_s: float) -> set[str]:
    try:
        # One topic by name would have some brokers make it, with settings of theirs.
        return set(client.list_topics(timeout=timeout_s).topics)
    except KafkaException as error:
        why = error.args[0].str()
        raise BrokerError(f"Kafka at {settings.bootstrap_servers} does not answer: {why}") from error


def _common(settings: KafkaSettings) -> dict[str, Any]:
    # librdkafka's own log lines become ours.
    return {"bootstrap.servers": settings.bootstrap_servers, "client.id": "scorewire", "logger": logger}


def _dotted(more: Mapping[str, Any]) -> dict[str, Any]:
    # Callbacks are the Python client's, with names of Python.
    return {name if callable(value) else name.replace("_", "."): value for name, value in more.items()}


#: What belongs to one side alone begins with these; the other side would warn of it, or refuse it.
_CONSUMERS: Final = (
    *("group.", "auto.", "fetch.", "max.poll.", "max.partition.", "session.", "heartbeat.", "queued."),
    *("isolation.", "partition.assignment.", "check.crcs", "enable.auto.", "enable.partition.eof"),
)
_PRODUCERS: Final = (
    *("compression.", "linger.", "batch.", "queue.buffering.", "message.", "delivery.", "request.required."),
    *("acks", "retries", "enable.idempotence", "enable.gapless", "transaction", "partitioner", "sticky."),
)


def _options(settings: KafkaSettings, *others: tuple[str, ...]) -> dict[str, str]:
    """Return the options without those of the other sides."""
    foreign = tuple(start for starts in others for start in starts)
    return {name: value for name, value in settings.options.items() if not name.startswith(foreign)}


def _made(kind: Callable[[dict[str, Any]], Any], config: dict[str, Any]) -> Any:
    try:
        return kind(config)
    except (KafkaException, ValueError, TypeError) as error:
        raise BrokerError(f"Kafka's client refuses a setting, see options in [kafka]: {error}") from error
