"""HAProxy's process: started, adopted by whoever comes after, reloaded, stopped.

It outlives the agent that steers it: callers must not notice when that dies. The next agent finds it by its
pid file and its socket, and goes on with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from haproxy.binary import check
from haproxy.errors import HaproxyError, ReloadError, SocketError
from haproxy.plan import Options
from haproxy.runtime import Runtime

logger = logging.getLogger(__name__)

#: Seconds that HAProxy may take to start, to reload, to stop.
START_S, RELOAD_S, STOP_S = 10.0, 10.0, 5.0
_POLL_S = 0.02
#: A Unix socket's path may not be longer.
_LONGEST_SOCKET_PATH = 90


class Process:
    """One HAProxy, master and workers.

    Args:
        binary: its program.
        options: how it is set up.
        log: where its words go.
    """

    def __init__(self, binary: Path, options: Options, log: Path) -> None:
        self._binary = binary
        self._options = options
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None
        self.runtime = Runtime(options.socket)

    def write(self, configuration: str) -> bool:
        """Replace the configuration's file, if it says anything new and HAProxy takes it.

        Raises:
            RefusedError: HAProxy refuses it; the old file stays.
        """
        file = self._options.configuration
        with contextlib.suppress(OSError):
            if file.read_text(encoding="utf-8") == configuration:
                return False
        if len(str(self._options.socket)) > _LONGEST_SOCKET_PATH:
            raise HaproxyError(f"{self._options.socket} is too long for a socket: shorten `directory`")
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = file.with_suffix(".new")
        new.write_text(configuration, encoding="utf-8")
        check(self._binary, new)
        new.replace(file)
        return True

    def pid(self) -> int | None:
        """Return the master's process if it lives."""
        if self._child is not None and self._child.poll() is not None:
            logger.warning("HAProxy ended with %d", self._child.returncode)
            self._child = None
        try:
            pid = int(self._options.pid_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return self._child.pid if self._child else None
        return pid if _is_ours(pid, self._options.configuration) else None

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            HaproxyError: it does not.
        """
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._options.pid_file.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - a program that the configuration names
                [
                    self._binary,
                    "-W",
                    *("-f", self._options.configuration, "-p", self._options.pid_file),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = self._child
        if not _wait(self._answers, START_S, lambda: child.poll() is not None):
            raise HaproxyError(f"HAProxy does not start: {self._last_words()}")
        logger.info("HAProxy runs as process %d", child.pid)

    def reload(self, structure: str) -> None:
        """Have new workers take over the listening sockets; old ones keep the connections that they have.

        Raises:
            ReloadError: the new structure does not show in time.
        """
        pid = self.pid()
        if pid is None:
            raise ReloadError("HAProxy does not run")
        os.kill(pid, signal.SIGUSR2)
        if not _wait(lambda: self.structure() == structure, RELOAD_S):
            raise ReloadError(f"HAProxy did not take up its new configuration: see {self._log}")
        logger.info("HAProxy took up %s", structure)

    def structure(self) -> str:
        """Return the structure that runs; "" if none answers."""
        try:
            return self.runtime.info().get("description", "")
        except SocketError:
            return ""

    def stop(self) -> None:
        """Stop it. Stopping twice is harmless."""
        pid = self.pid()
        if pid is None:
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, how)
            if _wait(lambda: self.pid() is None, STOP_S):
                return

    def _last_words(self) -> str:
        words = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        alerts = [line for line in words if "ALERT" in line]
        return (alerts or words or ["it said nothing"])[-1].strip()

    def _answers(self) -> bool:
        return bool(self.structure())


def _is_ours(pid: int, configuration: Path) -> bool:
    """Say whether a process lives and was started with this configuration: numbers are used again."""
    command = Path(f"/proc/{pid}/cmdline")
    try:
        os.kill(pid, 0)
        if command.parent.parent.joinpath("self").exists():  # a system that tells
            return os.fsencode(configuration) in command.read_bytes().split(b"\0")
    except (ProcessLookupError, PermissionError, FileNotFoundError):
        return False
    return True


def _wait(condition: Callable[[], bool], seconds: float, over: Callable[[], bool] = lambda: False) -> bool:
    give_up_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up_at or over():
            return False
        time.sleep(_POLL_S)
    return True
