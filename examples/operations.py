"""What an operator does with `run.py register`, `promote` and `status`, as functions for the demo."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

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


def wait_for_http(url: str) -> None:
    """Wait until HAProxy has a gateway that serves.

    Raises:
        RuntimeError: it has none.
    """
    give_up_at = time.monotonic() + START_S
    while time.monotonic() < give_up_at:
        with suppress(OSError), urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError(f"no gateway answers at {url}")


def score_over_http(url: str, transaction: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a transaction as a gateway gives it, or its error."""
    body = json.dumps({"transaction": transaction, "deadline_ms": 5_000}).encode()
    try:
        with urllib.request.urlopen(f"{url}/v1/score", body, timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            found = json.load(error)
    return found


def promote_and_wait(settings: Settings, stages: dict[str, str]) -> float:
    """Promote, and wait until the last node acts on it; return how many ms that took."""
    with connect(settings.dsn) as connection:
        rollout = promote(connection, environment=settings.environment, stages=stages, by=BY)
        settled = wait_settled(connection, rollout.id, timeout_s=START_S)
        taken_up_ms = wait_taken_up(connection, settled)
    if taken_up_ms is None:
        raise RuntimeError(f"release {settled.release.number} is {settled.state}: {settled.reason}")
    return taken_up_ms
