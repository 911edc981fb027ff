"""The gateway actor: HTTP in, messages to preprocessors and scorers out, all in one thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import uvloop
import zmq

from actors.child import Child
from actors.config import GatewaySettings
from actors.gateway.app import GatewayApp
from actors.gateway.routes import routes_of
from actors.gateway.server import make_server
from actors.gateway.upstream import Upstream
from actors.serving import REBIND_S, RefreshPeers
from actors.state import NodeState
from transport.aio import AsyncMailbox
from transport.errors import BindRefusedError
from transport.listener import check_address
from transport.metrics import Timings

logger = logging.getLogger(__name__)

#: Its id among the serving actors of its node.
NAME = "gateway"
#: Seconds between two signs of life.
SIGN_S = 0.1


@dataclass(frozen=True, slots=True)
class Broken:
    """The message that something ended on the event loop that must not."""

    error: BaseException | None


class GatewayActor(Child):
    """Serves HTTP. Its thread runs an event loop while it waits for messages.

    Args:
        state: what the node's actors share.
        context: the node's ZeroMQ context.
        limits: what requests may have.
        port: where to listen the first time; afterwards it returns to the port that it got.
        wide: allow an address beyond loopback.
    """

    watched = True

    def __init__(
        self,
        state: NodeState,
        context: zmq.Context[zmq.Socket[bytes]],
        limits: GatewaySettings,
        port: int,
        *,
        wide: bool = False,
    ) -> None:
        super().__init__()
        self._state = state
        self._context = context
        self._limits = limits
        self._port = port
        self._wide = wide

    @staticmethod
    def _create_actor_inbox() -> AsyncMailbox:
        return AsyncMailbox(uvloop.new_event_loop())

    def _actor_loop(self) -> None:
        try:
            super()._actor_loop()
        finally:
            self.actor_inbox.close()  # type: ignore[attr-defined]  # made by _create_actor_inbox

    def on_start(self) -> None:
        """Reach the nodes that are known, then listen."""
        inbox = self.actor_inbox
        assert isinstance(inbox, AsyncMailbox)  # noqa: S101 - for the type checker: made above
        self._aio = inbox.aio
        self._aio.set_exception_handler(self._take_exception)
        self._upstream = Upstream(self._aio, self._context)
        self._upstream.follow(self._state)
        try:
            self._socket = self._listen()
        except BaseException:
            self._upstream.close()
            raise
        self._upstream.set_members(self._state.preprocessors, self._state.scorers)
        timings = self._state.timings.setdefault(NAME, Timings("total"))
        routes = routes_of(self._state, self._upstream, self._limits)
        self._app = GatewayApp(routes, self._limits, timings.stages["total"], self._state.traces)
        self._server = make_server(self._app)
        self._serving = self._aio.create_task(self._server.serve(sockets=[self._socket]))
        self._serving.add_done_callback(self._take_end)
        # Before anybody knows the endpoint, lest beats over ZeroMQ be sent there.
        self._give_sign()
        host, port = self._socket.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        self._state.endpoints[NAME] = f"http://{name}:{port}"
        self._state.counters[NAME] = self.counters
        logger.info("the gateway listens at %s", self._state.endpoints[NAME])

    def on_receive(self, message: Any) -> Any:
        """Take a change of the nodes, or the end of what serves."""
        if isinstance(message, RefreshPeers):
            self._upstream.set_members(self._state.preprocessors, self._state.scorers)
            return None
        if isinstance(message, Broken):
            raise message.error or RuntimeError("the HTTP server ended by itself")
        return super().on_receive(message)

    def counters(self) -> dict[str, int]:
        """Return what was counted here, and what was at the pools. Safe from any thread."""
        return {**self._app.counters(), **self._upstream.counters()}

    def on_stop(self) -> None:
        """Serve on until load balancers have seen that this node leaves, and finish what is under way."""
        self._aio.run_until_complete(self._leave())
        logger.info("the gateway counted %s", self.counters())
        self._upstream.close()

    def on_failure(self, *_: object) -> None:
        """Free the port for the actor that takes this one's place."""
        with contextlib.suppress(asyncio.CancelledError):
            self._aio.run_until_complete(self._abandon())
        self._upstream.close()

    async def _leave(self) -> None:
        self._app.leaving = True
        await asyncio.sleep(self._limits.leave_s)
        self._server.should_exit = True
        await self._serving
        if self._app.in_flight:
            logger.error("%d requests were not finished in time, and are cut", self._app.in_flight)

    async def _abandon(self) -> None:
        for server in self._server.servers:
            server.close()
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        self._serving.cancel()
        await self._serving

    def _listen(self) -> socket.socket:
        before = self._state.endpoints.get(NAME)
        host, port = self._limits.host, int(before.rpartition(":")[2]) if before else self._port
        name = f"[{host}]" if ":" in host else host
        check_address(f"tcp://{name}:{port}", wide=self._wide)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        give_up_at = time.monotonic() + REBIND_S
        while True:
            try:
                return socket.create_server((host, port), family=family, backlog=socket.SOMAXCONN)
            except OSError as error:
                # The actor whose place this one takes may still be closing.
                if before is None or time.monotonic() > give_up_at:
                    raise BindRefusedError(
                        f"cannot serve HTTP at {name}:{port}: {error}; is another node there?"
                    ) from error
                time.sleep(0.02)

    def _give_sign(self) -> None:
        """Say that the event loop turns: where it does not, this actor is at one message for too long."""
        self._state.sign_at = self.life.busy_since = time.monotonic()
        self._aio.call_later(SIGN_S, self._give_sign)

    def _take_exception(self, aio: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        # A callback that raised: a pool may be half way through, and is not to be trusted any more.
        if "handle" in context:
            self.actor_ref.tell(Broken(context.get("exception")))
        else:
            aio.default_exception_handler(dict(context))

    def _take_end(self, task: asyncio.Task[None]) -> None:
        if not self._app.leaving:
            self.actor_ref.tell(Broken(None if task.cancelled() else task.exception()))
