"""A flow: batches go through steps in their order, each step in its own thread, with little between."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

_POLL_S = 0.1


class Flow(Generic[T]):
    """While one batch is stored the next is evaluated; a third waits, and no more.

    Args:
        steps: name to what is done with each batch; a step that raises ends the flow.
    """

    def __init__(self, steps: Sequence[tuple[str, Callable[[T], None]]]) -> None:
        self._queues: list[queue.Queue[T]] = [*(queue.Queue[T](1) for _ in steps), queue.Queue[T]()]
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._inside = 0
        self.error: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._work, args=(place, work), name=name, daemon=True)
            for place, (name, work) in enumerate(steps)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def has_room(self) -> bool:
        """Whether a batch can be put in without waiting."""
        return not self._queues[0].full()

    @property
    def inside(self) -> int:
        """How many batches were put in and not taken out."""
        return self._inside

    def put(self, batch: T) -> None:
        """Put a batch in; wait for room if there is none.

        Raises:
            BaseException: what a step raised.
        """
        with self._lock:
            self._inside += 1
        while True:
            if self.error is not None:
                raise self.error
            try:
                return self._queues[0].put(batch, timeout=_POLL_S)
            except queue.Full:
                continue

    def take(self, timeout_s: float = 0.0) -> T | None:
        """Return the next batch that went through all steps; None if there is none in time.

        Raises:
            BaseException: what a step raised.
        """
        if self.error is not None:
            raise self.error
        try:
            batch = self._queues[-1].get(timeout=timeout_s) if timeout_s else self._queues[-1].get_nowait()
        except queue.Empty:
            return None
        with self._lock:
            self._inside -= 1
        return batch

    def close(self, timeout_s: float = 5.0) -> None:
        """End the threads; batches that are inside are given up."""
        self._stopped.set()
        give_up_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))

    def _work(self, place: int, work: Callable[[T], None]) -> None:
        try:
            while not self._stopped.is_set():
                try:
                    batch = self._queues[place].get(timeout=_POLL_S)
                except queue.Empty:
                    continue
                work(batch)
                self._hand_on(batch, place + 1)
        except BaseException as error:
            logger.debug("a step failed", exc_info=True)
            self.error = error

    def _hand_on(self, batch: T, place: int) -> None:
        while not self._stopped.is_set():
            try:
                self._queues[place].put(batch, timeout=_POLL_S)
            except queue.Full:
                continue
            return
