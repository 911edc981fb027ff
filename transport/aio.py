"""Actors on asyncio: an inbox whose wait is an event loop, and a pool's loop that the same thread drives.

What speaks HTTP needs asyncio, and a pool has a loop of its own. Here one thread serves both: a request and
its answer change no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from typing import Any

# Pykka calls its envelope internal; whoever brings an inbox has to name it all the same.
from pykka._envelope import Envelope

from transport.client.loop import Loop, Pollable, Source


class AsyncMailbox:
    """A Pykka inbox over an event loop, which runs while the actor waits for its next message.

    Args:
        aio: the event loop; it belongs to the actor's thread from now on. `put` alone is safe from others.
    """

    def __init__(self, aio: asyncio.AbstractEventLoop) -> None:
        self.aio = aio
        self._local: deque[Envelope[Any]] = deque()
        self._arrival: asyncio.Future[None] | None = None

    def put(self, envelope: Envelope[Any], /) -> None:
        """Append a message and interrupt the event loop."""
        self._local.append(envelope)
        with contextlib.suppress(RuntimeError):  # closed: nobody reads any more
            self.aio.call_soon_threadsafe(self._interrupt)

    def get(self) -> Envelope[Any]:
        """Run the event loop until a message is there."""
        while not self._local:
            self._arrival = self.aio.create_future()
            self.aio.run_until_complete(self._arrival)
        return self._local.popleft()

    def close(self) -> None:
        """Free the event loop, once the actor's thread waits no more."""
        self.aio.close()

    def empty(self) -> bool:
        """Say whether no message waits."""
        return not self._local

    def _interrupt(self) -> None:
        # While the actor is at a message, nobody waits for one, and it may run the event loop itself.
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)


class AsyncLoop(Loop):
    """A loop of sockets and timers that an event loop drives, in the event loop's thread.

    ZeroMQ's descriptors tell of changes and not of states, so it looks again after each turn in which there
    was something, and after whatever was sent: call `poke` then.
    """

    def __init__(self, aio: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._aio = aio
        self._timer: asyncio.TimerHandle | None = None
        self._coming = False
        self._closed = False

    def watch(self, pollable: Pollable, source: Source) -> None:
        """Watch one more pollable of a source."""
        super().watch(pollable, source)
        self._aio.add_reader(_descriptor(pollable), self.poke)
        self.poke()

    def unwatch(self, pollable: Pollable) -> None:
        """Watch a pollable no more. Call it before it is closed."""
        self._aio.remove_reader(_descriptor(pollable))
        super().unwatch(pollable)

    def poke(self) -> None:
        """Take a turn as soon as what runs now is done."""
        if not self._coming and not self._closed:
            self._coming = True
            self._aio.call_soon(self._turn)

    def close(self) -> None:
        """Take no further turn."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        super().close()

    def _turn(self) -> None:
        self._coming = False
        if self._closed:
            return
        ready = self.wait(block=False)
        for source in ready:
            source.pump()
        if self._timer is not None:
            self._timer.cancel()
        if ready:
            self.poke()
            return
        dues = [due for source in self._sources if (due := source.due()) is not None]
        wait_s = max(0.0, min(dues, default=math.inf) - time.monotonic())
        # Rounded up: waking before the time would spin until it has come.
        self._timer = self._aio.call_later(math.ceil(wait_s * 1e3) / 1e3, self.poke) if dues else None


def _descriptor(pollable: Pollable) -> int:
    return pollable if isinstance(pollable, int) else pollable.fileno()
