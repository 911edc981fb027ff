"""The watcher of an environment as a source of an actor's loop."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from actors.watchdog import Watchdog
from governance.errors import GovernanceError
from governance.watcher import View, Watcher
from transport.client.loop import Loop

logger = logging.getLogger(__name__)

#: Seconds that the database may take for a word; after that the link is cut, and another one is tried.
HUNG_S = 12.0


class WatchSource:
    """The watcher as a source of the actor's loop.

    Its descriptor is not watched while the connection is in use: libpq may close it there, and a loop
    must not wait on a descriptor that is closed or, worse, another's by now.

    Args:
        loop: the actor's.
        watcher: of the environment.
        on_view: takes what was read.
    """

    def __init__(self, loop: Loop, watcher: Watcher, on_view: Callable[[View], None]) -> None:
        self._loop = loop
        self._watcher = watcher
        self._on_view = on_view
        self._fd: int | None = None
        self._told = ""
        # A hint that came while a statement ran was read with its result: the descriptor tells of it no more.
        self._look_for_hints = False
        self._watchdog = Watchdog(watcher.fileno, HUNG_S)
        loop.add(self)

    def due(self) -> float:
        """Return when pump must be called at the latest."""
        return 0.0 if self._look_for_hints else self._watcher.due()

    def pump(self) -> None:
        """Let the watcher look, and pass on what it has read."""
        self._look_for_hints = False
        with self._unwatched():
            view = self._watcher.pump()
        self._tell_of_loss()
        if view is not None:
            self._on_view(view)

    def do(self, work: Callable[[psycopg.Connection[Any]], Any]) -> bool:
        """Do some work in the database; False if it is away, which the watcher then finds and mends."""
        self._look_for_hints = True
        with self._unwatched():
            connection = self._watcher.connection
            if connection is None:
                return False
            try:
                work(connection)
            except (psycopg.Error, GovernanceError) as error:
                # Whatever it is, a schema that is gone included: this node serves on with what it holds.
                logger.warning("the database did not take a word of this node: %s", error)
                return False
        return True

    def close(self) -> None:
        """Let the connection go."""
        self._watchdog.close()
        with self._unwatched():
            self._watcher.close()

    @contextlib.contextmanager
    def _unwatched(self) -> Iterator[None]:
        if self._fd is not None:
            self._loop.unwatch(self._fd)
            self._fd = None
        try:
            with self._watchdog.over():
                yield
        finally:
            self._fd = self._watcher.fileno()
            if self._fd is not None:
                self._loop.watch(self._fd, self)

    def _tell_of_loss(self) -> None:
        reason = "" if self._watcher.connected else self._watcher.reason
        if reason != self._told:
            self._told = reason
            if reason:
                logger.warning("waiting for the database, serving what is held: %s", reason)
            else:
                logger.info("the database is back")
