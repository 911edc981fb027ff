"""The deadlines of a pool's requests, the nearest first."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping

from .errors import DeadlineExceededError, NoNodeError, ScorewireError
from .member import Request

#: Answered requests that may wait for their deadline before they are let go.
_KEPT = 1_000


class Deadlines:
    """Requests by their deadlines. Use it from one thread; times are time.monotonic seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Request]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: Request, in_flight: int) -> None:
        """Take a request; with so many under way, let go of answered ones that would pile up."""
        heapq.heappush(self._heap, (request.deadline, next(self._numbers), request))
        if len(self._heap) > 2 * in_flight + _KEPT:
            self._heap = [entry for entry in self._heap if not entry[2].finished]
            heapq.heapify(self._heap)

    def due(self) -> float:
        """Return the next deadline of a request that is not finished; infinite if there is none."""
        while self._heap and self._heap[0][2].finished:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def passed(self, now: float) -> Iterator[Request]:
        """Take out the requests whose deadline has passed without an answer."""
        while self.due() <= now:
            yield heapq.heappop(self._heap)[2]

    def take_all(self) -> list[Request]:
        """Take out all that are not finished."""
        left = [request for _, _, request in self._heap if not request.finished]
        self._heap.clear()
        return left


def too_late(request: Request, states: Mapping[str, str]) -> ScorewireError:
    """Return what a caller is told whose deadline has passed; `states` are the members'."""
    if request.asked:
        return DeadlineExceededError(
            f"no answer in time, though it was sent {request.asked} times; the nodes: {states}"
        )
    return NoNodeError(
        f"no node could be reached in time: {states}; are the addresses right, and are nodes up?"
    )
