"""Reporting: a node of the stream says in the database what it has counted, and never waits for it."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Final

import psycopg

from governance.database import Connection, connect
from governance.streams import leave, tell

logger = logging.getLogger(__name__)

#: Seconds between two words.
PERIOD_S: Final = 2.0
_CONNECT_S, _STATEMENT_S = 3, 5


class Reporter:
    """Tells the database of a node's counters, from a thread of its own, for as long as the node runs.

    Args:
        dsn: the database.
        node_id: who counts.
        environment: where.
        role: `tee` or `sink`.
        counters: returns the counters; called from the reporter's thread.
    """

    def __init__(
        self, dsn: str, node_id: str, environment: str, role: str, counters: Callable[[], Mapping[str, float]]
    ) -> None:
        self._dsn = dsn
        self._node_id = node_id
        self._facts = {
            "environment": environment,
            "role": role,
            "host": socket.gethostname(),
        }
        self._counters = counters
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take the node out and stop; a database that is away is not waited for."""
        self._stopping.set()
        self._thread.join(_CONNECT_S + _STATEMENT_S)

    def _run(self) -> None:
        told = ""
        while True:
            problem = self._tell()
            if problem != told:
                told = problem
                if problem:
                    logger.warning("the database does not take the counters: %s", problem)
            if self._stopping.wait(PERIOD_S):
                break
        if self._connection is not None:
            try:
                leave(self._connection, self._node_id)
                self._connection.close()
            except psycopg.Error as error:
                logger.warning("could not leave: %s", error)

    def _tell(self) -> str:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._dsn, timeout_s=_CONNECT_S, statement_timeout_s=_STATEMENT_S)
            tell(
                self._connection,
                self._node_id,
                pid=os.getpid(),
                counters=dict(self._counters()),
                **self._facts,
            )
        except psycopg.Error as error:
            return str(error).strip()
        return ""
