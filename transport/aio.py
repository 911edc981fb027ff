"""Actors on asyncio: an inbox whose wait is an event loop, so that one thread serves HTTP and messages.

The pools of such an actor are on the same event loop (`client/aio.py`): a request and its answer change no
thread.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

# Pykka calls its envelope internal; whoever brings an inbox has to name it all the same.
from pykka._envelope import Envelope


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
