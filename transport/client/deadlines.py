"""The deadlines of what waits, the nearest first."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from .errors import DeadlineExceededError, NoNodeError, ScorewireError
from .member import Request

#: Finished ones that may wait for their deadline before they are let go.
_KEPT = 1_000


class Waits(Protocol):
    """Something that waits until its deadline at the latest, and then is finished."""

    @property
    def deadline(self) -> float:
        """When it has waited too long."""

    @property
    def finished(self) -> bool:
        """Whether it waits no more."""


W = TypeVar("W", bound=Waits)


class Deadlines(Generic[W]):
    """What waits, by its deadline. Use it from one thread; times are time.monotonic seconds."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, W]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, one: W, in_flight: int) -> None:
        """Take one; with so many that wait, let go of finished ones that would pile up."""
        heapq.heappush(self._heap, (one.deadline, next(self._numbers), one))
        if len(self._heap) > 2 * in_flight + _KEPT:
            self._heap = [entry for entry in self._heap if not entry[2].finished]
            heapq.heapify(self._heap)

    def due(self) -> float:
        """Return the next deadline of one that is not finished; infinite if there is none."""
        while self._heap and self._heap[0][2].finished:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def passed(self, now: float) -> Iterator[W]:
        """Take out those whose deadline has passed before they were finished."""
        while self.due() <= now:
            yield heapq.heappop(self._heap)[2]

    def take_all(self) -> list[W]:
        """Take out all that are not finished."""
        left = [one for _, _, one in self._heap if not one.finished]
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
