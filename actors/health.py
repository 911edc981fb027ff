"""The health actor: tells whoever asks whether its node is ready, by asking the node as a caller would."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import zmq

from actors import notify
from actors.mailbox_actor import MailboxActor
from actors.node_metrics import node_page
from actors.state import NodeState
from transport.client.pool import Pool
from transport.health import Health, HealthPort
from transport.mailbox import Timer

#: Seconds between two looks for the endpoints of the node, and between two beats to them.
LOOK_S = 0.1
#: Seconds after which an actor that gives signs by itself is taken to hang.
SILENT_S = 1.0


class HealthActor(MailboxActor):
    """Answers health checks, off the hot path.

    It sends beats to the node's own actors: one that hangs answers none, whatever its process says.

    Args:
        state: what the node's actors share.
        context: the node's ZeroMQ context.
        host: where to listen.
        port: the port; 0 picks a free one.
        wide: allow an address beyond loopback.
    """

    watched = True

    def __init__(
        self,
        state: NodeState,
        context: zmq.Context[zmq.Socket[bytes]],
        host: str,
        port: int,
        *,
        wide: bool = False,
    ) -> None:
        super().__init__()
        self._state = state
        self._context = context
        self._host, self._port, self._wide = host, port, wide

    def on_start(self) -> None:
        """Listen, where its predecessor did if it had one."""
        port = int(self._state.health.rpartition(":")[2]) if self._state.health else self._port
        self._answers = HealthPort(
            self.loop,
            self._host,
            port,
            health=self.health,
            facts=self._facts,
            pages={"/metrics": lambda: node_page(self._state, self.health())},
            wide=self._wide,
        )
        self._state.health = self._answers.endpoint
        notify.tell_health(self._answers.endpoint)
        self._pool = Pool(self.loop, self._context, beat_s=LOOK_S)
        self.loop.add(Timer(LOOK_S, self._look))

    def on_stop(self) -> None:
        """Close the sockets."""
        self._pool.close()
        self._answers.close()

    def on_failure(self, *_: object) -> None:
        """Free the port for the actor that takes this one's place."""
        self.on_stop()

    def health(self) -> Health:
        """Say how the node is; one actor that answers is enough."""
        if self._state.leaving:
            return "draining"
        if not self._state.is_ready():
            return "starting"
        if self._state.sign_at is not None:
            return "ready" if time.monotonic() < self._state.sign_at + SILENT_S else "hung"
        states = self._pool.states().values()
        if "ready" in states:
            return "ready"
        return "hung" if "silent" in states else "starting"

    def _look(self) -> None:
        # Actors return to the endpoints that they had, so that this changes while a node starts alone.
        if self._state.sign_at is None:
            self._pool.set_members(tuple(self._state.endpoints.values()))

    def _facts(self) -> Mapping[str, Any]:
        state = self._state
        return {
            "node": state.node_id,
            "role": state.role,
            "environment": state.environment,
            "release": state.holdings.current,
            "counters": {name: dict(counted()) for name, counted in list(state.counters.items())},
            "code": {name: dict(counted()) for name, counted in list(state.code_counters.items())},
        }
