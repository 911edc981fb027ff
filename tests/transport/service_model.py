"""A model of a preprocessor, its scorer and their callers around the real admission, in a time of its own.

What the admission does shows after seconds of load, and depends on what is refused, passed on and answered
when. Here a second takes a tenth, and comes out the same on any machine.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

from transport.admission import SLICE_S, Admission
from transport.client.throttle import Throttle
from transport.client.wire import Kind
from transport.turns import Request


@dataclass
class Costs:
    """Seconds that things take.

    Attributes:
        turn: each turn of the preprocessor, whatever it does in it.
        read: to read a request that is taken.
        refuse: to read one and to refuse it.
        prepare: to compute features, and send them.
        answer: to read the scorer's reply, and to answer.
        batch: each batch of the scorer.
        score: each row in it.
        way: between the scorer and the preprocessor, for all at once.
        shared: whether both have one core.
    """

    turn: float = 80e-6
    read: float = 4e-6
    refuse: float = 12e-6
    prepare: float = 50e-6
    answer: float = 15e-6
    batch: float = 60e-6
    score: float = 33e-6
    way: float = 0.0
    shared: bool = True


@dataclass
class Caller:
    """One that sends so many a second, at the times of a Poisson process, with the client's restraint."""

    rate: float
    random: random.Random
    throttle: Throttle = field(default_factory=Throttle)
    offered: int = 0
    refused: int = 0
    late: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def good(self) -> int:
        return len(self.latencies)

    def p99(self) -> float:
        return sorted(self.latencies)[int(0.99 * len(self.latencies))]


class Model:
    """Serves some callers.

    Args:
        costs: what takes how long.
        rates: of each caller, requests a second.
        deadline_s: of each request.
    """

    def __init__(self, costs: Costs, *rates: float, deadline_s: float = 0.1) -> None:
        self.queue = Admission()
        self.callers = [Caller(rate, random.Random(number)) for number, rate in enumerate(rates)]
        for number, caller in enumerate(self.callers):
            caller.throttle._random = random.Random(100 + number)
        self._costs = costs
        self._deadline_s = deadline_s
        self._now = 0.0
        self._ids = itertools.count()
        self._due = [(caller.random.expovariate(caller.rate), n) for n, caller in enumerate(self.callers)]
        self._socket: deque[tuple[float, int]] = deque()
        self._open: dict[int, tuple[float, int]] = {}
        self._expiring: deque[Request] = deque()
        self._passed: deque[Request] = deque()
        self._scorer_free = 0.0
        self._full: set[int] = set()
        self._scorer = Admission()
        self._under_work: list[Request] = []
        self._originals: dict[int, Request] = {}
        self._scored: deque[tuple[float, Request]] = deque()

    def run(self, seconds: float) -> None:
        """Go on for some seconds, and count what comes of what is sent in them."""
        for caller in self.callers:
            caller.offered = caller.refused = caller.late = 0
            caller.latencies.clear()
        end = self._now + seconds
        while self._now < end:
            if not (self._turn() | self._score()):
                self._now = max(self._now + 1e-6, min(end, self._next()))

    def _next(self) -> float:
        """Return when something happens next."""
        ready_at = self.queue.ready_at(self._now)
        times = [self._due[0][0], *(one.deadline for one in list(self._expiring)[:1])]
        times += [at for at, _ in list(self._scored)[:1]]
        times += [self._scorer_free] if self._passed or len(self._scorer) else []
        return min(times if ready_at is None else [*times, ready_at])

    def _arrive(self) -> None:
        heapq.heapify(self._due)
        while self._due[0][0] <= self._now:
            at, number = heapq.heappop(self._due)
            caller = self.callers[number]
            heapq.heappush(self._due, (at + caller.random.expovariate(caller.rate), number))
            caller.offered += 1
            if caller.throttle.admits():
                self._socket.append((at, number))
            else:
                caller.refused += 1

    def _turn(self) -> bool:
        """Do what a preprocessor does in one turn: take replies, read, pass a slice on."""
        began = self._now
        while self._scored and self._scored[0][0] <= began:
            _, request = self._scored.popleft()
            if request.id in self._open:
                self._now += self._costs.answer
                self._end(request, refused=request.id in self._full)
        while self._expiring and self._expiring[0].deadline <= self._now:
            request = self._expiring.popleft()
            if request.id in self._open:
                self._now += self._costs.answer
                self._end(request)
        self._arrive()
        read_at = self._now
        while self._socket:
            at, number = self._socket.popleft()
            name = str(number).encode()
            request = Request(name, next(self._ids), Kind.SCORE, b"", read_at, at + self._deadline_s)
            if self.queue.offer(request, read_at) is None:
                self._now += self._costs.read
                self._open[request.id] = (at, number)
            else:
                self._now += self._costs.refuse
                self.callers[number].refused += 1
                self.callers[number].throttle.note(self._now, refused=True)
        self.queue.measure(self._now)
        ready_at = self.queue.ready_at(self._now)
        if ready_at is not None and ready_at <= self._now:
            for request in self.queue.take(self._now):
                if request.deadline < self._now:
                    self._end(request)
                else:
                    self._now += self._costs.prepare
                    self._passed.append(request)
                    self._expiring.append(request)
            self.queue.done(self._now)
        if self._now == began:
            return False
        self._now += self._costs.turn
        return True

    def _end(self, request: Request, *, refused: bool = False) -> None:
        at, number = self._open.pop(request.id)
        self.queue.end(request, self._now, done=not refused)
        caller = self.callers[number]
        caller.throttle.note(self._now, refused=refused)
        if refused:
            caller.refused += 1
        elif self._now <= at + self._deadline_s:
            caller.latencies.append(self._now - at)
        else:
            caller.late += 1

    def _score(self) -> bool:
        """Let the scorer take what has come: a slice, or all at once where a batch takes long."""
        if self._scorer_free > self._now:
            return False
        batch = [one for one in self._passed if one.deadline > self._now]
        self._passed.clear()
        if self._costs.batch < SLICE_S:
            batch = self._admit(batch)
        if not batch:
            return False
        self._scorer_free = self._now + self._costs.batch + self._costs.score * len(batch)
        self._scored += [(self._scorer_free + self._costs.way, one) for one in batch]
        if self._costs.shared:
            self._now = self._scorer_free
        return True

    def _admit(self, arrived: list[Request]) -> list[Request]:
        """Let the scorer's own admission refuse, and take the next slice."""
        queue = self._scorer
        for one in self._under_work:
            queue.end(one, self._now)
        queue.done(self._now)
        for one in arrived:
            copy = Request(b"", one.id, one.kind, b"", self._now, one.deadline)
            self._originals[copy.id] = one
            if queue.offer(copy, self._now) is not None:
                self._full.add(one.id)
                self._scored.append((self._now + self._costs.way, one))
        queue.measure(self._now)
        self._under_work = queue.take(self._now) if len(queue) else []
        return [self._originals.pop(one.id) for one in self._under_work]
