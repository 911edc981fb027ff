"""The requests of one code package that no worker has yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from actors.code.worker import Job
from transport.client.deadlines import Deadlines

#: Requests, and their bytes, that may wait; beyond that a request is refused as `overloaded`.
MAX_WAITING: Final = 2_000
MAX_WAITING_BYTES: Final = 32 << 20


class JobQueue:
    """Requests in the order in which workers are to have them, each until its deadline.

    Use it from one thread; times are time.monotonic seconds.
    """

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._bytes = 0
        self._deadlines = Deadlines[Job]()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return len(self._jobs) >= MAX_WAITING or self._bytes > MAX_WAITING_BYTES

    def add(self, job: Job) -> None:
        """Let a request wait behind all others."""
        self._jobs.append(job)
        self._let_wait(job)

    def put_back(self, job: Job) -> None:
        """Let a request wait before all others."""
        self._jobs.appendleft(job)
        self._let_wait(job)

    def take(self) -> Job:
        """Take the first request out, for a worker."""
        job = self._jobs.popleft()
        self._bytes -= len(job.payload)
        job.finished = True
        return job

    def due(self) -> float:
        """Return the nearest deadline; infinite where nothing waits."""
        return self._deadlines.due()

    def expired(self, now: float) -> Iterator[Job]:
        """Take those out whose deadline has passed."""
        for job in self._deadlines.passed(now):
            job.finished = True
            self._jobs.remove(job)
            self._bytes -= len(job.payload)
            yield job

    def take_all(self) -> list[Job]:
        """Take all out."""
        return [self.take() for _ in range(len(self._jobs))]

    def _let_wait(self, job: Job) -> None:
        job.finished = False
        self._bytes += len(job.payload)
        self._deadlines.add(job, len(self._jobs))
