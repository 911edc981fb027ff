"""Dead letters: records that cannot be used, laid aside in a topic of their own with the reason."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from actors.config import KafkaSettings
from shadow.batch import Dead
from shadow.kafka import producer, topic

logger = logging.getLogger(__name__)

#: Topic, key, value and headers.
Envelope = tuple[str, bytes | None, bytes, dict[str, bytes]]

_FLUSH_S = 1.0
#: Longest reason, in characters: a header is no place for more.
_MAX_REASON = 1000


class Sender:
    """Sends messages that must not be lost, and knows when all of them are safe.

    Args:
        settings: the broker.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._producer = producer(settings, linger_ms=20)
        #: Messages that the broker refused for good.
        self.refused = 0

    def send(
        self,
        messages: Sequence[Envelope],
        stop: threading.Event,
    ) -> bool:
        """Send messages.

        Returns:
            whether the broker has all of them, but for those that it refuses for good; False if the node
            stops before.
        """
        for name, key, value, headers in messages:
            while not self._produce(name, key, value, headers):
                if stop.is_set():
                    return False
        while self._producer.flush(_FLUSH_S):
            if stop.is_set():
                return False
        return True

    def _produce(self, name: str, key: bytes | None, value: bytes, headers: dict[str, bytes]) -> bool:
        try:
            self._producer.produce(
                name, key=key, value=value, headers=list(headers.items()), on_delivery=self._delivered
            )
        except BufferError:  # its queue is full: what is in there goes first
            self._producer.flush(_FLUSH_S)
            return False
        return True

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self.refused += 1
            logger.error("Kafka does not take a message for %s: %s", message.topic(), error)


class DeadLetters:
    """The dead-letter topic of an environment.

    Args:
        settings: the broker.
        environment: whose.
        node_id: who lays aside.
    """

    def __init__(self, settings: KafkaSettings, environment: str, node_id: str) -> None:
        self._sender = Sender(settings)
        self._topic = topic(settings, environment, "dead")
        self._live = topic(settings, environment, "live").encode()
        self._node = node_id.encode()

    def bury(self, letters: Sequence[Dead], stop: threading.Event) -> bool:
        """Lay records aside; False if the node stops before they are safe."""
        for letter in letters:
            where = f"{letter.partition}/{letter.offset}"
            facts = {"transaction": (letter.key or b"").decode(errors="replace"), "shadow": letter.shadow}
            logger.warning("a record at %s is laid aside: %s", where, letter.reason, extra=facts)
        return self._sender.send(
            [(self._topic, letter.key, letter.value, self._headers(letter)) for letter in letters], stop
        )

    def _headers(self, letter: Dead) -> dict[str, bytes]:
        return {
            "reason": letter.reason[:_MAX_REASON].encode("utf-8", "replace"),
            "reader": self._node,
            "shadow": letter.shadow.encode(),
            "topic": self._live,
            "partition": str(letter.partition).encode(),
            "offset": str(letter.offset).encode(),
        }
