"""The mailbox: a Pykka inbox that is fed by sockets, local messages and timers at once.

All that has arrived on a socket is handed over as one batch: that is the adaptive batching. An idle actor
takes one request at once; a busy one finds many waiting and takes them together.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Pykka calls its envelope internal; whoever brings an inbox has to name it all the same.
from pykka._envelope import Envelope

from transport.client.loop import Loop, Source


@dataclass(frozen=True, slots=True)
class Pump:
    """The message that tells an actor to pump a source: something arrived there, or it is due."""

    source: Source


class Mailbox:
    """A Pykka inbox over a loop. `put` is safe from any thread; all else belongs to the actor's thread.

    Local messages come first: they are few, and a flood of requests must not hold up a stop.
    """

    def __init__(self) -> None:
        self.loop = Loop()
        self._local: deque[Envelope[Any]] = deque()
        self._ready: deque[Source] = deque()

    def put(self, envelope: Envelope[Any], /) -> None:
        """Append a local message and wake the actor."""
        self._local.append(envelope)
        self.loop.wake()

    def get(self) -> Envelope[Any]:
        """Wait for the next local message, or for a source to pump."""
        while True:
            if self._local:
                return self._local.popleft()
            if self._ready:
                return Envelope(Pump(self._ready.popleft()))
            self.loop.sleep_ahead()
            self._ready.extend(self.loop.wait(block=not self._local))

    def close(self) -> None:
        """Free the loop, once the actor's thread waits no more; what is still put here stays unread."""
        self.loop.close()

    def empty(self) -> bool:
        """Say whether a local message waits; what waits on sockets is not the inbox's to refuse."""
        return not self._local


class Timer:
    """A source that is due every `period_s` seconds, and does `action` then."""

    def __init__(self, period_s: float, action: Callable[[], None]) -> None:
        self._period_s = period_s
        self._action = action
        self._next = time.monotonic() + period_s

    def due(self) -> float:
        """Return when the action is due next."""
        return self._next

    def pump(self) -> None:
        """Do the action; beats that were missed meanwhile are not made up for."""
        self._next = time.monotonic() + self._period_s
        self._action()
