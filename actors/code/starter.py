"""Starts the workers of a code package in threads, so that no request waits for the start of a process."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from actors.code.stage import CodeStage
from actors.code.worker import Worker
from models.errors import ModelError

#: Seconds of the first pause before a process is started again, doubled by each death, up to the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0


class Starter:
    """Starts processes, at once and then with doubling, jittered pauses.

    Args:
        stage: the package.
        wake: told, from another thread, when a process was started or could not be.

    Attributes:
        starting: processes that are being started.
        start_at: when the next one is started (time.monotonic seconds).
    """

    def __init__(self, stage: CodeStage, wake: Callable[[], None]) -> None:
        self.starting = 0
        self.start_at = 0.0
        self._stage = stage
        self._wake = wake
        self._done: deque[Worker | Exception] = deque()
        self._pause_s = 0.0
        self._closed = False

    @property
    def has_news(self) -> bool:
        """Whether a start has come to its end."""
        return bool(self._done)

    def start(self, missing: int) -> None:
        """Start processes until so many are being started, unless there is a pause."""
        while self.starting < missing and time.monotonic() >= self.start_at:
            self.starting += 1
            threading.Thread(target=self._start, name="code-start", daemon=True).start()

    def news(self) -> Iterator[Worker | Exception]:
        """Yield what was started, and why something could not be."""
        while self._done:
            self.starting -= 1
            yield self._done.popleft()

    def back_off(self, *, proven: bool) -> None:
        """Pause before the next start, longer each time; none for a worker that had proven itself."""
        self._pause_s = 0.0 if proven else self._pause_s
        self.start_at = time.monotonic() + self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self._pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, self._pause_s * 2))

    def close(self) -> None:
        """End what was started and not taken."""
        self._closed = True
        for started in self.news():
            if isinstance(started, Worker):
                started.end()

    def _start(self) -> None:
        started: Worker | Exception
        try:
            started = self._stage.take() or self._stage.start()
        except (OSError, ModelError) as error:
            started = error
        if self._closed and isinstance(started, Worker):
            started.end()
            return
        self._done.append(started)
        self._wake()
