"""How a running host is told what to do: a Unix socket beside its logs, which only its user may open.

One line of JSON asks, lines of JSON answer: `{"step": ...}` while it goes on, then `{"done": ...}` or
`{"error": ...}`. One command at a time: two people who replace nodes at once would take both of a pair.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from actors.errors import ControlError

logger = logging.getLogger(__name__)

#: The socket's name in the directory of the logs.
SOCKET: Final = "up.sock"
_LONGEST: Final = 65536
#: Seconds that a question may take to arrive.
_QUESTION_S: Final = 2.0

#: Does what is asked, and tells its steps; returns what is to be told at the end.
Work = Callable[[Mapping[str, Any], Callable[[str], None]], Any]


class ControlServer:
    """Takes commands for a host, in a thread of its own.

    Args:
        directory: where its socket is.
        commands: name to what does it. Those named in `looks` change nothing and wait for nobody.
        looks: names of commands that only look.
    """

    def __init__(self, directory: Path, commands: Mapping[str, Work], looks: frozenset[str]) -> None:
        self._path = directory / SOCKET
        self._commands = commands
        self._looks = looks
        self._busy = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._listens = False

    def start(self) -> None:
        """Listen; a socket that a dead host has left is taken over, one of a living host is not."""
        if self._taken():
            logger.warning("another `run.py up` with the same `logs` takes the commands: %s", self._path)
            return
        try:
            self._path.unlink(missing_ok=True)
            self._socket.bind(str(self._path))
            self._path.chmod(0o600)
            self._socket.listen()
        except OSError as error:
            # A path over 107 bytes, a full disk: nodes are kept running all the same.
            logger.warning("this host takes no commands at %s: %s", self._path, error)
            return
        self._listens = True
        threading.Thread(target=self._run, name="control", daemon=True).start()

    def _taken(self) -> bool:
        with socket.socket(socket.AF_UNIX) as other:
            try:
                other.connect(str(self._path))
            except OSError:
                return False
            return True

    def stop(self) -> None:
        """Take no more commands."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        if self._listens:
            self._listens = False
            self._path.unlink(missing_ok=True)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_QUESTION_S)
            question = connection.makefile("r", encoding="utf-8").readline(_LONGEST)
            connection.settimeout(None)

            def say(word: str, what: object) -> None:
                # Whoever asked may have gone; what was begun is brought to its end all the same.
                with contextlib.suppress(OSError):
                    connection.sendall(json.dumps({word: what}, default=str).encode() + b"\n")

            try:
                say("done", self._do(json.loads(question), lambda step: say("step", step)))
            except (ControlError, ValueError, KeyError, TypeError) as error:
                say("error", str(error))
            except Exception as error:
                logger.exception("a command failed")
                say("error", f"{type(error).__name__}: {error}")

    def _do(self, asked: Mapping[str, Any], step: Callable[[str], None]) -> Any:
        name = asked["command"]
        if name not in self._commands:
            raise ControlError(f"this host knows no command {name!r}: is it of an older version?")
        if name in self._looks:
            return self._commands[name](asked, step)
        if not self._busy.acquire(blocking=False):
            raise ControlError("another command is being carried out: wait until it is done")
        try:
            return self._commands[name](asked, step)
        finally:
            self._busy.release()


def ask(directory: Path, command: str, **more: Any) -> Iterator[tuple[str, Any]]:
    """Ask the host whose logs are in a directory; yield each step, then what is done.

    Raises:
        ControlError: no host runs there, or it could not do it.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        try:
            asking.connect(str(directory / SOCKET))
        except OSError as error:
            raise ControlError(
                f"no host can be asked at {directory / SOCKET} ({error}): is `run.py up` running, as you?"
            ) from error
        asking.sendall(json.dumps({"command": command, **more}).encode() + b"\n")
        for line in asking.makefile("r", encoding="utf-8"):
            ((word, what),) = json.loads(line).items()
            if word == "error":
                raise ControlError(str(what))
            yield word, what
            if word == "done":
                return
    raise ControlError("the host ended in the midst of it: see its nodes with `run.py status`")
