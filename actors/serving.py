"""What the actors that serve requests share: the mailbox, the listener, and leaving without a loss."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from typing import Any

import zmq

from actors.mailbox_actor import MailboxActor
from actors.state import NodeState
from transport.client.wire import Kind
from transport.errors import BindRefusedError
from transport.listener import Listener, Request
from transport.metrics import Timings

logger = logging.getLogger(__name__)

#: Seconds that a leaving actor goes on serving, so that its callers hear its goodbye and move on.
LEAVE_S = 0.25
#: Seconds that a leaving actor waits at most for what it has under way.
FINISH_S = 2.0
#: Seconds that a restarted actor waits for its own old address to become free.
REBIND_S = 2.0


class RefreshPeers:
    """The message that tells an actor to read the endpoints of those that it asks again."""


class ServingActor(MailboxActor):
    """An actor that takes requests at an endpoint of its own.

    Args:
        name: its id among the serving actors of the node.
        state: what the node's actors share.
        context: the node's ZeroMQ context.
        address: where to listen the first time; afterwards it returns to the endpoint that it got, since
            that is where its callers look for it.
        wide: allow an address beyond loopback.
    """

    kind: Kind
    listener: Listener
    watched = True
    #: What is timed beside `queue`, the time until a request is taken.
    stages: tuple[str, ...]

    def __init__(
        self,
        name: str,
        state: NodeState,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        *,
        wide: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.state = state
        self.context = context
        self._address = state.endpoints.get(name, address)
        self._wide = wide
        self.timings = state.timings.setdefault(name, Timings("queue", *self.stages))
        self._queue_timing = self.timings.stages["queue"]

    def on_start(self) -> None:
        """Listen."""
        self.listener = self._listen(time.monotonic() + REBIND_S)
        self.state.endpoints[self.name] = self.listener.endpoint
        self.state.counters[self.name] = self.counters
        logger.info("%s listens at %s", self.name, self.listener.endpoint)

    @abstractmethod
    def on_batch(self, requests: list[Request]) -> None:
        """Take all requests that have arrived."""

    def counters(self) -> dict[str, int]:
        """Return what was counted here, by name; safe from any thread."""
        return {
            **self.listener.counters(),
            "waiting": self.listener.waiting(),
            "in_flight": self.in_flight(),
            **{f"errors.{code}": count for code, count in self.listener.errors().items()},
        }

    def _take_batch(self, requests: list[Request]) -> None:
        if self.state.box is not None:
            first = requests[0]
            self.state.box.note(f"{self.name} takes {len(requests)}: {first.caller.hex()}/{first.id}, ...")
        self.timings.batches.add(len(requests))
        now, add = time.monotonic(), self._queue_timing.add
        for request in requests:
            add(int((now - request.arrived) * 1e6))
        self.on_batch(requests)

    def in_flight(self) -> int:
        """Return the number of requests that are taken and not yet answered."""
        return 0

    def busy_s(self, now: float) -> float:
        """Return for how many seconds no request can be served, since those that it needs are full."""
        del now
        return 0.0

    def _acts_on(self) -> tuple[int, int]:
        held = self.state.holdings
        return held.activation, held.current or 0

    def on_stop(self) -> None:
        """Say goodbye, finish what is under way, and close the sockets."""
        self.listener.say_goodbye()
        began = time.monotonic()
        finish_by = began + FINISH_S
        while (now := time.monotonic()) < finish_by and (
            now < began + LEAVE_S or self.in_flight() or self.listener.waiting()
        ):
            for source in self.loop.wait(block=False) or self._pause():
                source.pump()
        self.close()

    def on_failure(self, *_: object) -> None:
        """Free the endpoint for the actor that takes this one's place."""
        self.close()

    def close(self) -> None:
        """Close the sockets, and say what was counted there."""
        logger.info("%s counted %s", self.name, self.listener.counters())
        self.listener.close()

    def _listen(self, give_up_at: float) -> Listener:
        while True:
            try:
                return Listener(
                    self.loop,
                    self.context,
                    self._address,
                    kind=self.kind,
                    on_batch=self._take_batch,
                    ready=self.state.is_ready,
                    acts_on=self._acts_on,
                    busy_s=self.busy_s,
                    wide=self._wide,
                )
            except BindRefusedError:
                # ZeroMQ frees an address in the background after its socket was closed.
                if self.name not in self.state.endpoints or time.monotonic() > give_up_at:
                    raise
                time.sleep(0.02)

    @staticmethod
    def _pause() -> list[Any]:
        time.sleep(0.002)
        return []
