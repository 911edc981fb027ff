"""A host: all the nodes that its configuration names, kept running, and changed while they serve."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from actors import notify
from actors.config import Settings
from actors.control import ControlServer
from actors.errors import ControlError
from actors.launcher import PARENT_FD, Launcher, ProcessSpec, ProcessState
from actors.metrics import launcher_page
from actors.probes import Probes
from transport.client.running import Running
from transport.health import Health
from transport.ports import free_ports_in_a_row

_RUN = Path(__file__).parents[1] / "run.py"
#: Seconds that a replaced node may take until it can do its work.
READY_S = 120.0
#: Seconds after which the others have heard of a node that became ready, before the next one goes.
SETTLE_S = 1.0
#: Roles of which there may be more or fewer while the host runs.
SCALED = ("scorer", "preprocessor", "gateway")
_MOST = 256

Step = Callable[[str], None]


class Host(Running):
    """Runs the nodes of a host as processes.

    Args:
        settings: how many there are of each role.
        config: the configuration file that they read; None where variables say it all.
        options: what --set says over it, `key=value` each.
    """

    def __init__(self, settings: Settings, config: Path | None, options: Sequence[str] = ()) -> None:
        self._settings = settings
        self._said = (
            *((f"--config={config.resolve()}",) if config else ()),
            *(f"--set={option}" for option in options),
        )
        self._run = _RUN
        self._ports = _free_ports(settings, settings.preprocessor.nodes) if _chooses_ports(settings) else []
        self._logs = settings.logs.expanduser()
        self._launcher = Launcher(self._specs(), self._logs)
        commands = {
            "state": lambda _asked, _step: self.states(),
            "health": lambda _asked, _step: self._probes.endpoint if self._probes else "",
            "restart": lambda _asked, step: self.restart_rolling(step),
            "upgrade": lambda asked, step: self.upgrade(Path(asked["to"]), step),
            "scale": lambda asked, step: self.scale(asked["counts"], step),
        }
        self._probes: Probes | None = None
        self._control = ControlServer(self._logs, commands, frozenset({"state", "health"}))

    def start(self) -> None:
        """Start all nodes, and take commands."""
        self._launcher.start()
        pages = {"/metrics": self._page, "/targets": self._targets}
        self._probes = Probes(self._settings, self._settings.up.health_port, health=self._health, pages=pages)
        self._control.start()

    def stop(self) -> None:
        """Stop all nodes in order. Stopping twice is harmless."""
        self._control.stop()
        self._launcher.stop()
        if self._probes is not None:
            self._probes.close()

    def pids(self) -> Mapping[str, int]:
        """Return the nodes that live, as `role-index`, and their processes."""
        return self._launcher.pids()

    def restarts(self) -> Mapping[str, int]:
        """Return how often each node was restarted."""
        return self._launcher.restarts()

    def states(self) -> list[dict[str, Any]]:
        """Return what is known of each node's process."""
        return [asdict(state) for state in self._launcher.states()]

    def run_until(self, stop: threading.Event) -> None:
        """Run until told to stop."""
        with self:
            notify.tell(notify.READY)
            while not stop.wait(1.0):  # with a limit, so that Python runs its signal handlers
                if self._launcher.looks():
                    notify.tell(notify.WATCHDOG)
            notify.tell(notify.STOPPING)

    # -- shown

    def _health(self) -> Health:
        return "ready" if self._launcher.looks() else "hung"

    def _page(self) -> tuple[str, bytes]:
        return launcher_page(self._settings.environment, self._launcher.states(), self._health())

    def _targets(self) -> tuple[str, bytes]:
        """Name the ports of this host that have figures, as Prometheus' discovery by HTTP takes it."""
        assert self._probes is not None  # noqa: S101 - they ask
        ports = [self._probes.endpoint, *(one.health for one in self._launcher.states() if one.health)]
        return "application/json", json.dumps([{"targets": ports, "labels": {}}]).encode()

    # -- changed while it serves

    def restart_rolling(self, step: Step) -> dict[str, Any]:
        """Replace every node, one at a time, each checked before the next.

        Raises:
            ControlError: a replaced node could not do its work in time; the others are as they were.
        """
        return self._replace_all(self._run, step)

    def upgrade(self, to: Path, step: Step) -> dict[str, Any]:
        """Replace every node by one that runs the code of a directory.

        Raises:
            ControlError: there is no code that starts, and nothing was touched; or a node of it could not do
                its work in time: it was put back to the code before, and the others are as they were.
        """
        run = to.resolve() / "run.py"
        _check_code(run)
        return self._replace_all(run, step)

    def scale(self, counts: Mapping[str, int], step: Step) -> dict[str, Any]:
        """Make it so many nodes of some roles; those with the highest numbers go first.

        Raises:
            ControlError: a role is not one of SCALED, or a number is none.
        """
        for role, count in counts.items():
            if role not in SCALED:
                raise ControlError(f"{role!r} cannot be scaled here: {', '.join(SCALED)} can")
            if not isinstance(count, int) or not 0 <= count <= _MOST:
                raise ControlError(f"{role}: a number of nodes is 0 to {_MOST}, got {count!r}")
        for role, count in counts.items():
            self._scale_role(role, count, step)
        return {role: self._count(role) for role in SCALED}

    def _scale_role(self, role: str, count: int, step: Step) -> None:
        for index in range(self._count(role), count):
            if role == "preprocessor" and _chooses_ports(self._settings) and index >= len(self._ports):
                self._ports += _free_ports(self._settings, 1)
            self._launcher.add(self._spec(role, index, self._run))
            self._wait_ready(f"{role}-{index}", demanded=self._serves())
            step(f"{role}-{index} is there")
        for index in reversed(range(count, self._count(role))):
            self._launcher.remove(f"{role}-{index}")
            step(f"{role}-{index} has left")

    def _replace_all(self, run: Path, step: Step) -> dict[str, Any]:
        replaced: list[str] = []
        for before in self._launcher.states():
            role, _, index = before.id.rpartition("-")
            self._launcher.replace(before.id, self._spec(role, int(index), run))
            if not self._wait_ready(before.id, demanded=before.ready):
                if run != self._run:
                    self._launcher.replace(before.id, self._spec(role, int(index), self._run))
                raise ControlError(
                    f"{before.id} could not do its work within {READY_S:.0f} s of its replacement"
                    f"{' and is put back' if run != self._run else ''}: see {self._logs / before.id}.log; "
                    f"replaced before it: {', '.join(replaced) or 'none'}; the others are as they were"
                )
            replaced.append(before.id)
            step(f"{before.id} is replaced")
        self._run = run
        return {"replaced": replaced, "code": str(run.parent)}

    def _wait_ready(self, name: str, *, demanded: bool) -> bool:
        """Wait until a node says that it can do its work; one that could not before need not."""
        give_up_at = time.monotonic() + READY_S
        while demanded and not self._state(name).ready:
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.05)
        time.sleep(SETTLE_S)
        return True

    def _state(self, name: str) -> ProcessState:
        return next(state for state in self._launcher.states() if state.id == name)

    def _serves(self) -> bool:
        """Say whether any live node is ready: before the first promotion, none is."""
        return any(one.ready for one in self._launcher.states() if one.id.rpartition("-")[0] in SCALED)

    def _count(self, role: str) -> int:
        return sum(state.id.rpartition("-")[0] == role for state in self._launcher.states())

    # -- what is run

    def _specs(self) -> list[ProcessSpec]:
        """Whoever is asked, or sent to, comes before those who ask and send; stopped, they go after them."""
        settings = self._settings
        with_kafka = settings.kafka is not None
        wanted = {
            "tee": 1 if with_kafka else 0,
            "scorer": settings.scorer.nodes,
            "preprocessor": settings.preprocessor.nodes,
            "gateway": settings.gateway.nodes,
            "sink": settings.sink.nodes if with_kafka else 0,
            "shadow": settings.shadow.nodes if with_kafka else 0,
            "haproxy": settings.haproxy.instances if settings.haproxy else 0,
        }
        return [
            self._spec(role, index, self._run) for role, count in wanted.items() for index in range(count)
        ]

    def _spec(self, role: str, index: int, run: Path) -> ProcessSpec:
        port = (f"--port={self._ports[index]}",) if role == "preprocessor" and self._ports else ()
        argv = (sys.executable, str(run), "node", role, f"--index={index}")
        return ProcessSpec(f"{role}-{index}", (*argv, *self._said, *port, f"--parent-fd={PARENT_FD}"))


def _check_code(run: Path) -> None:
    """Refuse code that does not start, before a node is touched."""
    if not run.is_file():
        raise ControlError(f"there is no {run}: name the directory of a checkout")
    command = [sys.executable, str(run), "node", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=READY_S, check=False)  # noqa: S603 - the operator names the code
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ControlError(f"the code in {run.parent} does not start: {why}; nothing was touched")


def _chooses_ports(settings: Settings) -> bool:
    return settings.preprocessor.port == 0


def _free_ports(settings: Settings, count: int) -> list[int]:
    """Choose free ports for preprocessors, once: callers look for one there after a restart as well."""
    first = free_ports_in_a_row(count, settings.preprocessor.host)
    return list(range(first, first + count))
