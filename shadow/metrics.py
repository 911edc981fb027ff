"""What the figures of tees, sinks and shadow nodes are called; their counters are gathered at each look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from actors.metrics import labels_of, page_of
from shadow.keeper import Sign
from transport.metrics import CONTENT_TYPE, Metric


def _table(room: str, kind: str, names: Mapping[str, str]) -> dict[str, Metric]:
    if kind == "counter":
        return {n: Metric(f"scorewire_{room}_{n}_total", "counter", help_) for n, help_ in names.items()}
    return {n: Metric(f"scorewire_{room}_{n}", "gauge", help_) for n, help_ in names.items()}


TEE: Final[Mapping[str, Metric]] = {
    **_table(
        "tee",
        "counter",
        {
            "taken": "Answers that were taken out of the rings of preprocessors.",
            "malformed": "Answers of which no record could be made.",
            "sampled_out": "Answers that are not copied, by their share.",
            "preprocessors_offered": "Answers that preprocessors put into their rings.",
            "preprocessors_acknowledged": "Answers of theirs that are safe.",
            "preprocessors_dropped": "Answers that preprocessors lost, since this tee was away for too long.",
            "delivered": "Records that Kafka acknowledged.",
            "spooled": "Records that went to the spool.",
            "replayed": "Records that went on from the spool to Kafka.",
            "refused": "Records that Kafka will never take.",
            "spool_dropped": "Records that were lost, since the spool was full.",
            "spool_corrupt": "Records of the spool that were damaged.",
            "unreadable": "Rings, and places in them, that could not be read.",
        },
    ),
    **_table(
        "tee",
        "gauge",
        {
            "held": "Records in memory that are neither in Kafka nor in the spool.",
            "kafka_away": "Whether Kafka is away, as far as the tee knows.",
            "spool_records": "Records that wait in the spool.",
            "spool_bytes": "Size of what waits in the spool.",
        },
    ),
}
SINK: Final[Mapping[str, Metric]] = {
    **_table(
        "sink",
        "counter",
        {
            "read": "Records that were read from Kafka.",
            "committed": "Records that are done with, by Kafka's count.",
            "stored": "Records that were stored for the first time.",
            "repeated": "Records that were stored already.",
            "expired": "Records of days that are not kept any more.",
            "dead": "Records that were laid aside.",
            "batches": "Batches that were stored.",
            "days_made": "Partitions of the table that were made.",
            "days_dropped": "Partitions of the table that were dropped.",
            "database_away": "Times that the database was away.",
            "kafka_errors": "Errors that Kafka's client told of.",
        },
    ),
    "partitions": Metric("scorewire_sink_partitions", "gauge", "Partitions of the live topic that it reads."),
    "behind_s": Metric(
        "scorewire_sink_behind_seconds", "gauge", "Age of the newest stored answer while more wait."
    ),
}
SHADOW: Final = _table(
    "shadow",
    "counter",
    {
        "read": "Records that were read from Kafka.",
        "committed": "Records that are done with, by Kafka's count.",
        "stored": "Results that were stored for the first time.",
        "repeated": "Results that were stored already.",
        "unstorable": "Results that PostgreSQL does not take.",
        "dead": "Records that were laid aside.",
        "database_away": "Times that the database was away.",
        "kafka_errors": "Errors that Kafka's client told of.",
        "partitions_moved": "Times that partitions came or went.",
    },
)
CANDIDATE: Final = _table(
    "candidate",
    "counter",
    {
        "evaluated": "Records that a shadow's candidate evaluated, by the shadow's number.",
        "refused": "Records that it refused.",
        "poison": "Records that were laid aside, since they killed it.",
        "died": "Deaths of its process.",
    },
)
BEHIND: Final = Metric(
    "scorewire_shadow_behind_seconds", "gauge", "Age of a partition's newest answer with stored results."
)
LAG: Final = Metric("scorewire_shadow_lag_records", "gauge", "Records of a partition that are not done yet.")


def counted_page(
    metrics: Mapping[str, Metric],
    environment: str,
    role: str,
    node_id: str,
    counts: Mapping[str, float],
    health: str,
) -> tuple[str, bytes]:
    """Return the page of a node that counts by name: a tee or a sink. Safe from any thread."""
    page = page_of(labels_of(environment, role, node_id), node_id, health)
    page.add_all(metrics, counts)
    return CONTENT_TYPE, page.text()


def shadow_page(environment: str, node_id: str, sign: Sign, health: str) -> tuple[str, bytes]:
    """Return the page of a shadow node. Safe from any thread."""
    page = page_of(labels_of(environment, "shadow", node_id), node_id, health)
    page.add_all(SHADOW, sign.counters)
    for number, counts in sign.shadows.items():
        page.add_all(CANDIDATE, counts, shadow=str(number))
    for partition, place in sign.places.items():
        page.add(BEHIND, place.behind_s, partition=str(partition))
        page.add(LAG, max(0, place.high - place.position), partition=str(partition))
    return CONTENT_TYPE, page.text()
