"""A node's part in the group that reads an environment's live topic."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from actors.config import KafkaSettings
from shadow.batch import Message
from shadow.errors import BrokerError
from shadow.kafka import consumer, topic

logger = logging.getLogger(__name__)

#: Kilobytes that are fetched ahead, and so the most that a batch can have.
_AHEAD_KB = 16_384
#: Seconds for which a node may read nothing before it says so: what was fetched ahead is lost by it.
_PAUSE_AFTER_S = 1.0


class LiveStream:
    """Reads records and commits their places, while the group moves partitions between its nodes.

    Places are committed by hand, after results are stored: what a node that dies had not committed is read
    again by another. Not safe from several threads; poll must be called all the time, wanted or not, since a
    node that does not is taken out of the group.

    Args:
        settings: the broker.
        environment: whose answers.
        client_id: what to be called in the broker's log and lists.
        group: which of the environment's groups it is of.

    Attributes:
        errors: what the broker had to complain of, counted; it is reached again by itself.
        moves: how often partitions came or went.
    """

    def __init__(
        self, settings: KafkaSettings, environment: str, client_id: str, group: str = "shadow"
    ) -> None:
        self._topic = topic(settings, environment, "live")
        self._paused = False
        self._wanted_at = 0.0
        self._held: dict[int, int] = {}  # partition to how often it came, so that an old life is told apart
        self.errors = self.moves = 0
        self._consumer = consumer(
            settings,
            f"{settings.topic_prefix}.{environment}.{group}",
            client_id=client_id,
            queued_max_messages_kbytes=_AHEAD_KB,
            error_cb=self._on_error,
            on_commit=self._on_commit,
        )
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    @property
    def partitions(self) -> Mapping[int, int]:
        """The partitions that are this node's now, and how often each was moved."""
        return dict(self._held)

    def poll(self, count: int, timeout_s: float, *, wanted: bool) -> list[Message]:
        """Stay in the group, and return the records that have come.

        Args:
            count: how many at most.
            timeout_s: how long to wait for them.
            wanted: whether there is room for records; without, none is returned, and after a while none is
                fetched.

        Raises:
            BrokerError: the client cannot go on; a new one may.
        """
        now = time.monotonic()
        if wanted:
            self._wanted_at = now
        elif now - self._wanted_at < _PAUSE_AFTER_S:
            time.sleep(timeout_s)
            return []
        self._pause(not wanted)
        try:
            found = self._consumer.consume(count if wanted else 1, timeout_s)
        except KafkaException as error:
            self._on_error(error.args[0])
            return []
        return [message for message in found if self._is_record(message)]

    def commit(self, upto: Mapping[int, int], moved: Mapping[int, int], *, wait: bool = False) -> list[int]:
        """Say how far this node has come, in the partitions that were its own all the time.

        Args:
            upto: partition to the offset that comes next.
            moved: `partitions` as it was when the records were read.
            wait: until the broker has taken it; else it is heard of when it did not.

        Returns:
            those partitions.
        """
        places = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in upto.items()
            if partition in self._held and self._held[partition] == moved.get(partition)
        ]
        if not places:
            return []
        try:
            self._consumer.commit(offsets=places, asynchronous=not wait)
        except KafkaException as error:
            # Another node will read the same again; results that are there already change nothing.
            self._on_error(error.args[0])
        return [place.partition for place in places]

    def high(self, partition: int) -> int:
        """Return the end of a partition as the broker last said; -1 if it has not."""
        with contextlib.suppress(KafkaException):
            _, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), cached=True
            )
            return int(high)
        return -1

    def close(self) -> None:
        """Leave the group, so that others have the partitions at once."""
        self._consumer.close()

    def _pause(self, paused: bool) -> None:
        if paused == self._paused:
            return
        self._paused = paused
        change = self._consumer.pause if paused else self._consumer.resume
        with contextlib.suppress(KafkaException):  # one that has just gone cannot be paused
            change([TopicPartition(self._topic, partition) for partition in self._held])

    def _is_record(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's own name
            self._on_error(error)
        return False

    def _on_assign(self, client: Any, partitions: list[Any]) -> None:
        client.incremental_assign(partitions)
        # Either way: one that was paused when it went comes back paused.
        change = client.pause if self._paused else client.resume
        change(partitions)
        for one in partitions:
            self.moves += 1
            self._held[one.partition] = self.moves
        logger.info("partitions %s came", [one.partition for one in partitions])

    def _on_revoke(self, client: Any, partitions: list[Any]) -> None:
        client.incremental_unassign(partitions)
        for one in partitions:
            self._held.pop(one.partition, None)
        self.moves += len(partitions)
        logger.info("partitions %s went", [one.partition for one in partitions])

    def _on_error(self, error: Any) -> None:
        self.errors += 1
        logger.warning("Kafka: %s", error)
        if error.fatal():
            raise BrokerError(f"Kafka's client cannot go on: {error}")

    def _on_commit(self, error: Any, _: Any) -> None:
        if error is not None:
            self._on_error(error)
