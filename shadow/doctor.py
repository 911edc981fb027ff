"""What Kafka has to be for `run.py doctor`: there, with the topics, and with replicas enough."""

from __future__ import annotations

from collections.abc import Iterator

from actors.config import Settings
from actors.doctor.finding import Finding, failure, ok, warning
from shadow.errors import BrokerError

__all__ = ["check_broker"]

_ANSWER_S = 5.0


def check_broker(settings: Settings) -> Iterator[Finding]:
    """See whether tee, sinks and shadow nodes can work with Kafka."""
    from confluent_kafka import KafkaException  # noqa: PLC0415 - Kafka's client, which few commands need

    from shadow.kafka import admin, topic  # noqa: PLC0415

    kafka = settings.kafka
    if kafka is None:
        yield ok("broker", "not asked for: no copies of answers are kept")
        return
    try:
        found = admin(kafka).list_topics(timeout=_ANSWER_S)
    except BrokerError as error:
        yield failure("broker", str(error), "mend `options` in [kafka]")
        return
    except KafkaException as error:
        yield failure(
            "broker",
            f"{kafka.bootstrap_servers} does not answer: {error.args[0].str()}",
            "see that it runs and that kafka.bootstrap_servers is right; meanwhile tees spool to their disks",
        )
        return
    yield ok("broker", f"{kafka.bootstrap_servers} answers ({len(found.brokers)} brokers)")
    missing = []
    for what in ("live", "dead"):
        name = topic(kafka, settings.environment, what)
        if name not in found.topics:
            missing.append(name)
        elif len(found.topics[name].partitions) < settings.sink.nodes:
            yield warning(
                "broker",
                f"{name} has {len(found.topics[name].partitions)} partitions for {settings.sink.nodes} sinks",
                "add partitions, or run fewer: some have nothing to do",
            )
    if missing and not kafka.create_topics:
        yield failure(
            "broker", f"there is no topic {', '.join(missing)}", "make it, or set kafka.create_topics"
        )
    elif missing and kafka.replication > len(found.brokers):
        yield failure(
            "broker",
            f"{len(found.brokers)} brokers cannot hold {kafka.replication} replicas of {', '.join(missing)}",
            "set kafka.replication to as many as there are, and add brokers before production",
        )
