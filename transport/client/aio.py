"""A pool on an event loop of asyncio: a call and its answer change no thread."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Collection
from typing import Any

import zmq

from .errors import ClosedError
from .loop import Pollable, Source, Sources, descriptor_of
from .pool import Done, Pool
from .wire import Kind


class AsyncLoop(Sources):
    """Serves sources on an event loop, in the event loop's thread.

    ZeroMQ's descriptors tell of changes and not of states, and sending may swallow such a change: `poke` a
    source after whatever it has sent.

    Args:
        aio: the event loop.
    """

    def __init__(self, aio: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._aio = aio
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._poked: list[Source] = []
        self._closed = False

    def watch(self, pollable: Pollable, source: Source) -> None:
        """Watch one more pollable of a source.

        Raises:
            NotImplementedError: this kind of event loop watches no sockets.
        """
        super().watch(pollable, source)
        self._aio.add_reader(descriptor_of(pollable), self.poke, source)
        self.poke(source)

    def unwatch(self, pollable: Pollable) -> None:
        """Watch a pollable no more. Call it before it is closed."""
        if not self._aio.is_closed():
            self._aio.remove_reader(descriptor_of(pollable))
        super().unwatch(pollable)

    def poke(self, source: Source) -> None:
        """Let a source have its turn as soon as what runs now is done."""
        if source in self._poked or self._closed:
            return
        if not self._poked:
            self._aio.call_soon(self._turn)
        self._poked.append(source)

    def close(self) -> None:
        """Take no further turn."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self) -> None:
        poked, self._poked = self._poked, []
        try:
            for source in poked:
                if source in self._sources and source.pump():
                    self.poke(source)
        finally:
            self._set_timer()

    def _set_timer(self) -> None:
        """Have a turn taken when the next source is due. A timer that comes too early does no harm."""
        dues = [due for source in self._sources if (due := source.due()) is not None]
        due = min(dues, default=math.inf)
        if due >= self._timer_at or self._closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        # Rounded up: waking before the time would spin until it has come.
        wait_s = math.ceil(max(0.0, due - time.monotonic()) * 1e3) / 1e3
        self._timer, self._timer_at = self._aio.call_later(wait_s, self._ring), due

    def _ring(self) -> None:
        self._timer, self._timer_at = None, math.inf
        for source in self._sources:
            self.poke(source)


class AsyncChannel:
    """A pool on the event loop that first uses it. Use it from that event loop alone.

    The context is its own, so that closing one client never waits for another.
    """

    def __init__(self, endpoints: Collection[str]) -> None:
        self._pid = os.getpid()
        self._endpoints = endpoints
        self._aio: asyncio.AbstractEventLoop | None = None
        self._closed = False
        with contextlib.suppress(RuntimeError):  # made before the event loop runs: then with the first use
            asyncio.get_running_loop()
            self.open()

    def open(self) -> None:
        """Reach for the nodes, if that is not done.

        Raises:
            ClosedError: the channel was closed, or is used in a process forked from the one that made it.
            RuntimeError: another event loop uses it, or none runs.
        """
        if self._pid != os.getpid():
            raise ClosedError("a client does not survive a fork: make it in the process that uses it")
        if self._closed:
            raise ClosedError("this client is closed: make a new one")
        aio = asyncio.get_running_loop()
        if self._aio is aio:
            return
        if self._aio is not None:
            raise RuntimeError("this client is another event loop's: make one in each")
        self._aio = aio
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._loop = AsyncLoop(aio)
        self._pool = Pool(self._loop, self._context, self._endpoints)

    def submit(self, kind: Kind, body: bytes, deadline_s: float, done: Done, *, newest: bool = False) -> None:
        """Ask the pool; `done` is called on the event loop, maybe at once.

        Raises:
            ClosedError, RuntimeError: as `open` does.
        """
        self.open()
        self._pool.submit(kind, body, time.monotonic() + deadline_s, done, newest=newest)
        self._loop.poke(self._pool)

    def set_members(self, endpoints: Collection[str]) -> None:
        """Make these the members of the pool."""
        self._endpoints = endpoints
        if self._aio is not None:
            self.open()
            self._pool.set_members(endpoints)
            self._loop.poke(self._pool)

    def inspect(self) -> dict[str, Any]:
        """Return the members' states and the pool's counters."""
        self.open()
        return {"members": self._pool.states(), "counters": self._pool.counters()}

    def close(self) -> None:
        """Fail what is under way with ClosedError and free all sockets. Closing twice is harmless."""
        if self._pid != os.getpid() or self._closed:
            return
        self._closed = True
        if self._aio is not None:
            self._pool.close()
            self._loop.close()
            self._context.term()
