"""What wakes a thread that waits on descriptors: an eventfd, or a pair of sockets where there is none."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import Protocol


class Alarm(Protocol):
    """Wakes whoever waits on its descriptor. Ringing is safe from any thread.

    Attributes:
        descriptor: is readable from a ring until it is settled.
    """

    descriptor: int

    def ring(self) -> None:
        """Wake whoever waits; does nothing once it is closed."""

    def settle(self) -> None:
        """Take note of all rings so far."""

    def close(self) -> None:
        """Free it."""


class _EventAlarm:
    """An eventfd (Linux): a third of what a byte through a socket takes."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open = True
        # A number that was given back may be another file's by the time that somebody writes to it.
        self._lock = threading.Lock()

    def ring(self) -> None:
        with self._lock:
            if self._open:
                os.eventfd_write(self.descriptor, 1)

    def settle(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)

    def close(self) -> None:
        with self._lock:
            if self._open:
                self._open = False
                os.close(self.descriptor)


class _SocketAlarm:
    def __init__(self) -> None:
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self._far.setblocking(False)
        self.descriptor = self._near.fileno()

    def ring(self) -> None:
        # A full buffer already wakes; a closed socket means that nobody waits any more.
        with contextlib.suppress(OSError):
            self._far.send(b"\0")

    def settle(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._near.recv(4096)

    def close(self) -> None:
        self._near.close()
        self._far.close()


def make_alarm() -> Alarm:
    """Return an alarm."""
    return _EventAlarm() if hasattr(os, "eventfd") else _SocketAlarm()
