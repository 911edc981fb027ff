"""The HAProxies of a host, as its configuration names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from haproxy.plan import Options


@dataclass(frozen=True)
class Setup:
    """What the agent and the sub-commands work on.

    Attributes:
        dsn: the database that holds the membership.
        environment: the environment whose nodes are served.
        instances: each HAProxy of the host.
        slots: places of a backend at first.
        binary: HAProxy's program, if the configuration names one.
        logs: the directory of its logs.
    """

    dsn: str
    environment: str
    instances: tuple[Options, ...]
    slots: int
    binary: Path | None
    logs: Path

    def log(self, index: int) -> Path:
        """Return where the words of one HAProxy go."""
        return self.logs / f"haproxy-{index}.haproxy.log"
