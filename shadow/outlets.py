"""Where results go beside the database: a Kafka topic and Parquet files, where they are wanted."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from actors.config import KafkaSettings, Settings
from shadow.errors import Stopped
from shadow.kafka import topic
from shadow.letters import Envelope, Sender
from shadow.result import ResultRow, document
from shadow.storing import Sink


class TopicOutlet:
    """Results in a Kafka topic: JSON, keyed by the transaction's id. A result may come more than once.

    Args:
        settings: the broker.
        environment: whose.
        stop: set when the node stops.
    """

    def __init__(self, settings: KafkaSettings, environment: str, stop: threading.Event) -> None:
        self._sender = Sender(settings)
        self._topic = topic(settings, environment, "shadow")
        self._stop = stop

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Send results, and wait until the broker has them.

        Raises:
            Stopped: the node stops before.
        """
        messages: list[Envelope] = [
            (self._topic, row.transaction_id.encode(), document(row), {}) for row in rows
        ]
        if not self._sender.send(messages, self._stop):
            raise Stopped

    def look(self) -> None:
        """Do nothing: nothing is held back."""

    def close(self) -> None:
        """Do nothing: what was sent is safe."""


def outlets(settings: Settings, node_id: str, stop: threading.Event) -> list[Sink]:
    """Return where results go as well, as the configuration says."""
    found: list[Sink] = []
    if settings.shadow.results_topic and settings.kafka is not None:
        found.append(TopicOutlet(settings.kafka, settings.environment, stop))
    chosen = settings.shadow
    if chosen.parquet is not None:
        from shadow.parquet import ParquetOutlet  # noqa: PLC0415 - it is large, and few want files

        directory = chosen.parquet.expanduser()
        found.append(ParquetOutlet(directory, node_id, int(chosen.parquet_mb * 1e6), chosen.parquet_s, stop))
    return found
