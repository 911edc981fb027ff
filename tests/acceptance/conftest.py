"""A whole Scorewire for the tests: a real PostgreSQL, real node processes, real models."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from actors.config import Settings, load_settings
from actors.host import Host
from governance.artifacts import Kind, register
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import Member, members
from governance.promotion import promote
from governance.rollouts import Rollout, wait_settled

START_S = 60.0


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = START_S) -> Any:
    """Wait for a condition with a deadline; return its first true value."""
    give_up_at = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < give_up_at, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.02)
    return value


@dataclass
class System:
    """A running Scorewire, as its operator holds it."""

    settings: Settings
    file: Path
    directory: Path
    postgres: EmbeddedPostgres
    host: Host
    digests: dict[str, str] = field(default_factory=dict)

    def register(self, path: Path, kind: Kind, name: str) -> str:
        with connect(self.settings.dsn) as connection:
            self.digests[name] = register(connection, path, kind=kind, name=name, by="test", notes={}).digest
        return self.digests[name]

    def promote(self, **stages: str) -> Rollout:
        """Promote, and wait until all nodes act on it or it is abandoned."""
        with connect(self.settings.dsn) as connection:
            rollout = promote(connection, environment=self.settings.environment, stages=stages, by="test")
            settled = wait_settled(connection, rollout.id, timeout_s=START_S)
        if settled.state == "active":
            number = settled.release.number
            wait_until(
                lambda: all(m.release == number for m in self.members()), f"release {number} everywhere"
            )
        return settled

    def members(self) -> tuple[Member, ...]:
        with connect(self.settings.dsn) as connection:
            return tuple(members(connection, self.settings.environment))

    def wait_for_nodes(self) -> list[Member]:
        expected = self.settings.preprocessor.nodes + self.settings.scorer.nodes + self.settings.gateway.nodes
        nodes: list[Member] = wait_until(
            lambda: found if len(found := self.members()) == expected else None,
            f"{expected} nodes in the membership",
        )
        return nodes

    def addresses(self) -> list[str]:
        return [e for m in self.wait_for_nodes() if m.role == "preprocessor" for e in m.endpoints]

    def log(self, node: str) -> str:
        return "".join(f.read_text() for f in sorted(self.settings.logs.glob(f"{node}*.log")))


def start_system(
    directory: Path,
    postgres: EmbeddedPostgres,
    *,
    preprocessors: int,
    scorers: int,
    environment: str = "test",
    dsn: str = "",
    more: str = "",
) -> System:
    """Write a configuration and start its nodes; `dsn`: another way to the database."""
    directory.mkdir(exist_ok=True)
    file = directory / "scorewire.toml"
    text: dict[str, Any] = {
        "environment": environment,
        "dsn": dsn or postgres.dsn,
        "cache": str(directory / "cache"),
        "logs": str(directory / "logs"),
        "stale_after_s": 3.0,
    }
    file.write_text(
        "".join(f"{name} = {json.dumps(value)}\n" for name, value in text.items())
        + f"[preprocessor]\nport = 0\nnodes = {preprocessors}\n"
        # With huge pages, which are not the default: the demo and the quickstart run with that.
        + f"[scorer]\nactors = 1\nnodes = {scorers}\npages = 'huge'\n"
        + more,
    )
    settings = load_settings(file)
    host = Host(settings, file)
    host.start()
    return System(settings, file, directory, postgres, host)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    # Not pytest's own, which only its user may enter: PostgreSQL runs as another user when we are root.
    with tempfile.TemporaryDirectory(prefix="scorewire-test-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def system(directory: Path) -> Iterator[System]:
    """Two preprocessors and two scorers, and nothing promoted."""
    with EmbeddedPostgres(directory / "postgres") as postgres:
        migrate(postgres.dsn)
        running = start_system(directory, postgres, preprocessors=2, scorers=2)
        try:
            yield running
        finally:
            running.host.stop()


@pytest.fixture(name="wait_until")
def wait_until_fixture() -> Callable[..., Any]:
    return wait_until
