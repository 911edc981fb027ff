"""The workers of one code package in one actor: requests pipelined, budgets held, successors at hand.

A worker answers in order, so the first request that it holds is the one that it works on. When it dies or
overruns its budget, that request fails, and those behind it, which it never began, go to its successor. So
each request is begun once at the most, and one that kills its worker cannot come round again.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from actors.code.frames import GarbageError
from actors.code.package_log import PackageLog
from actors.code.queue import JobQueue
from actors.code.stage import CodeStage
from actors.code.starter import Starter
from actors.code.worker import Job, Worker
from transport.client.errors import (
    ClosedError,
    CodeFailedError,
    DeadlineExceededError,
    OverloadedError,
    TransactionRefusedError,
)
from transport.client.loop import Loop

logger = logging.getLogger(__name__)

_NOTHING: Final[Mapping[str, object]] = {}
#: Requests that a worker has before it at most; the others wait here, where each worker finds them.
WINDOW: Final = 16
#: A worker that answered so many requests has proven itself: the next pause is the first again.
PROVEN_ANSWERS: Final = 10
#: Seconds until bytes that a socket did not take are tried again.
_FLUSH_S: Final = 0.001
#: Seconds from the end of a link until the death of its process is told by the kernel.
_DIE_S: Final = 0.1
#: Seconds between two lines of the log about requests that failed.
_LOG_S: Final = 1.0


@dataclass(slots=True)
class CodeStats:
    """What was counted of one code package in one actor.

    Attributes:
        answered: requests with a result.
        refused: transactions that the package itself refused.
        failed: requests that failed, for whatever rule of CodeFailedError.
        crashes: workers that died of a request, and idle ones.
        overruns: workers that were killed for their budget.
        resent: requests that went to another worker after one had ended.
        expired: requests whose deadline passed while they waited here.
        overloaded: requests that were refused since too many waited, or no worker was to come in time.
        started: processes.
        start_failures: processes that did not load the package.
    """

    answered: int = 0
    refused: int = 0
    failed: int = 0
    crashes: int = 0
    overruns: int = 0
    resent: int = 0
    expired: int = 0
    overloaded: int = 0
    started: int = 0
    start_failures: int = 0


class CodeWorkers:
    """Calls one code package. Use it from the loop's thread only.

    Args:
        loop: the actor's loop.
        stage: the package.
        count: workers that take requests.
        spares: further workers that have loaded the package, so that one that dies is followed at once.
    """

    def __init__(self, loop: Loop, stage: CodeStage, *, count: int = 1, spares: int = 1) -> None:
        self.stats = CodeStats()
        self.stage = stage
        #: Why a process last failed to load the package; "" if none did.
        self.start_failure = ""
        self._loop = loop
        self._count, self._wanted = count, count + spares
        self._numbers = itertools.count()
        self._workers: list[Worker] = []
        self._dying: list[Worker] = []
        self._waiting = JobQueue()
        self._log = PackageLog(stage.name)
        self._starter = Starter(stage, loop.wake)
        self._logged_at = -math.inf
        loop.add(self)
        while len(self._workers) < self._wanted and (worker := stage.take()):
            self._adopt(worker)
        self._starter.start(self._missing())

    def submit(
        self,
        payload: bytes,
        deadline: float,
        done: Callable[[Any], None],
        about: Mapping[str, object] = _NOTHING,
    ) -> None:
        """Have the package work on one request.

        Args:
            payload: what the stage is called with, in msgpack.
            deadline: time.monotonic seconds.
            done: called once, in this thread: with the result, or with a ScorewireError.
            about: transaction and release, for the log.
        """
        if self._waiting.full:
            self._refuse(done, f"{len(self._waiting)} requests wait for {self.stage.name} here")
            return
        if not self._workers and not self._starter.starting and self._starter.start_at > deadline:
            self._refuse(done, f"{self.stage.name} fails again and again here, and is started again later")
            return
        job = Job(payload, deadline, done, about)
        worker = self._free() if not self._waiting else None
        if worker is not None:
            worker.send(next(self._numbers), job)
            return
        self._waiting.add(job)

    def in_flight(self) -> int:
        """Return the number of requests that are not answered yet."""
        return len(self._waiting) + sum(len(worker.held) for worker in (*self._workers, *self._dying))

    def pids(self) -> list[int]:
        """Return the processes of the workers that live."""
        return [worker.pid for worker in self._workers]

    def ready(self) -> int:
        """Return how many workers have loaded the package."""
        return sum(worker.ready for worker in self._workers)

    def counters(self) -> dict[str, int]:
        """Return all counts, by name."""
        return asdict(self.stats)

    def due(self) -> float | None:
        """Return when something must be looked at: a budget, a start, a deadline."""
        if self._starter.has_news:
            return 0.0
        limits = self.stage.limits
        dues = [self._waiting.due()] if self._waiting else []
        if self._missing() > self._starter.starting:
            dues.append(self._starter.start_at)
        for worker in self._workers:
            if worker.held:
                dues.append(worker.began + limits.budget_s)
            elif not worker.ready:
                dues.append(worker.started + limits.start_s)
            if worker.closed_at is not None:
                dues.append(worker.closed_at + _DIE_S)
            if worker.backlog:
                dues.append(time.monotonic() + _FLUSH_S)
        return min(dues, default=None)

    def pump(self) -> None:
        """Take answers, ends and new workers; hold budgets and deadlines; hand on what waits."""
        for started in self._starter.news():
            self._take_started(started)
        for worker in [*self._workers, *self._dying]:
            self._read(worker)
        now = time.monotonic()
        for worker in list(self._workers):
            self._hold(worker, now)
        self._expire(now)
        self._starter.start(self._missing())
        self._feed()

    def close(self) -> None:
        """Fail what is under way with ClosedError, and end the workers."""
        self._loop.remove(self)
        held = [job for worker in (*self._workers, *self._dying) for _, job in worker.held]
        for worker in (*self._workers, *self._dying):
            worker.end()
        self._workers.clear()
        self._dying.clear()
        jobs = [*held, *self._waiting.take_all()]
        self._starter.close()
        for job in jobs:
            job.done(ClosedError(f"{self.stage.name} was closed while the request was under way"))

    def release(self) -> None:
        """Put the idle workers by for the next who calls the package, and close."""
        keep = [worker for worker in self._workers if worker.ready and not worker.held]
        for worker in keep:
            self._leave(worker)
        self.stage.put_by(keep)
        self.close()

    # -- requests

    def _free(self) -> Worker | None:
        """Return the serving worker that has the least before it, and room for more."""
        serving = [worker for worker in self._workers if worker.ready][: self._count]
        if any(not worker.held and worker.has_died() for worker in serving):
            return None  # its end is told in a moment, and it is not asked before
        chosen = min(serving, key=lambda worker: len(worker.held), default=None)
        return chosen if chosen is not None and len(chosen.held) < WINDOW else None

    def _feed(self) -> None:
        while self._waiting and (worker := self._free()):
            worker.send(next(self._numbers), self._waiting.take())

    def _refuse(self, done: Callable[[Any], None], why: str) -> None:
        self.stats.overloaded += 1
        done(OverloadedError(f"{why}: ask elsewhere, or later"))

    def _expire(self, now: float) -> None:
        for job in self._waiting.expired(now):
            self.stats.expired += 1
            job.done(DeadlineExceededError(f"no worker of {self.stage.name} was free in time"))

    def _fail(self, job: Job, rule: str, detail: str) -> None:
        self.stats.failed += 1
        now = time.monotonic()
        if now > self._logged_at + _LOG_S:
            self._logged_at = now
            facts = {**job.about, "package": self.stage.name}
            logger.warning(
                "it failed on a request (%s): %s; counted %s", rule, detail, self.stats, extra=facts
            )
        stage = self.stage.package.stage
        job.done(CodeFailedError(f"{self.stage.name}: {detail}", field=stage, rule=rule))

    # -- answers

    def _read(self, worker: Worker) -> None:
        # Looked at before its last words are read: one that died in between would be blamed on a request that
        # it had answered.
        died = worker.has_died()
        try:
            for frame in worker.frames():
                self._take(worker, frame)
        except GarbageError as error:
            self._kill(worker, f"it wrote garbage to its node: {error}")
        if worker.closed_at is not None:
            self._loop.unwatch(worker.pollables[0])
            if time.monotonic() > worker.closed_at + _DIE_S and not worker.has_died():
                self._kill(worker, "it closed its link to its node")
        if worker.ending and worker in self._workers:
            self._workers.remove(worker)
            self._dying.append(worker)
        if died:
            self._take_death(worker)

    def _take(self, worker: Worker, frame: list[Any]) -> None:
        if worker.ending:
            return
        if frame[0] == "log":
            self._log.take(frame, worker.pid, worker.held[0][1].about if worker.held else _NOTHING)
            return
        if not worker.ready:
            self._take_start(worker, frame)
            return
        if not worker.held or frame[0] != worker.held[0][0]:
            raise GarbageError(f"an answer to {frame[0]!r}, which it was not asked")
        _, job = worker.held.popleft()
        worker.began = time.monotonic()
        worker.answered += 1
        match frame:
            case [_, 0, result]:
                self.stats.answered += 1
                job.done(result)
            case [_, 1, str(rule), str(detail)]:
                if rule == "memory":
                    # It ends itself, and must not take the next request with it.
                    self._kill(worker, "it was out of memory")
                    self._take_back(worker)
                self._fail(job, rule, detail)
            case [_, 2, str(field), str(rule), str(detail)]:
                self.stats.refused += 1
                job.done(TransactionRefusedError(detail, field=field, rule=rule))
            case _:
                self._fail(job, "crash", "its worker gave an answer that is none")
                raise GarbageError("an answer that is none")

    def _take_start(self, worker: Worker, frame: list[Any]) -> None:
        if frame[0] == "ready":
            worker.ready = True
            return
        self.start_failure = str(frame[-1])
        worker.kill(f"it did not load: {self.start_failure}")

    # -- ends

    def _kill(self, worker: Worker, why: str) -> None:
        if not worker.ending:
            self.stats.crashes += 1
            worker.kill(why)

    def _hold(self, worker: Worker, now: float) -> None:
        limits = self.stage.limits
        worker.flush()
        if worker.held and now > worker.began + limits.budget_s:
            self.stats.overruns += 1
            why = f"took longer than code.budget_ms ({limits.budget_s * 1e3:g} ms)"
        elif not worker.ready and now > worker.started + limits.start_s:
            self.start_failure = why = f"did not load within code.start_s ({limits.start_s:g} s)"
        else:
            return
        worker.kill(why)
        self._workers.remove(worker)
        self._dying.append(worker)
        if worker.held:
            _, job = worker.held.popleft()
            self._take_back(worker)
            self._fail(job, "budget", why)

    def _take_death(self, worker: Worker) -> None:
        self._leave(worker)
        killed = bool(worker.ending)
        why = worker.end()
        if not worker.ready:
            self.stats.start_failures += 1
            self.start_failure = self.start_failure or why
        elif not killed:
            self.stats.crashes += 1
        self._starter.back_off(proven=worker.answered >= PROVEN_ANSWERS)
        if worker.held:
            _, job = worker.held.popleft()
            self._take_back(worker)
            self._fail(job, "crash", why)
        if not killed or not worker.ready:
            facts = {"package": self.stage.name, "worker": worker.pid}
            logger.warning("a worker of %s ended: %s", self.stage.name, why, extra=facts)

    def _take_back(self, worker: Worker) -> None:
        """Let those behind the first wait again, before all others: it never began them."""
        self.stats.resent += len(worker.held)
        while worker.held:
            _, job = worker.held.pop()
            self._waiting.put_back(job)

    # -- processes

    def _missing(self) -> int:
        return self._wanted - len(self._workers)

    def _take_started(self, started: Worker | Exception) -> None:
        if isinstance(started, Exception):
            self.stats.start_failures += 1
            self.start_failure = f"no process can be started: {started}"
            self._starter.back_off(proven=False)
            return
        self.stats.started += 1
        self._adopt(started)

    def _adopt(self, worker: Worker) -> None:
        self._workers.append(worker)
        for pollable in worker.pollables:
            self._loop.watch(pollable, self)

    def _leave(self, worker: Worker) -> None:
        self._unwatch(worker)
        for workers in (self._workers, self._dying):
            if worker in workers:
                workers.remove(worker)

    def _unwatch(self, worker: Worker) -> None:
        for pollable in worker.pollables:
            self._loop.unwatch(pollable)
