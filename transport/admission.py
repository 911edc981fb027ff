"""The queue before an actor: bounded, fair between callers, live before replay, without what cannot make it.

What would wait longer than its deadline allows, or in overload than is good for all (transport.overload), is
refused when it arrives. The wait is that of all who were taken before: those who wait here and those who were
passed on and are not answered yet, by the measured time between two answers.

No more is passed on than keeps those behind busy, so that what waits waits here, where callers have their
turns and live goes before replay.
"""

from __future__ import annotations

import math
from collections import deque

from transport.overload import HURRIED_TIMES, Overload
from transport.turns import Request, Turns

#: Requests that may wait at all.
MAX_QUEUED = 10_000
#: Seconds that one slice of work should take: afterwards the socket and the beats have their turn.
SLICE_S = 0.0008
_LEAST, _MOST = 8, 1024
#: How many slices are passed on ahead of the answers.
_SLICES_AHEAD = 1.0
#: Seconds without an answer after which more is passed on all the same: what keeps silent may be dead.
_STALL_S = 0.02
#: Seconds that a refused caller is told to wait at least.
_RETRY_S = 0.001
#: Seconds over which the time between two answers is measured at least.
_MEASURE_S = 0.01
#: The share of a new measurement in the time that a request takes, and how many times the old one it may be:
#: a thread that was not given the processor for a while has not become slow.
_WEIGHT, _MOST_TIMES = 0.2, 8.0
#: The time of a request that finds nobody before it is the least of so many: what else is done meanwhile,
#: such as refusing others, only adds, and the longer overload stands the more would be let in.
_ALONE_KEPT = 5
#: How many such times are no wait: where many are worked on at once, what comes meanwhile waits for those.
_ALONE_TIMES = 1.6
#: Seconds, and times as long as it took, after which it is looked at again what one takes alone.
_LOOK_S, _LOOK_TIMES = 1.0, 100.0
#: Seconds after which what was measured while requests waited is outdated.
_OUTDATED_S = 1.0
#: What is taken for a request's time before anything was measured, in seconds.
_FIRST_GUESS_S = 10e-6


class Admission:
    """The queue of one listener. Use it from one thread; all times are time.monotonic seconds."""

    def __init__(self) -> None:
        self._live, self._replay = Turns(), Turns()
        #: How many were taken, and the newest of those that ended: between them are those that are passed on.
        #: What a dead node holds does not count for long, since others overtake it.
        self._taken = self._newest = self._open = 0
        self._moved_at = -math.inf
        self._service_s = _FIRST_GUESS_S
        self._sum_s, self._sum_ended = _FIRST_GUESS_S, 1.0
        self._measured_at = -math.inf
        self._looked_at = self._busy_s = 0.0
        self._ended = self._busy_ended = 0
        self._waited = False
        self._alone: Request | None = None
        self._sent_alone = False
        self._alone_s = 0.0
        self._alone_times: deque[float] = deque(maxlen=_ALONE_KEPT)
        self._alone_at = self._alone_since = self._gave_up_at = -math.inf
        self._live_overload, self._replay_overload = Overload(), Overload()
        self._slice_at = 0.0
        self._slice_count = 0

    def __len__(self) -> int:
        return self._live.count + self._replay.count

    def offer(self, request: Request, now: float) -> float | None:
        """Queue a request.

        Returns:
            None where it was taken; where it is refused, the seconds after which to try again.
        """
        turns, before, overload = self._live, 0, self._live_overload
        if request.replay:
            turns, before, overload = self._replay, self._live.count, self._replay_overload
        before += self._under_way(now)
        if not overload.standing and self._wait_s(before + turns.count) <= 0.0 and len(self) < MAX_QUEUED:
            # Nobody waits, as nearly always: that is all that there is to find out.
            overload.is_well(now)
            turns.add(request)
            return None
        ahead = before + turns.ahead_of(request.caller)
        wait_s = self._wait_s(ahead)
        left_s = request.deadline - now
        least_s = HURRIED_TIMES * self._service_s
        limit_s = overload.limit_s(self._wait_s(before + turns.count), left_s, least_s, now)
        # What finds nobody before it is served, however little time it has.
        if (ahead and wait_s > limit_s) or len(self) >= MAX_QUEUED:
            overload.refuse(now)
            return max(_RETRY_S, wait_s - limit_s / 2)
        turns.add(request)
        return None

    def _wait_s(self, ahead: int) -> float:
        """Return for how long one waits with so many ahead; the time that it takes alone is no wait."""
        return ahead * self._service_s - _ALONE_TIMES * self._alone_s

    def ready_at(self, now: float) -> float | None:
        """Return when the next slice may be taken; None while nothing waits."""
        if not len(self):
            return None
        under_way = self._under_way(now)
        if self._looks(now):
            most = 1.0
        else:
            most = max(_LEAST, (_ALONE_TIMES * self._alone_s + _SLICES_AHEAD * SLICE_S) / self._service_s)
        return now if under_way < most else self._moved_at + self._stall_s()

    def _under_way(self, now: float) -> int:
        """Return how many are passed on that the next one would wait for.

        What others overtook may be with a dead node, and where none moves, all may be.
        """
        if now - self._moved_at >= self._stall_s():
            return 0
        return max(0, min(self._open, self._taken - self._newest))

    def _stall_s(self) -> float:
        return _STALL_S + 2 * self._alone_s

    def _looks(self, now: float) -> bool:
        """Say whether the next one is to be alone, to see what time that takes by now.

        Not for long where no answer comes: it may be with a dead node.
        """
        if self._alone is not None and now - self._alone_since > self._stall_s():
            return False
        standing = self._live_overload.standing or self._replay_overload.standing
        outdated = now - self._alone_at > max(_LOOK_S, _LOOK_TIMES * self._alone_s)
        return standing and outdated and self._calm(now)

    def _calm(self, now: float) -> bool:
        """Say whether nothing was given up of late, at which those behind may still work."""
        return now - self._gave_up_at > _OUTDATED_S

    def take(self, now: float) -> list[Request]:
        """Take the next slice of work: about SLICE_S of it."""
        most = min(_MOST, max(_LEAST, int(SLICE_S / self._service_s)))
        alone = not self._under_way(now)
        if not self._open:
            self._moved_at = now
        looks = alone and self._looks(now)
        if looks:
            most = 1
        slice_: list[Request] = []
        self._live.take(most, slice_)
        self._replay.take(most, slice_)
        place = self._taken
        for request in slice_:
            place += 1
            request.place = place
        self._taken = place
        self._open += len(slice_)
        if alone and self._alone is None and self._calm(now):
            self._alone, self._alone_since, self._sent_alone = slice_[0], now, looks
        self._slice_at, self._slice_count = now, len(slice_)
        return slice_

    def done(self, now: float) -> None:
        """Note that the slice was worked off, or passed on."""
        # Nothing waited of late: then what one slice took is the best that there is to know.
        if now - self._measured_at > _OUTDATED_S and not len(self):
            self._learn(now - self._slice_at, self._slice_count)

    def end(self, request: Request, now: float, *, done: bool = True) -> None:
        """Note that a request was answered, or is not going to be.

        `done`: whether it was worked on. One that was not, or that is late, says nothing of those before it,
        at which those behind may be still.
        """
        self._open -= 1
        alone = request is self._alone
        if alone:
            self._alone = None
        if not done or now >= request.deadline:
            self._gave_up_at = now
            return
        self._moved_at = now
        self._ended += 1
        self._newest = max(self._newest, request.place)
        if alone:
            taken_s = now - self._alone_since
            if not self._alone_s:
                self._alone_s = taken_s
            elif self._sent_alone or self._taken == request.place:
                taken_s = min(taken_s, _MOST_TIMES * self._alone_s)
                self._alone_times.append(taken_s)
                self._alone_s = min(self._alone_times)
                self._alone_at = now

    def measure(self, now: float) -> None:
        """Measure the time between two answers while there is more to do than what one waits for anyway.

        Otherwise it would be the time between two requests.
        """
        if self._waited:
            self._busy_s += now - self._looked_at
            self._busy_ended += self._ended
            if self._busy_s >= _MEASURE_S and self._busy_ended:
                self._learn(self._busy_s, self._busy_ended)
                self._measured_at = now
                self._busy_s, self._busy_ended = 0.0, 0
        self._looked_at, self._ended = now, 0
        self._waited = self._wait_s(len(self) + self._under_way(now)) > SLICE_S

    def _learn(self, elapsed_s: float, ended: int) -> None:
        # A sum of times by a sum of answers: a mean of their ratios would be that of the slowest.
        elapsed_s = min(elapsed_s, _MOST_TIMES * ended * self._service_s)
        self._sum_s = (1 - _WEIGHT) * self._sum_s + elapsed_s
        self._sum_ended = (1 - _WEIGHT) * self._sum_ended + ended
        self._service_s = max(_LEAST_S, self._sum_s / self._sum_ended)


#: What a request takes at least, in seconds.
_LEAST_S = 1e-6
