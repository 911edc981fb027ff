"""One thread waiting on many things at once: ZeroMQ sockets, file descriptors, timers and a wake-up."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable
from typing import Protocol

import zmq

from .alarm import make_alarm

#: What can be waited on: a ZeroMQ socket or a file descriptor.
Pollable = zmq.Socket[bytes] | int


class Source(Protocol):
    """Something that a loop serves: it has pollables, a next due time, or both."""

    def due(self) -> float | None:
        """Return when pump must be called at the latest (time.monotonic seconds), or None."""

    def pump(self) -> bool | None:
        """Take what has arrived and do what is due; never block. True says that more may have arrived."""


class Reader:
    """A source that is never due, and does `action` where something has arrived."""

    def __init__(self, action: Callable[[], bool | None]) -> None:
        self._action = action

    def due(self) -> None:
        """Say that it waits for no time."""

    def pump(self) -> bool | None:
        """Do the action, which says whether more may have arrived."""
        return self._action()


class Sources:
    """The sources of one thread, and what they wait for; how that is watched is a subclass's."""

    def __init__(self) -> None:
        self._owners: dict[Pollable, Source] = {}
        self._sources: list[Source] = []

    def add(self, source: Source, *pollables: Pollable) -> None:
        """Serve a source, and watch its pollables."""
        self._sources.append(source)
        for pollable in pollables:
            self.watch(pollable, source)

    def remove(self, source: Source) -> None:
        """Serve a source no more. Call it before its sockets are closed."""
        if source in self._sources:
            self._sources.remove(source)
        for pollable in [p for p, owner in self._owners.items() if owner is source]:
            self.unwatch(pollable)

    def watch(self, pollable: Pollable, source: Source) -> None:
        """Watch one more pollable of a source."""
        self._owners[pollable] = source

    def unwatch(self, pollable: Pollable) -> None:
        """Watch a pollable no more. Call it before it is closed."""
        self._owners.pop(pollable, None)


class Loop(Sources):
    """Waits for the sources of one thread. Only `wake` may be called from other threads.

    A ZeroMQ socket's descriptor tells of changes and not of states, and whatever is done with the socket may
    swallow such a change. So each socket is asked before the wait, as zmq_poll does; but not after it, where
    the source of one that is told of looks by itself: a third of what zmq_poll takes. What is only ever read,
    until nothing is left, needs no asking, and is watched by its descriptor.
    """

    def __init__(self) -> None:
        super().__init__()
        # Windows has no poll; ZeroMQ's own knows the system's descriptors as well.
        self._poller = select.poll() if hasattr(select, "poll") else zmq.Poller()
        self._sockets: dict[zmq.Socket[bytes], int] = {}
        self._watched: dict[int, Pollable] = {}
        self._sleeping = False
        self._alarm = make_alarm()
        self._poller.register(self._alarm.descriptor, zmq.POLLIN)

    def watch(self, pollable: Pollable, source: Source) -> None:
        """Watch one more pollable of a source."""
        super().watch(pollable, source)
        descriptor = descriptor_of(pollable)
        self._watched[descriptor] = pollable
        if not isinstance(pollable, int):
            self._sockets[pollable] = descriptor
        self._poller.register(descriptor, zmq.POLLIN)

    def unwatch(self, pollable: Pollable) -> None:
        """Watch a pollable no more. Call it before it is closed."""
        if pollable in self._owners:
            descriptor = pollable if isinstance(pollable, int) else self._sockets.pop(pollable)
            del self._watched[descriptor]
            self._poller.unregister(descriptor)
        super().unwatch(pollable)

    def sleep_ahead(self) -> None:
        """Say that this thread is about to wait: from here on, `wake` interrupts the wait.

        Whoever shares a queue with other threads calls it, looks into the queue once more, and only then
        waits; so no wake-up is lost, and a busy thread is not sent one for every message.
        """
        self._sleeping = True

    def wake(self) -> None:
        """Interrupt the wait. Safe from any thread; does nothing while the thread is not waiting."""
        if self._sleeping:
            self._sleeping = False
            self._alarm.ring()

    def wait(self, *, block: bool = True) -> list[Source]:
        """Wait until something arrives or is due; return the sources to pump, each once."""
        # Asked once: nothing but this thread changes when a source is due.
        dues = [(due, source) for source in self._sources if (due := source.due()) is not None]
        ready: dict[int, Source] = {}
        for asked in self._sockets:
            if readable(asked):
                owner = self._owners[asked]
                ready[id(owner)] = owner
        told = self._poller.poll(_timeout_ms(dues) if block and not ready else 0)
        self._sleeping = False
        for descriptor, _ in told:
            pollable = self._watched.get(descriptor)
            if pollable is None:
                self._alarm.settle()
            else:  # its source looks by itself whether there is something to read
                owner = self._owners[pollable]
                ready[id(owner)] = owner
        now = time.monotonic()
        for due, source in dues:
            if due <= now:
                ready[id(source)] = source
        return list(ready.values())

    def close(self) -> None:
        """Free what wakes; the sources close their own."""
        self._alarm.close()


def descriptor_of(pollable: Pollable) -> int:
    """Return the descriptor that tells of changes."""
    return pollable if isinstance(pollable, int) else pollable.fileno()


def readable(asked: zmq.Socket[bytes]) -> bool:
    """Say whether something has arrived; it costs a third of an exception that says no."""
    return bool(int(asked.get(zmq.EVENTS)) & _POLLIN)


#: As a plain number: an enumeration's `&` takes longer than asking the socket.
_POLLIN = int(zmq.POLLIN)


def _timeout_ms(dues: list[tuple[float, Source]]) -> int | None:
    if not dues:
        return None
    # Rounded up: waking before the time would spin until it has come.
    return max(0, math.ceil((min(due for due, _ in dues) - time.monotonic()) * 1000))
