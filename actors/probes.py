"""Probes: the health port of tees, sinks, shadow nodes, HAProxy's agents and `up`, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

from actors import notify
from actors.config import Settings
from transport.client.loop import Loop
from transport.errors import BindRefusedError
from transport.health import Health, HealthPort, Pages
from transport.mailbox import Timer

logger = logging.getLogger(__name__)

#: Seconds after which a stop is noticed.
_LOOK_S = 0.2


class Probes:
    """Answers health checks and shows pages, from a thread of its own, until it is closed.

    A port that is taken is told in the log and harms nothing else: what is asked here is not the node's work.

    Args:
        settings: the host's configuration: where it listens.
        port: where the first of its role listens; 0 picks a free one.
        index: which of them this is.
        health: says how the node is.
        facts: what a person wants to read besides.
        pages: what else can be asked for.

    Attributes:
        endpoint: where it listens, as host:port; "" where it could not.
    """

    def __init__(
        self,
        settings: Settings,
        port: int,
        index: int = 0,
        *,
        health: Callable[[], Health],
        facts: Callable[[], Mapping[str, Any]] = dict,
        pages: Pages,
    ) -> None:
        self.endpoint = ""
        self._over = threading.Event()
        self._loop = Loop()
        host, wide = settings.up.host, settings.allow_wide_bind
        try:
            self._port = HealthPort(
                self._loop,
                host,
                port + index if port else 0,
                health=health,
                facts=facts,
                pages=pages,
                wide=wide,
            )
        except BindRefusedError as error:
            logger.warning("%s", error)
            self._loop.close()
            return
        self.endpoint = self._port.endpoint
        notify.tell_health(self.endpoint)
        self._loop.add(Timer(_LOOK_S, lambda: None))
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more. Closing twice is harmless."""
        if self.endpoint and not self._over.is_set():
            self._over.set()
            self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for source in self._loop.wait():
                source.pump()
        self._port.close()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
