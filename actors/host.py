"""A host: all the nodes that its configuration names, kept running."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from actors.config import Settings
from actors.launcher import PARENT_FD, Launcher, ProcessSpec

_RUN = Path(__file__).parents[1] / "run.py"


class Host:
    """Runs the nodes of a host as processes.

    Args:
        settings: how many there are of each role.
        config: the configuration file that they read; None where variables say it all.
    """

    def __init__(self, settings: Settings, config: Path | None) -> None:
        self._launcher = Launcher(_specs(settings, config), settings.logs.expanduser())

    def start(self) -> None:
        """Start all nodes."""
        self._launcher.start()

    def stop(self) -> None:
        """Stop all nodes in order. Stopping twice is harmless."""
        self._launcher.stop()

    def pids(self) -> Mapping[str, int]:
        """Return the nodes that live, as `role-index`, and their processes."""
        return self._launcher.pids()

    def restarts(self) -> Mapping[str, int]:
        """Return how often each node was restarted."""
        return self._launcher.restarts()

    def run_until(self, stop: threading.Event) -> None:
        """Run until told to stop."""
        with self:
            while not stop.wait(1.0):  # with a limit, so that Python runs its signal handlers
                pass

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # an interrupt among the starts as well
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.stop()


def _specs(settings: Settings, config: Path | None) -> list[ProcessSpec]:
    """Whoever is asked, or sent to, comes before those who ask and send; stopped, they go after them."""
    named = (f"--config={config.resolve()}",) if config else ()
    chosen = _free_ports(settings) if settings.preprocessor.port == 0 else []
    with_kafka = settings.kafka is not None
    wanted = {
        "tee": 1 if with_kafka else 0,
        "scorer": settings.scorer.nodes,
        "preprocessor": settings.preprocessor.nodes,
        "sink": settings.sink.nodes if with_kafka else 0,
        "shadow": settings.shadow.nodes if with_kafka else 0,
        "haproxy": settings.haproxy.instances if settings.haproxy else 0,
    }
    return [
        ProcessSpec(
            f"{role}-{index}",
            (
                sys.executable,
                str(_RUN),
                "node",
                role,
                f"--index={index}",
                *named,
                *((f"--port={chosen[index]}",) if role == "preprocessor" and chosen else ()),
                f"--parent-fd={PARENT_FD}",
            ),
        )
        for role, count in wanted.items()
        for index in range(count)
    ]


def _free_ports(settings: Settings) -> list[int]:
    """Choose a free port for each preprocessor, once: callers look for it there after a restart as well."""
    with contextlib.ExitStack() as stack:
        # All held at once, so that each is another.
        host, count = settings.preprocessor.host, settings.preprocessor.nodes
        held = [stack.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]
