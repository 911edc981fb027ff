"""A supervised actor: one whose start and end are seen, whatever the reason.

Pykka reports neither a failing on_start nor the end of an actor's thread, and ends all actors of the process
when one raises a BaseException. A Child closes these gaps around Pykka's own loop.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pykka

logger = logging.getLogger(__name__)


class Ending(enum.Enum):
    """Why an actor ended."""

    NORMAL = "normal"  # it stopped of its own accord, or was asked to
    CRASH = "crash"  # it raised
    START_FAILED = "start failed"  # on_start raised: it never lived


@dataclass(frozen=True)
class Exit:
    """How an actor ended, and what it raised."""

    ending: Ending
    error: BaseException | None = None

    def __str__(self) -> str:
        """Say it in a line of a log."""
        return self.ending.value if self.error is None else f"{self.ending.value}: {self.error!r}"


class Life:
    """What is known of one actor's life. It outlives the actor; all of it is safe from any thread.

    Attributes:
        started: set once on_start is done, or the actor has ended.
        ended: set once the actor's thread does nothing more.
        exit: how it ended; None while it lives.
        busy_since: since when it is at one message (time.monotonic seconds); None between two.
        watched: whether it must not be at one message for long.
    """

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended = threading.Event()
        self.exit: Exit | None = None
        self.busy_since: float | None = None
        self.watched = False
        self._watchers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` once the actor has ended; at once if it has."""
        with self._lock:
            if not self.ended.is_set():
                self._watchers.append(watcher)
                return
        watcher()

    def note(self, ending: Ending, error: BaseException | None = None) -> None:
        """Keep the first reason: what fails while an actor goes down is not why it does."""
        if self.exit is None:
            self.exit = Exit(ending, error)

    def end(self) -> None:
        """Close the life and tell whoever watches."""
        with self._lock:
            self.note(Ending.NORMAL)
            self.ended.set()
            watchers, self._watchers = self._watchers, []
        self.started.set()
        for watcher in watchers:
            watcher()


class Child(pykka.ThreadingActor):
    """The base of every supervised actor.

    Its thread is a daemon, so that an actor that hangs cannot keep a process alive whose supervisor has
    given it up; orderly ends go through the supervisor, which waits.
    """

    use_daemon_thread = True
    #: Whether the watchdog ends the process when it is at one message for too long; those that wait for a
    #: database or read large files are not watched.
    watched = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.life = Life()
        self.life.watched = self.watched
        # The reference outlives the actor, and so must what is known of its end.
        setattr(self._actor_ref, _LIFE, self.life)

    def _actor_loop(self) -> None:
        try:
            super()._actor_loop()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the supervisor has to learn of it
            self.life.note(Ending.CRASH, error)
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
        finally:
            self.life.end()

    def _actor_loop_setup(self) -> None:
        try:
            self.on_start()
        except BaseException as error:
            self.life.note(Ending.START_FAILED, error)
            logger.exception("%s could not start", self)
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            return
        self.life.started.set()

    def _handle_receive(self, message: Any) -> Any:
        self.life.busy_since = time.monotonic()
        try:
            return super()._handle_receive(message)
        except Exception:
            raise
        except BaseException as error:
            # Pykka would stop every actor of the process; this is the crash of one.
            raise RuntimeError(f"{type(error).__name__} in {self}") from error
        finally:
            self.life.busy_since = None

    def _handle_failure(self, exception_type: Any, exception_value: Any, traceback: Any) -> None:
        self.life.note(Ending.CRASH, exception_value)
        super()._handle_failure(exception_type, exception_value, traceback)


def life_of(ref: pykka.ActorRef[Any]) -> Life:
    """Return what is known of the life of the actor behind a reference.

    Raises:
        TypeError: the actor is no Child; only those can be supervised.
    """
    life = getattr(ref, _LIFE, None)
    if not isinstance(life, Life):
        raise TypeError(f"{ref} is no Child: only those can be supervised")
    return life


_LIFE = "scorewire_life"
