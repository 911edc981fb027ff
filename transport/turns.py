"""The requests that wait before an actor, and whose turn it is: each caller has one in turn."""

from __future__ import annotations

from collections import deque

from transport.client.wire import Kind


class Request:
    """A request as it arrived.

    Attributes:
        caller: the route back.
        id: the caller's number for it.
        kind: SCORE or VECTOR.
        frame: the whole frame; its body is not read yet.
        arrived: when it was read from the socket (time.monotonic seconds).
        deadline: when an answer is of no more use.
        replay: whether it may wait for all that is live.
        place: its number among those taken from the queue; 0 while it waits.
    """

    __slots__ = ("arrived", "caller", "deadline", "frame", "id", "kind", "place", "replay")

    def __init__(
        self,
        caller: bytes,
        id: int,  # noqa: A002 - the word on the wire
        kind: Kind,
        frame: bytes,
        arrived: float,
        deadline: float,
        replay: bool = False,
    ) -> None:
        self.caller = caller
        self.id = id
        self.kind = kind
        self.frame = frame
        self.arrived = arrived
        self.deadline = deadline
        self.replay = replay
        self.place = 0


class Turns:
    """The waiting requests of one priority, taken from each caller in turn.

    Attributes:
        count: how many wait.
    """

    __slots__ = ("_by_caller", "_order", "count")

    def __init__(self) -> None:
        self._by_caller: dict[bytes, deque[Request]] = {}
        self.count = 0
        self._order: deque[bytes] = deque()

    def add(self, request: Request) -> None:
        """Let a request wait behind the others of its caller."""
        waiting = self._by_caller.get(request.caller)
        if waiting is None:
            waiting = self._by_caller[request.caller] = deque()
            self._order.append(request.caller)
        waiting.append(request)
        self.count += 1

    def ahead_of(self, caller: bytes) -> int:
        """Return how many are served before the next one of a caller."""
        own = self._by_caller.get(caller)
        if own is None:
            return min(self.count, len(self._by_caller))
        return min(self.count, (len(own) + 1) * len(self._by_caller))

    def take(self, most: int, into: list[Request]) -> None:
        """Move those whose turn it is into a list, until that has `most`."""
        while self.count and len(into) < most:
            caller = self._order.popleft()
            waiting = self._by_caller[caller]
            into.append(waiting.popleft())
            self.count -= 1
            if waiting:
                self._order.append(caller)
            else:
                del self._by_caller[caller]
