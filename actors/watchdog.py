"""A watchdog over one link: it is cut when somebody waits on it for too long."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

#: Seconds between two looks.
_LOOK_S = 0.5


class Watchdog:
    """Cuts a link on which its owner has waited for too long, so that the wait ends with an error.

    A server that hangs while its host is well keeps a link open for ever, and says nothing: neither
    keepalives nor limits that the server itself should keep end such a wait.

    Args:
        descriptor: returns the descriptor of the link; None where there is none.
        limit_s: seconds that a wait may take.
    """

    def __init__(self, descriptor: Callable[[], int | None], limit_s: float) -> None:
        self._descriptor = descriptor
        self._limit_s = limit_s
        self._busy_since: float | None = None
        self._over = threading.Event()
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    @contextlib.contextmanager
    def over(self) -> Iterator[None]:
        """Watch over what is done in this block."""
        self._busy_since = time.monotonic()
        try:
            yield
        finally:
            self._busy_since = None

    def close(self) -> None:
        """Watch no more."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            since = self._busy_since
            if since is not None and time.monotonic() - since > self._limit_s:
                self._cut()

    def _cut(self) -> None:
        descriptor = self._descriptor()
        if descriptor is None:
            return
        logger.warning("the link has been silent for over %.0f s: it is cut", self._limit_s)
        # The descriptor stays its owner's: only what it stands for is ended.
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as link:
            link.shutdown(socket.SHUT_RDWR)
