"""One worker process of a code package, as its node holds it: a socket, a process, and what is under way."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

from actors.code.frames import FrameReader, pack_frame

_CHILD: Final = Path(__file__).with_name("child.py")
_READ: Final = 1 << 18
#: What of the node's environment a worker sees, beside what is fixed.
_KEPT: Final = ("LD_LIBRARY_PATH",)
_FIXED: Final = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    # Sets of text have one order, in training and in serving.
    "PYTHONHASHSEED": "0",
    # Each library that computes in threads of its own would start as many as there are cores.
    **dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
    ),
}
#: Seconds that a killed process may take to be gone.
_REAP_S: Final = 5.0


@dataclass(slots=True, eq=False)
class Job:
    """A request for a worker.

    Attributes:
        payload: what the stage is called with, in msgpack.
        deadline: when its answer is of no more use (time.monotonic seconds).
        done: called once, with the result or a ScorewireError.
        about: its transaction and release, for the log.
        finished: whether it waits for no worker: one has it, or it is over.
    """

    payload: bytes
    deadline: float
    done: Callable[[Any], None]
    about: Mapping[str, object]
    finished: bool = False


class Worker:
    """A worker process. Started by any thread, and then used by one at a time.

    Args:
        orders: what it loads, and its limits; see actors.code.child.

    Attributes:
        held: the jobs that were sent and not answered, in the order in which they are worked on.
        began: since when the first of them is worked on (time.monotonic seconds).
        answered: how many it has answered.
        ready: whether it has loaded its package.
        closed_at: since when its end of the socket is closed; None while it is open.
        ending: why it was killed; "" if nobody did.
        started: when it was started.

    Raises:
        OSError: no process can be started.
    """

    def __init__(self, orders: dict[str, Any]) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own file
                [sys.executable, "-s", "-P", "-B", str(_CHILD), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd="/",
                env={**_FIXED, **{name: os.environ[name] for name in _KEPT if name in os.environ}},
                # Its own group, so that what it may have forked ends with it.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = ours
        # A package that forks leaves the socket open in another process: its own end is watched as well.
        self._pidfd = os.pidfd_open(self._process.pid)
        self._end = weakref.finalize(self, _end, self._process, ours, self._pidfd)
        self._in = FrameReader()
        self._out = bytearray()
        self.held: deque[tuple[int, Job]] = deque()
        self.began = 0.0
        self.answered = 0
        self.ready = False
        self.closed_at: float | None = None
        self.ending = ""
        self.started = time.monotonic()
        self._send(orders)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    @property
    def pollables(self) -> tuple[int, int]:
        """The descriptors that tell of an answer and of its death."""
        return self._socket.fileno(), self._pidfd

    @property
    def backlog(self) -> int:
        """Bytes that its socket has not taken yet."""
        return len(self._out)

    def send(self, number: int, job: Job) -> None:
        """Hand it a job; never blocks."""
        if not self.held:
            self.began = time.monotonic()
        self.held.append((number, job))
        body = b"\x92" + msgpack.packb(number) + job.payload
        self._out += pack_frame(body)
        self.flush()

    def flush(self) -> None:
        """Write what its socket takes now."""
        while self._out:
            try:
                sent = self._socket.send(self._out)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._out.clear()  # it is dead, which its descriptors tell
                return
            del self._out[:sent]

    def frames(self) -> Iterator[list[Any]]:
        """Yield the frames that have arrived, without blocking.

        Raises:
            GarbageError: what follows them is none.
        """
        while True:
            try:
                chunk = self._socket.recv(_READ)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                chunk = b""
            if not chunk:
                self.closed_at = self.closed_at or time.monotonic()
                break
            self._in.feed(chunk)
            if len(chunk) < _READ:
                break
        return self._in.frames()

    def has_died(self) -> bool:
        """Say whether its process has ended."""
        if not self._end.alive:
            return True
        return os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def kill(self, why: str) -> None:
        """Kill it and all that it forked, without waiting for its end."""
        self.ending = self.ending or why
        _kill(self._process.pid)

    def end(self) -> str:
        """Free all that it held, killing it if it lives; say how it ended. Again is harmless."""
        self._end()
        code = self._process.returncode
        if self.ending or code is None:
            return self.ending or "it was killed"
        if code < 0:
            return f"its process died of {_NAMES.get(-code, f'signal {-code}')}"
        return f"its process ended with {code}"

    def _send(self, frame: Any) -> None:
        self._out += pack_frame(msgpack.packb(frame))
        self.flush()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes], sock: socket.socket, pidfd: int) -> None:
    sock.close()
    # Its group before it is reaped: until then its number is nobody else's.
    _kill(process.pid)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_REAP_S)
    os.close(pidfd)


_NAMES: Final = {int(one): one.name for one in signal.Signals}
