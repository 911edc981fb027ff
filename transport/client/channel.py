"""A pool with a thread of its own, so that any thread or event loop can call it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import Any

import zmq

from .errors import ClosedError
from .loop import Loop
from .pool import Done, Pool
from .wire import Kind

_JOIN_S = 5.0
_INSPECT_S = 5.0


class Channel:
    """Runs a pool in a background thread. All methods are safe from any thread.

    The context is its own, so that closing one client never waits for another.
    """

    def __init__(self, endpoints: Collection[str]) -> None:
        self._pid = os.getpid()
        self._jobs: deque[Callable[[Pool], None]] = deque()
        self._closing = False
        # Held while a job is handed over, so that none comes after the last look for jobs.
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._loop = Loop()
        self._pool = Pool(self._loop, self._context, endpoints)
        self._thread = threading.Thread(target=self._run, name="scorewire-client", daemon=True)
        self._thread.start()

    def submit(self, kind: Kind, body: bytes, deadline_s: float, done: Done, *, newest: bool = False) -> None:
        """Ask the pool; `done` is called in the channel's thread and must not block.

        Raises:
            ClosedError: the channel was closed, or is used in a process forked from the one that made it.
        """
        deadline = time.monotonic() + deadline_s
        self._post(lambda pool: pool.submit(kind, body, deadline, done, newest=newest))

    def set_members(self, endpoints: Collection[str]) -> None:
        """Make these the members of the pool."""
        self._post(lambda pool: pool.set_members(endpoints))

    def inspect(self) -> dict[str, Any]:
        """Return the members' states and the pool's counters."""
        found: Future[dict[str, Any]] = Future()
        self._post(lambda pool: found.set_result({"members": pool.states(), "counters": pool.counters()}))
        return found.result(_INSPECT_S)

    def close(self) -> None:
        """Fail what is under way with ClosedError and end the thread. Closing twice is harmless."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._closing = True
        self._loop.wake()
        self._thread.join(_JOIN_S)

    def _post(self, job: Callable[[Pool], None]) -> None:
        if self._pid != os.getpid():
            raise ClosedError("a client does not survive a fork: make it in the process that uses it")
        with self._lock:
            if self._closing:
                raise ClosedError("this client is closed: make a new one")
            self._jobs.append(job)
        self._loop.wake()

    def _run(self) -> None:
        try:
            while not self._closing:
                self._loop.sleep_ahead()
                for source in self._loop.wait(block=not self._jobs and not self._closing):
                    source.pump()
                self._do_jobs()
        finally:
            # Whatever ended it, nobody waits in vain.
            with self._lock:
                self._closing = True
            self._do_jobs()
            self._pool.close()
            self._loop.close()
            self._context.term()

    def _do_jobs(self) -> None:
        while self._jobs:
            self._jobs.popleft()(self._pool)
