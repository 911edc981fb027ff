"""Hosts on one machine: network namespaces on a switch of our own, whose links are cut, slowed, made lossy.

Each host has a kernel's own network stack with one TAP device; the switch carries Ethernet frames between
them in user space. (`tc netem` would need a kernel that has it, and many in containers have not.)
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

_NEWNET = 0x40000000
_TUNSETIFF, _TAP_WITHOUT_HEADER = 0x400454CA, 0x0002 | 0x1000
_SETADDRESS, _SETMASK, _GETFLAGS, _SETFLAGS, _UP = 0x8916, 0x891C, 0x8913, 0x8914, 0x1
_LONGEST_FRAME = 65_536
_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespacesError(Exception):
    """Raised where the system allows no network namespaces, or no TAP devices."""


@dataclass
class Link:
    """What happens to frames on their way to and from one host.

    Attributes:
        cut: all are lost, and nobody is told.
        delay_s: seconds that each takes, in either direction.
        loss: the share that is lost.
    """

    cut: bool = False
    delay_s: float = 0.0
    loss: float = 0.0


class HostSide:
    """A network namespace with an address.

    Args:
        address: its IPv4 address, in a /24.

    Raises:
        NoNamespacesError: the system does not allow it.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.link = Link()
        failures: list[Exception] = []
        self._namespace = self.tap = -1

        def make() -> None:  # on a thread of its own, since a thread moves there for good
            try:
                _call(_libc.unshare, _NEWNET)
                self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
                self.tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                fcntl.ioctl(self.tap, _TUNSETIFF, struct.pack("16sH22x", b"tap0", _TAP_WITHOUT_HEADER))
                _configure("lo", "127.0.0.1", "255.0.0.0")
                _configure("tap0", address, "255.255.255.0")
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failures:
            self.close()
            raise NoNamespacesError(f"no network namespace with a TAP device can be made: {failures[0]}")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be on this host: sockets, threads and processes that are made meanwhile are there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _call(_libc.setns, self._namespace, _NEWNET)
        try:
            yield
        finally:
            _call(_libc.setns, before, _NEWNET)
            os.close(before)

    def close(self) -> None:
        """Give it up; it is gone with the last process in it."""
        for descriptor in (self.tap, self._namespace):
            if descriptor >= 0:
                os.close(descriptor)
        self.tap = self._namespace = -1


class Switch:
    """Carries frames between hosts, from a thread of its own."""

    def __init__(self, hosts: list[HostSide]) -> None:
        self._hosts = {host.tap: host for host in hosts}
        self._known: dict[bytes, int] = {}
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._random = random.Random(7)
        self._count = 0
        self._over = False
        self._thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over = True
        self._thread.join()

    def _run(self) -> None:
        taps = list(self._hosts)
        while not self._over:
            timeout = 0.1
            if self._waiting:
                timeout = min(timeout, max(0.0, self._waiting[0][0] - time.monotonic()))
            for tap in select.select(taps, [], [], timeout)[0]:
                self._take(tap)
            self._deliver()

    def _take(self, tap: int) -> None:
        for _ in range(64):
            try:
                frame = os.read(tap, _LONGEST_FRAME)
            except BlockingIOError:
                return
            self._known[frame[6:12]] = tap
            to = self._known.get(frame[:6])
            for other in self._hosts if to is None else [to]:
                if other != tap:
                    self._carry(tap, other, frame)

    def _carry(self, tap: int, other: int, frame: bytes) -> None:
        links = self._hosts[tap].link, self._hosts[other].link
        if any(link.cut or self._random.random() < link.loss for link in links):
            return
        self._count += 1
        due = time.monotonic() + sum(link.delay_s for link in links)
        heapq.heappush(self._waiting, (due, self._count, other, frame))

    def _deliver(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, tap, frame = heapq.heappop(self._waiting)
            with contextlib.suppress(OSError):  # its queue is full: a switch drops too
                os.write(tap, frame)


def _call(function: object, *arguments: int) -> None:
    if function(*arguments):  # type: ignore[operator]  # a function of the C library
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _configure(device: str, address: str, mask: str) -> None:
    name = device.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for request, value in ((_SETADDRESS, address), (_SETMASK, mask)):
            packed = struct.pack("16sH2x4s8x", name, socket.AF_INET, socket.inet_aton(value))
            fcntl.ioctl(any_socket, request, packed)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, _GETFLAGS, struct.pack("16sH14x", name, 0)))
        fcntl.ioctl(any_socket, _SETFLAGS, struct.pack("16sH14x", name, flags[1] | _UP))
