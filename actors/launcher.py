"""The launcher: keeps the node processes of a host running, and leaves none behind.

Each node holds the read end of a pipe whose write end only the launcher has. The kernel closes that end when
the launcher ends, however it ends, and the node then stops: no signal can be missed, no flag of one operating
system is needed, and no code runs between fork and exec.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors import notify
from actors.blackbox import write_end
from actors.supervisor import BOOT_FAILED

logger = logging.getLogger(__name__)

#: Seconds of the first pause before a restart, doubled by each further death, up to the longest.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
#: A process that lived so long has proven itself: its next death is its first again.
PROVEN_S = 10.0
#: Seconds that all processes together may take to stop.
STOP_S = 15.0
#: Seconds after its last sign of life that a process is taken to hang, whatever its own watchdog says; and
#: seconds that it is then given to write down its stacks.
SILENT_S, DUMP_S = 20.0, 1.0
_POLL_S = 0.05
#: Seconds without a look at the processes after which the launcher itself is lost.
LOST_S = 10.0
_EXIT_ORPHANED = 4


@dataclass(frozen=True)
class ProcessSpec:
    """A process to keep running.

    Attributes:
        id: its name; its log is `<id>.log`.
        argv: its command line; PARENT_FD in it is replaced by the number of the pipe's read end.
    """

    id: str
    argv: tuple[str, ...]


PARENT_FD = "{parent_fd}"


@dataclass(frozen=True)
class ProcessState:
    """What a launcher knows of a process.

    Attributes:
        id: its name.
        pid: its number; None while it is not there.
        ready: whether it has said that it can do its work.
        up_s: seconds since it was started.
        restarts: how often it was started again.
        last_exit: how it ended last: the exit code, or the signal as a negative number; None if it never did.
        pause_s: seconds until it is started again.
        health: where its health and its figures are asked, as host:port; "" until it has said so.
    """

    id: str
    pid: int | None
    ready: bool
    up_s: float
    restarts: int
    last_exit: int | None
    pause_s: float
    health: str = ""


class _Kept:
    """A process and its past."""

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.restarts = 0
        self.pause_s = 0.0
        self.started_at = 0.0
        self.start_at = 0.0
        self.ready = False
        #: When it last gave a sign of life; None if it gives none.
        self.heard_at: float | None = None
        #: Since when its end by SIGABRT is waited for.
        self.aborted_at: float | None = None
        self.last_exit: int | None = None
        self.health = ""
        #: It is being replaced: its end is not a death.
        self.held = False

    def state(self, now: float) -> ProcessState:
        alive = self.process is not None and self.process.poll() is None
        pid = self.process.pid if self.process is not None and alive else None
        pause_s = max(0.0, self.start_at - now) if pid is None and not self.held else 0.0
        up_s = round(now - self.started_at, 1) if alive else 0.0
        return ProcessState(
            self.spec.id,
            pid,
            ready=self.ready and alive,
            up_s=up_s,
            restarts=self.restarts,
            last_exit=self.last_exit,
            pause_s=round(pause_s, 1),
            health=self.health if alive else "",
        )

    def hear(self, words: Sequence[str], now: float) -> None:
        """Take in what it has told. Only who once gave a sign of life must go on giving them."""
        if notify.WATCHDOG in words:
            self.heard_at = now
        self.ready = (self.ready or notify.READY in words) and notify.STOPPING not in words
        told = [word for word in words if word.startswith(notify.HEALTH)]
        if told:
            self.health = told[-1].removeprefix(notify.HEALTH)


class Launcher:
    """Starts processes and restarts those that die: at once, then with doubling, jittered pauses.

    Args:
        specs: what to run, in the order of start; stopped in the opposite order.
        logs: the directory of their logs.
    """

    def __init__(self, specs: Sequence[ProcessSpec], logs: Path) -> None:
        self._kept = [_Kept(spec) for spec in specs]
        self._logs = logs
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._read_end, self._write_end = os.pipe()  # neither is inherited unless it is passed on
        self._ear = notify.Ear()
        self._looked_at = time.monotonic()

    def start(self) -> None:
        """Start all processes, and watch them from a thread of its own."""
        self._logs.mkdir(parents=True, exist_ok=True)
        with self._lock:
            for kept in self._kept:
                self._launch(kept)
        self._thread = threading.Thread(target=self._watch, name="launcher", daemon=True)
        self._thread.start()

    def pids(self) -> Mapping[str, int]:
        """Return the processes that live, by name."""
        with self._lock:
            alive = ((kept.spec.id, kept.process) for kept in self._kept)
            return {name: process.pid for name, process in alive if process and process.poll() is None}

    def restarts(self) -> Mapping[str, int]:
        """Return how often each process was restarted."""
        with self._lock:
            return {kept.spec.id: kept.restarts for kept in self._kept}

    def looks(self) -> bool:
        """Say whether its thread still looks after the processes."""
        return time.monotonic() - self._looked_at < LOST_S

    def states(self) -> list[ProcessState]:
        """Return what is known of each process, in their order."""
        now = time.monotonic()
        with self._lock:
            return [kept.state(now) for kept in self._kept]

    def add(self, spec: ProcessSpec) -> None:
        """Start one more process, and keep it running."""
        with self._lock:
            kept = _Kept(spec)
            self._kept.append(kept)
            self._launch(kept)

    def remove(self, name: str) -> None:
        """Stop a process in order, and keep it no more."""
        kept = self._hold(name)
        self._stop_one(kept)
        with self._lock:
            self._kept.remove(kept)

    def replace(self, name: str, spec: ProcessSpec | None = None) -> None:
        """Stop a process in order and start it again, by another command line if one is given."""
        kept = self._hold(name)
        self._stop_one(kept)
        with self._lock:
            kept.spec = spec or kept.spec
            kept.held = False
            kept.pause_s = 0.0
            self._launch(kept)

    def _hold(self, name: str) -> _Kept:
        with self._lock:
            kept = next((one for one in self._kept if one.spec.id == name), None)
            if kept is None or kept.held:
                raise KeyError(name)
            kept.held = True
            return kept

    @staticmethod
    def _stop_one(kept: _Kept) -> None:
        if kept.process is not None and kept.process.poll() is None:
            kept.process.terminate()
            _end(kept.process, time.monotonic() + STOP_S, kept.spec.id)
            kept.last_exit = kept.process.returncode
        kept.process = None

    def stop(self) -> None:
        """Stop all processes in order: SIGTERM, a deadline, SIGKILL. Stopping twice is harmless."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        give_up_at = time.monotonic() + STOP_S
        for kept in reversed(list(self._kept)):
            process = kept.process  # a command that replaces it may be under way
            if process is not None and process.poll() is None:
                process.terminate()
                _end(process, give_up_at, kept.spec.id)
        self._ear.close()
        os.close(self._read_end)
        os.close(self._write_end)

    def _watch(self) -> None:
        while not self._stopping.wait(_POLL_S):
            with self._lock:
                self._looked_at = time.monotonic()
                self._listen()
                for kept in self._kept:
                    if not kept.held:
                        self._look_after(kept)

    def _listen(self) -> None:
        """Take in what the processes have told."""
        now = time.monotonic()
        for pid, words in self._ear.heard():
            for kept in self._kept:
                if kept.process is not None and kept.process.pid == pid:
                    kept.hear(words, now)

    def _look_after(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.process is not None:
            code = kept.process.poll()
            if code is None:
                self._end_if_hung(kept, now)
                return
            kept.process = None
            kept.last_exit = code
            with contextlib.suppress(OSError):  # a full disk keeps nobody from being started again
                write_end(self._logs, kept.spec.id, code)
            if now - kept.started_at > PROVEN_S:
                kept.pause_s = 0.0
            if code == BOOT_FAILED:
                # It will most likely fail again: whoever configured it has to act.
                kept.pause_s = LONGEST_PAUSE_S
            kept.start_at = now + kept.pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, no secret
            logger.warning(
                "%s ended with %d; starting it again in %.1f s", kept.spec.id, code, kept.start_at - now
            )
            kept.pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, kept.pause_s * 2))
        if now >= kept.start_at:
            kept.restarts += 1
            self._launch(kept)

    @staticmethod
    def _end_if_hung(kept: _Kept, now: float) -> None:
        """End a process that has fallen silent: SIGABRT, so that it writes down its stacks, then SIGKILL."""
        if kept.process is None or kept.heard_at is None or now < kept.heard_at + SILENT_S:
            return
        if kept.aborted_at is None:
            logger.error("%s gave no sign of life for %.0f s: ended", kept.spec.id, now - kept.heard_at)
            kept.aborted_at = now
            kept.process.send_signal(signal.SIGABRT)
            kept.process.send_signal(signal.SIGCONT)  # one that was stopped writes nothing before it goes on
        elif now > kept.aborted_at + DUMP_S:
            kept.process.kill()

    def _launch(self, kept: _Kept) -> None:
        if self._stopping.is_set():
            return
        argv = [part.replace(PARENT_FD, str(self._read_end)) for part in kept.spec.argv]
        with (self._logs / f"{kept.spec.id}.log").open("ab") as log:
            kept.process = subprocess.Popen(  # noqa: S603 - our own command line
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[self._read_end],
                env={**os.environ, notify.NOTIFY_SOCKET: self._ear.name},
                # Ctrl-C at the terminal reaches the launcher alone, which then stops the nodes in order.
                start_new_session=True,
            )
        kept.started_at = time.monotonic()
        kept.ready, kept.heard_at, kept.aborted_at, kept.health = False, None, None, ""
        logger.info("%s runs as process %d", kept.spec.id, kept.process.pid)


def _end(process: subprocess.Popen[bytes], give_up_at: float, name: str) -> None:
    # A stopped process cannot hear SIGTERM before it goes on.
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
    try:
        process.wait(max(0.1, give_up_at - time.monotonic()))
    except subprocess.TimeoutExpired:
        logger.warning("%s did not stop in time: killed", name)
        process.kill()
        process.wait()


def watch_parent(fd: int) -> None:
    """Stop this process, in order, when its launcher has ended.

    Args:
        fd: the read end of the launcher's pipe.
    """

    def wait() -> None:
        os.read(fd, 1)  # nothing is ever written: it returns when the last write end is closed
        logging.getLogger(__name__).error("the launcher has ended: this node stops too")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(STOP_S)
        sys.stderr.flush()
        os._exit(_EXIT_ORPHANED)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()
