"""What an operator does with `run.py register`, `promote` and `status`, as functions for the demo."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path

from actors.config import Settings
from governance.artifacts import Kind, register
from governance.database import connect
from governance.membership import members
from governance.promotion import promote
from governance.rollouts import wait_settled, wait_taken_up

BY = "demo"
#: Seconds that nodes may take to come up, and a rollout to end.
START_S = 60.0


def register_file(settings: Settings, path: Path, kind: Kind, name: str) -> str:
    """Register a file; return its digest."""
    with connect(settings.dsn) as connection:
        digest: str = register(connection, path, kind=kind, name=name, by=BY, notes={}).digest
    return digest


def wait_for_nodes(settings: Settings) -> list[str]:
    """Wait until every node has joined; return the preprocessors' addresses."""
    expected = settings.preprocessor.nodes + settings.scorer.nodes + settings.gateway.nodes
    give_up_at = time.monotonic() + START_S
    with connect(settings.dsn) as connection:
        while len(found := members(connection, settings.environment)) < expected:
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"only {len(found)} of {expected} nodes came up: see {settings.logs}")
            time.sleep(0.05)
    return [endpoint for member in found if member.role == "preprocessor" for endpoint in member.endpoints]


def free_ports_in_a_row(count: int) -> int:
    """Return the first of so many ports of loopback that are free now."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as found:
            first: int = found.getsockname()[1]
        try:
            with ExitStack() as stack:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except (OSError, OverflowError):
            continue
        return first


def promote_and_wait(settings: Settings, stages: dict[str, str]) -> float:
    """Promote, and wait until the last node acts on it; return how many ms that took."""
    with connect(settings.dsn) as connection:
        rollout = promote(connection, environment=settings.environment, stages=stages, by=BY)
        settled = wait_settled(connection, rollout.id, timeout_s=START_S)
        taken_up_ms = wait_taken_up(connection, settled)
    if taken_up_ms is None:
        raise RuntimeError(f"release {settled.release.number} is {settled.state}: {settled.reason}")
    return taken_up_ms
