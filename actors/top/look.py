"""One look at everything: the figures of all processes that can be found, and what the database holds."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg

from actors.config import Settings
from actors.control import ask
from actors.errors import ControlError
from actors.top.figures import Figures, fetch_all
from governance.canary import canary
from governance.database import Connection, connect
from governance.errors import GovernanceError
from governance.membership import with_silence
from governance.rollouts import rollouts
from governance.shadows import shadows

_CONNECT_S, _STATEMENT_S = 2, 3
_ROLLOUTS: Final = 4


@dataclass(frozen=True)
class Held:
    """What the database holds of an environment.

    Attributes:
        trouble: why it cannot be asked; "" if it can.
        release: the current release; None before the first.
        canary: release, percent and key; None where there is none.
        rollouts: the latest, the newest first.
        shadows: those that run or were suspended.
        silent: nodes that gave no sign of late, and for how many seconds.
        health: where the members show their figures.
        hidden: members that show them to their own host alone, which is another.
    """

    trouble: str = ""
    release: int | None = None
    canary: Mapping[str, Any] | None = None
    rollouts: tuple[Mapping[str, Any], ...] = ()
    shadows: tuple[Mapping[str, Any], ...] = ()
    silent: Mapping[str, float] = field(default_factory=dict)
    health: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """What was found at one moment.

    Attributes:
        at: when (time.monotonic seconds).
        figures: endpoint to the figures of a process.
        lost: endpoint to why it did not answer.
        held: what the database holds.
    """

    at: float
    figures: Mapping[str, Figures]
    lost: Mapping[str, str]
    held: Held


class Looker:
    """Looks again and again, over one connection to the database.

    Args:
        settings: the host's configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Connection | None = None

    def look(self) -> Look:
        """Look once. What cannot be reached is part of what is found."""
        held = self._held()
        figures, lost = fetch_all((*self._here(), *held.health))
        return Look(time.monotonic(), figures, lost, held)

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _here(self) -> Iterator[str]:
        """Yield the ports of this host's processes, where `up` runs."""
        logs = self._settings.logs.expanduser()
        try:
            *_, (_, own) = ask(logs, "health")
            *_, (_, states) = ask(logs, "state")
        except ControlError:
            return
        yield from (endpoint for endpoint in (own, *(one["health"] for one in states)) if endpoint)

    def _held(self) -> Held:
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(
                    self._settings.dsn, timeout_s=_CONNECT_S, statement_timeout_s=_STATEMENT_S
                )
            return _read(self._connection, self._settings.environment)
        except (psycopg.Error, GovernanceError) as error:
            self.close()
            return Held(trouble=str(error).strip())


def _read(connection: Connection, environment: str) -> Held:
    row = connection.execute("SELECT current FROM environment WHERE name = %s", (environment,)).fetchone()
    nodes = with_silence(connection, environment)
    alive = [node for node, silent_s in nodes if node.health and silent_s is None]
    hidden = [node for node in alive if node.host != socket.gethostname() and _is_loopback(node.health)]
    return Held(
        release=row["current"] if row else None,
        canary=canary(connection, environment),
        rollouts=tuple(
            {
                "release": one.release.number,
                "state": one.state,
                "started_at": one.started_at,
                "reason": one.reason,
                "percent": one.percent,
                "waits_for": sorted(node for node, ready in one.nodes.items() if ready is None),
            }
            for one in rollouts(connection, environment, _ROLLOUTS)
        ),
        shadows=tuple(
            {"number": one.id, "name": one.name, "state": one.state, "reason": one.state_reason}
            for one in shadows(connection, environment, ("running", "suspended"))
        ),
        silent={node.node_id: silent_s for node, silent_s in nodes if silent_s is not None},
        health=tuple(node.health for node in alive if node not in hidden),
        hidden=tuple(node.node_id for node in hidden),
    )


def _is_loopback(endpoint: str) -> bool:
    return endpoint.startswith(("127.", "localhost:", "[::1]"))
