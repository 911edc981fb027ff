"""The queue before an actor: bounded, fair between callers, live before replay, without what cannot make it.

What would wait longer than its deadline allows is refused when it arrives, from the measured time that a
request takes here. A burst may wait its whole deadline; while more work arrives than is done, a request is
admitted only where it would wait for a small share of its deadline: so what is admitted is answered soon, and
the excess at once. After the controlled delay of Nichols and Jacobson ("Controlling Queue Delay", ACM Queue
2012) as Facebook's servers have it (Maurer, "Fail at Scale", ACM Queue 2015), with what arrives in place of
the age of the queue: whoever refuses keeps its queue short and would find itself well, or refuse for ever.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from transport.client.wire import Kind

#: Requests that may wait at all.
MAX_QUEUED = 10_000
#: Seconds of work that arrive in a second beyond which it is overload; the seconds in which that is measured;
#: and the share of its deadline that a request may wait then.
OVERLOAD, WINDOW_S = 0.9, 0.05
HURRIED_SHARE = 0.05
#: Seconds that are left for the rest of the way where a caller gives more: it is in no hurry, and may wait.
PATIENT_S = 1.0
#: Seconds that one slice of work should take: afterwards the socket and the beats have their turn.
SLICE_S = 0.002
_LEAST, _MOST = 8, 1024
#: Seconds that a refused caller is told to wait at least.
_RETRY_S = 0.001
#: The share of a new measurement in the time that a request takes, and how many times the old one it may be:
#: a thread that was not given the processor for a while has not become slow.
_WEIGHT, _MOST_TIMES = 0.2, 8.0
#: The share of the newest window in what arrives.
_LOAD_WEIGHT = 0.7
#: Seconds after which what was measured while requests waited is outdated.
_OUTDATED_S = 1.0
#: What is taken for a request's time before anything was measured, in seconds.
_FIRST_GUESS_S = 10e-6


class Request(NamedTuple):
    """A request as it arrived.

    Attributes:
        caller: the route back.
        id: the caller's number for it.
        kind: SCORE or VECTOR.
        frame: the whole frame; its body is not read yet.
        arrived: when it was read from the socket (time.monotonic seconds).
        deadline: when an answer is of no more use.
        replay: whether it may wait for all that is live.
    """

    caller: bytes
    id: int
    kind: Kind
    frame: bytes
    arrived: float
    deadline: float
    replay: bool = False


class _Turns:
    """The waiting requests of one priority, taken from each caller in turn."""

    __slots__ = ("_order", "by_caller", "count")

    def __init__(self) -> None:
        self.by_caller: dict[bytes, deque[Request]] = {}
        self.count = 0
        self._order: deque[bytes] = deque()

    def add(self, request: Request) -> None:
        waiting = self.by_caller.get(request.caller)
        if waiting is None:
            waiting = self.by_caller[request.caller] = deque()
            self._order.append(request.caller)
        waiting.append(request)
        self.count += 1

    def ahead_of(self, caller: bytes) -> int:
        """Return how many are served before the next one of a caller."""
        own = self.by_caller.get(caller)
        if own is None:
            return min(self.count, len(self.by_caller))
        return min(self.count, (len(own) + 1) * len(self.by_caller))

    def take(self, most: int, into: list[Request]) -> None:
        while self.count and len(into) < most:
            caller = self._order.popleft()
            waiting = self.by_caller[caller]
            into.append(waiting.popleft())
            self.count -= 1
            if waiting:
                self._order.append(caller)
            else:
                del self.by_caller[caller]


class Admission:
    """The queue of one listener. Use it from one thread; all times are time.monotonic seconds."""

    def __init__(self) -> None:
        self._load = 0.0
        self._looked_at = 0.0
        self._arrived = 0
        self._busy_at = -math.inf
        self._live, self._replay = _Turns(), _Turns()
        self._service_s = _FIRST_GUESS_S
        self._slice_at = 0.0
        self._slice_count = 0

    def __len__(self) -> int:
        return self._live.count + self._replay.count

    def offer(self, request: Request, now: float) -> float | None:
        """Queue a request.

        Returns:
            None where it was taken; where it is refused, the seconds after which to try again.
        """
        turns = self._live
        ahead = turns.ahead_of(request.caller)
        if request.replay:
            turns = self._replay
            ahead = self._live.count + turns.ahead_of(request.caller)
        wait_s = ahead * self._service_s
        left_s = request.deadline - now
        limit_s = left_s
        if self._overload(now):
            limit_s = max(left_s * HURRIED_SHARE, left_s - PATIENT_S)
        # What finds nobody before it is served, however little time it has.
        if (ahead and wait_s > limit_s) or len(self) >= MAX_QUEUED:
            return max(_RETRY_S, wait_s - limit_s / 2)
        turns.add(request)
        return None

    def take(self, now: float) -> list[Request]:
        """Take the next slice of work: about SLICE_S of it."""
        if self._slice_count:
            # With all that the thread did, and did not get to, between two slices.
            self._measure(now)
            self._busy_at = now
        slice_: list[Request] = []
        most = min(_MOST, max(_LEAST, int(SLICE_S / self._service_s)))
        self._live.take(most, slice_)
        self._replay.take(most, slice_)
        self._slice_at, self._slice_count = now, len(slice_)
        return slice_

    def done(self, now: float) -> None:
        """Note that the slice was worked off."""
        if not len(self):
            # Alone, a slice does not say what its answers cost later.
            if now - self._busy_at > _OUTDATED_S:
                self._measure(now)
            self._slice_count = 0

    def _overload(self, now: float) -> bool:
        """Count an arrival; say whether more work arrives than can be done."""
        self._arrived += 1
        elapsed_s = now - self._looked_at
        if elapsed_s >= WINDOW_S:
            arriving = self._arrived * self._service_s / elapsed_s
            self._load += _LOAD_WEIGHT * (arriving - self._load)
            self._looked_at, self._arrived = now, 0
        return self._load > OVERLOAD

    def _measure(self, now: float) -> None:
        taken_s = min((now - self._slice_at) / self._slice_count, _MOST_TIMES * self._service_s)
        self._service_s += _WEIGHT * (taken_s - self._service_s)
