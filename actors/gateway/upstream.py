"""Whom a gateway asks: the preprocessors for transactions, the scorers for vectors."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial

import zmq

from actors.following import follower
from actors.state import NodeState
from transport.client.aio import AsyncLoop
from transport.client.errors import ScorewireError
from transport.client.pool import Done, Pool
from transport.client.wire import Kind

Outcome = bytes | ScorewireError


class Upstream:
    """The pools of a gateway, on its event loop. Use it from that loop's thread alone.

    Args:
        aio: the event loop.
        context: the node's ZeroMQ context.
    """

    def __init__(self, aio: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._aio = aio
        self._loop = AsyncLoop(aio)
        self._pools = {kind: Pool(self._loop, context) for kind in (Kind.SCORE, Kind.VECTOR)}

    def set_members(self, preprocessors: Collection[str], scorers: Collection[str]) -> None:
        """Ask these from now on."""
        # After an outage of the database all beats there are old, and nobody is on its list.
        self._pools[Kind.SCORE].set_members(preprocessors, keep=True)
        self._pools[Kind.VECTOR].set_members(scorers, keep=True)
        for pool in self._pools.values():
            self._loop.poke(pool)

    async def ask(self, kind: Kind, body: bytes, deadline: float, *, newest: bool = False) -> bytes:
        """Return the frame that answers one request (deadline: time.monotonic seconds).

        `newest`: only of a node that acts on the newest release that any has told of.

        Raises:
            ScorewireError: as the node that was asked says, or the pool.
        """
        found: asyncio.Future[bytes] = self._aio.create_future()

        def done(outcome: bytes | Exception) -> None:
            if found.done():  # whoever asked is gone
                return
            if isinstance(outcome, Exception):
                found.set_exception(outcome)
            else:
                found.set_result(outcome)

        self.submit(kind, body, deadline, done, newest=newest)
        return await found

    async def ask_many(
        self,
        kind: Kind,
        bodies: Sequence[bytes | ScorewireError],
        deadline: float,
        window: int,
        *,
        newest: bool = False,
    ) -> list[Outcome]:
        """Ask many as ask does, `window` of them at a time; return answers and errors in their order.

        What could not even be packed stands among the bodies as its error, and keeps its place.
        """
        many = _Many(partial(self.submit, kind, newest=newest), bodies, deadline, window)
        many.fill()
        return await many.found

    def follow(self, state: NodeState) -> None:
        """Have a gateway follow its scorers while the database is away."""
        self._loop.add(follower(state, self._pools[Kind.VECTOR].heard))

    def counters(self) -> dict[str, int]:
        """Return what the pools counted, with whom they ask before each name. Safe from any thread."""
        found: dict[str, int] = {}
        for who, kind in (("preprocessors", Kind.SCORE), ("scorers", Kind.VECTOR)):
            pool = self._pools[kind]
            states = Counter(pool.states().values())
            found |= {f"{who}.{name}": count for name, count in pool.counters().items()}
            found |= {f"{who}.members.{state}": count for state, count in states.items()}
        return found

    def close(self) -> None:
        """Fail what is under way, and close all sockets."""
        for pool in self._pools.values():
            pool.close()
        self._loop.close()

    def submit(self, kind: Kind, body: bytes, deadline: float, done: Done, *, newest: bool = False) -> None:
        """Ask; `done` may be called at once."""
        pool = self._pools[kind]
        pool.submit(kind, body, deadline, done, newest=newest)
        self._loop.poke(pool)


class _Many:
    """Requests that are asked together, some of them at a time."""

    def __init__(
        self,
        submit: Callable[[bytes, float, Done], None],
        bodies: Sequence[bytes | ScorewireError],
        deadline: float,
        window: int,
    ) -> None:
        self.found: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        self._submit = submit
        self._bodies = bodies
        self._deadline = deadline
        self._room = window
        self._outcomes: list[Outcome] = [b""] * len(bodies)
        self._next = 0
        self._left = len(bodies)
        self._filling = False

    def fill(self) -> None:
        """Ask as many more as may be under way. What is refused at once must not come back in here."""
        if self._filling:
            return
        self._filling = True
        while self._room and self._next < len(self._bodies):
            place = self._next
            self._next += 1
            self._room -= 1
            body = self._bodies[place]
            if isinstance(body, bytes):
                self._submit(body, self._deadline, partial(self._take, place))
            else:
                self._take(place, body)
        self._filling = False
        if not self._left and not self.found.done():
            self.found.set_result(self._outcomes)

    def _take(self, place: int, outcome: bytes | Exception) -> None:
        if isinstance(outcome, bytes | ScorewireError):
            self._outcomes[place] = outcome
        else:
            self._outcomes[place] = ScorewireError(f"{type(outcome).__name__}: {outcome}")
        self._left -= 1
        self._room += 1
        self.fill()


def until(seconds: float) -> float:
    """Return the deadline that is so many seconds from now."""
    return time.monotonic() + seconds
