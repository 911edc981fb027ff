"""A TCP proxy before PostgreSQL's Unix socket, that can cut its links and fall silent."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from pathlib import Path
from typing import Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class OutageProxy:
    """Passes bytes on between TCP clients and a server's Unix socket.

    Attributes:
        deaf: while it is set, links stay open and nothing is passed on.
        counted: links that were opened so far.
    """

    def __init__(self, dsn: str) -> None:
        told = conninfo_to_dict(dsn)
        self._path = str(Path(str(told["host"])) / f".s.PGSQL.{told.get('port', 5432)}")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=self._listener.getsockname()[1])
        self.deaf = threading.Event()
        self.counted = 0
        self._lock = threading.Lock()
        self._links: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Cut all links; return how many."""
        with self._lock:
            links, self._links = self._links, []
        for link in links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        return len(links) // 2

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._path)
                with self._lock:
                    self._links += [client, server]
                    self.counted += 1
                threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as selector, contextlib.suppress(OSError):
            selector.register(client, selectors.EVENT_READ, (client, server))
            selector.register(server, selectors.EVENT_READ, (server, client))
            while True:
                for key, _ in selector.select(0.05):
                    one, other = key.data
                    if self.deaf.is_set():
                        threading.Event().wait(0.02)
                        continue
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    other.sendall(data)
