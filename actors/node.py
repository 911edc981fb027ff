"""A node: one process of a role, its supervision tree and its exit code."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import pykka

from actors.blackbox import open_box
from actors.code.limits import CodeCrew
from actors.config import (
    GatewaySettings,
    PreprocessorSettings,
    ScorerSettings,
    Settings,
    node_name,
    ring_directory,
)
from actors.garbage import settle
from actors.governor import GovernorActor, Peers
from actors.health import HealthActor
from actors.loader import LoadDone, LoaderActor, LoadFailed
from actors.preprocessor import PreprocessorActor
from actors.scorer import ScorerActor
from actors.serving import ServingActor
from actors.state import NodeState
from actors.supervisor import ChildSpec, Supervisor, run_top
from actors.traces import Traces
from transport.errors import TeeRingError
from transport.tee_ring import TeeRing
from transport.threads import serving_context

logger = logging.getLogger(__name__)

#: Crashes of a node's actors within the period that it bears before the process ends.
MAX_RESTARTS = 5
PERIOD_S = 10.0

#: Seconds between two looks whether an actor was noted.
_NOTED_S = 0.001


class Node:
    """The actors of one process, and how they find each other.

    Each actor is looked up when it is needed, since a supervisor may have put another in its place.

    Args:
        settings: the host's configuration.
        role: `preprocessor`, `scorer` or `gateway`.
        index: which of the host's nodes of this role it is.
        port: where a preprocessor or a gateway listens; None takes the configured port and adds the index.
    """

    def __init__(self, settings: Settings, role: str, index: int, port: int | None = None) -> None:
        self._settings = settings
        self._index = index
        self._section: PreprocessorSettings | ScorerSettings | GatewaySettings = getattr(settings, role)
        first = 0 if isinstance(self._section, ScorerSettings) else self._section.port
        self._port = port or (first + index if first else 0)
        self._context = serving_context()
        self._alive: dict[str, pykka.ActorRef[Any]] = {}
        crew = CodeCrew(settings.code.workers, settings.code.spares)
        self._state = NodeState(
            node_name(role, index),
            settings.environment,
            role,
            stale_after_s=settings.stale_after_s,
            refuse_after_s=settings.refuse_after_s or math.inf,
            code_crew=crew,
        )
        self._state.box = open_box(settings.logs.expanduser(), f"{role}-{index}")
        if settings.traces.endpoint:
            names = {"service.name": f"scorewire-{role}", "service.instance.id": self._state.node_id}
            resource = {**names, "deployment.environment.name": settings.environment}
            self._state.traces = Traces(settings.traces, resource)
        if role == "preprocessor" and settings.kafka is not None:
            self._state.tee = _ring(settings, self._state.node_id)

    def run(self) -> int:
        """Run until it is told to stop; return the exit code of the process."""
        logger.info("node %s starts", self._state.node_id)
        code = run_top(
            lambda: Supervisor.start(
                self._children(),
                strategy="one_for_one",
                max_restarts=MAX_RESTARTS,
                period_s=PERIOD_S,
            ),
            hung_s=self._settings.hung_s,
            ready=self._state.is_ready,
            box=self._state.box,
        )
        # A hung actor may still hold a socket: the process ends, whatever it does.
        self._context.destroy(linger=0)
        if self._state.traces is not None:
            self._state.traces.close()
        if self._state.tee is not None:
            self._state.tee.close()
        logger.info("node %s ends with %d", self._state.node_id, code)
        return code

    def _children(self) -> list[ChildSpec]:
        """Name the children; in reverse, a node leaves the membership before it stops to serve."""
        gateway = self._settings.gateway
        stop_s = gateway.leave_s + gateway.drain_s + 1.0
        shutdown_s = stop_s if self._state.role == "gateway" else ChildSpec.shutdown_s
        serving = [self._spec(name, start, shutdown_s) for name, start in self._serving().items()]
        return [
            # The last to go: it says that the node leaves for as long as that takes.
            self._spec("health", self._start_health),
            *serving,
            self._spec("loader", self._start_loader),
            self._spec("governor", self._start_governor),
        ]

    def _spec(
        self, name: str, start: Callable[[], pykka.ActorRef[Any]], shutdown_s: float = ChildSpec.shutdown_s
    ) -> ChildSpec:
        def start_and_note() -> pykka.ActorRef[Any]:
            ref = start()
            self._state.starts[name] += 1
            self._alive[name] = ref
            return ref

        return ChildSpec(id=name, start=start_and_note, shutdown_s=shutdown_s)

    def _serving(self) -> dict[str, Callable[[], pykka.ActorRef[Any]]]:
        settings = self._settings
        if self._state.role == "scorer":
            address = f"tcp://{settings.scorer.host}:*"
            names = [f"scorer-{number}" for number in range(settings.scorer.actors)]
            return {name: self._starter(ScorerActor, name, address) for name in names}
        if self._state.role == "gateway":
            return {"gateway": self._start_gateway}
        address = f"tcp://{settings.preprocessor.host}:{self._port or '*'}"
        return {"preprocessor": self._starter(PreprocessorActor, "preprocessor", address)}

    def _starter(
        self,
        actor: type[ServingActor],
        name: str,
        address: str,
    ) -> Callable[[], pykka.ActorRef[Any]]:
        wide = self._settings.allow_wide_bind
        return lambda: actor.start(name, self._state, self._context, address, wide=wide)

    def _start_gateway(self) -> pykka.ActorRef[Any]:
        from actors.gateway.actor import GatewayActor  # noqa: PLC0415 - no other role speaks HTTP

        named, wide = self._settings.gateway, self._settings.allow_wide_bind
        return GatewayActor.start(self._state, self._context, named, self._port, wide=wide)

    def _start_health(self) -> pykka.ActorRef[Any]:
        named = self._section
        port = named.health_port + self._index if named.health_port else 0
        wide = self._settings.allow_wide_bind
        return HealthActor.start(self._state, self._context, named.host, port, wide=wide)

    def _start_loader(self) -> pykka.ActorRef[Any]:
        return LoaderActor.start(
            self._settings.dsn,
            self._settings.cache.expanduser(),
            role=self._state.role,
            settings=self._settings,
            report=self._report,
        )

    def _start_governor(self) -> pykka.ActorRef[Any]:
        peers = Peers(serving=self._serving_refs, loader=lambda: self._alive["loader"])
        return GovernorActor.start(
            self._settings.direct_dsn, self._state, peers, keep=self._settings.keep_releases
        )

    def _report(self, outcome: LoadDone | LoadFailed) -> None:
        if isinstance(outcome, LoadDone):
            settle()  # before the governance actor hears of the release, and has it served
        # The governance actor asks before whoever started it has noted it.
        while "governor" not in self._alive:
            time.sleep(_NOTED_S)
        # One that is just being replaced asks again for what it misses.
        with contextlib.suppress(pykka.ActorDeadError):
            self._alive["governor"].tell(outcome)

    def _serving_refs(self) -> list[pykka.ActorRef[Any]]:
        return [ref for name, ref in self._alive.items() if name in self._state.endpoints and ref.is_alive()]


def _ring(settings: Settings, node_id: str) -> TeeRing:
    """Make the ring of a preprocessor. Answers are worth more than copies: it serves without one, too."""
    try:
        return TeeRing(ring_directory(settings), node_id, int(settings.tee.memory_mb * 1e6))
    except TeeRingError as error:
        logger.error("no answer of this node reaches the tee, and each counts as dropped: %s", error)  # noqa: TRY400 - its text says it all
        return TeeRing(None, node_id, 0)
