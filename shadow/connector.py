"""The connector: tries in the background whether Kafka and a topic are there, and makes a producer then."""

from __future__ import annotations

import logging
import threading
from typing import Any, Final

from actors.config import KafkaSettings
from governance.backoff import Backoff
from shadow.errors import BrokerError
from shadow.kafka import ensure_topics, producer

logger = logging.getLogger(__name__)

#: Seconds that one try may take.
TRY_S: Final = 3.0
#: Kilobytes that librdkafka holds of what is on its way: what is beyond waits in the spool.
_QUEUE_KB: Final = "65536"


class Connector:
    """Makes producers for one topic.

    Args:
        settings: Kafka.
        topics: what must be there, or is made.
    """

    def __init__(self, settings: KafkaSettings, topics: list[str]) -> None:
        self._settings = settings
        self._topics = topics
        self._found: Any = None
        self._old: Any = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        #: Why the last try failed; "" if it did not.
        self.problem = ""

    def begin(self, old: Any = None) -> None:
        """Begin to try, unless somebody does.

        Args:
            old: a producer that was given up. It is let go here, since that may take a while.
        """
        self._old = old
        if self._thread is None and not self._stopping.is_set():
            self._thread = threading.Thread(target=self._try, name="kafka-connector", daemon=True)
            self._thread.start()

    def take(self) -> Any:
        """Return a new producer once Kafka is there; None until then."""
        if self._thread is None or self._thread.is_alive():
            return None
        self._thread = None
        found, self._found = self._found, None
        if found is None:
            self.begin()
        return found

    def close(self) -> None:
        """Try no more."""
        self._stopping.set()

    def _try(self) -> None:
        pause = Backoff()
        while not self._stopping.is_set():
            try:
                ensure_topics(self._settings, self._topics, timeout_s=TRY_S)
                self._found = producer(
                    self._settings,
                    queue_buffering_max_kbytes=_QUEUE_KB,
                    # Fewer and fuller messages: nobody waits for them.
                    linger_ms="20",
                    # Who is silent is given up by the tee, and what was on its way is kept by it.
                    message_timeout_ms="60000",
                )
            except BrokerError as error:
                if str(error) != self.problem:
                    logger.warning("%s", error)
                self.problem = str(error)
                self._stopping.wait(pause.pause_s())
            else:
                self.problem = ""
                self._old = None
                return
