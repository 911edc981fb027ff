"""Open-loop callers: they send at the times of a Poisson process, whatever became of those before.

A latency counts from the time at which its transaction was to be sent, so that neither a service that stalls
nor a caller that is late hides anything. A caller has cores of its own and never sleeps: it looks again and
again, so that nothing waits for a timer.
"""

from __future__ import annotations

import collections
import itertools
import math
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import httptools
import numpy as np
import zmq

from transport.client.loop import Loop
from transport.client.pool import Pool
from transport.client.wire import Kind

#: Seconds that answers may take until they count as lost.
PATIENCE_S = 2.0
#: The share of late answers with which a rate is sure to miss, and the seconds before which nobody looks:
#: a moment in which somebody else had the core is to be told from too high a rate.
_LATE_SHARE, _GIVE_UP_AFTER_S = 0.01, 0.3
#: Connections of a caller at most: what comes when all are in use waits for one, and its wait counts.
CONNECTIONS = 256


@dataclass
class Outcomes:
    """What became of what one caller sent.

    Attributes:
        offered: how many were to be sent.
        latencies_s: of those that were answered well.
        errors: how many were answered otherwise.
        lags_s: how much later than it was to be sent each was sent.
        given_up: whether sending was ended early; then `offered` is what was sent.
    """

    offered: int
    latencies_s: list[float] = field(default_factory=list)
    errors: int = 0
    lags_s: list[float] = field(default_factory=list)
    given_up: bool = False

    @property
    def settled(self) -> int:
        """How many there is an outcome of."""
        return len(self.latencies_s) + self.errors


class Caller(Protocol):
    """Sends requests by number, and says what came of them."""

    def submit(self, number: int, done: Callable[[bytes | None], None]) -> None:
        """Send the request of that number; `done` is called with the answer's body, or None."""

    def turn(self) -> None:
        """Look once for answers; do not wait."""


class PoolCaller:
    """The project's own pool.

    Args:
        addresses: of the preprocessors.
        bodies: transactions, packed.
    """

    def __init__(self, addresses: list[str], bodies: Sequence[bytes]) -> None:
        self._loop = Loop()
        self._pool = Pool(self._loop, zmq.Context(), addresses)
        self._bodies = bodies
        while "ready" not in self._pool.states().values():
            self.turn()

    def submit(self, number: int, done: Callable[[bytes | None], None]) -> None:
        """Send a transaction."""
        body, until = self._bodies[number % len(self._bodies)], time.monotonic() + PATIENCE_S
        self._pool.submit(
            Kind.SCORE, body, until, lambda found: done(found if isinstance(found, bytes) else None)
        )

    def turn(self) -> None:
        """Look for answers."""
        ready = self._loop.wait(block=False)
        for source in ready:
            source.pump()
        if not ready:
            os.sched_yield()  # or ZeroMQ's own thread waits for this one's slice to end, milliseconds


class _Connection:
    """One connection, and the request that is under way on it."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.done: Callable[[bytes | None], None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    def on_body(self, part: bytes) -> None:
        self._body.append(part)

    def on_message_complete(self) -> None:
        body, done = b"".join(self._body), self.done
        self._body, self.done = [], None
        if done is not None:
            done(body if self._parser.get_status_code() < 300 else None)

    def receive(self) -> bool:
        """Take what has come; say whether the connection lives."""
        try:
            data = self.socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if data:
            self._parser.feed_data(data)
        elif self.done is not None:
            self.done(None)
        return bool(data)


class HttpCaller:
    """Connections that are kept alive, as many as are needed at once.

    Args:
        addresses: hosts and ports, connected to in turn.
        requests: whole requests.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], requests: Sequence[bytes]) -> None:
        self._addresses = itertools.cycle(addresses)
        self._requests = requests
        self._idle: list[_Connection] = []
        self._all: dict[int, _Connection] = {}
        self._epoll = select.epoll()
        self._waiting: collections.deque[tuple[int, Callable[[bytes | None], None]]] = collections.deque()

    def submit(self, number: int, done: Callable[[bytes | None], None]) -> None:
        """Send a request."""
        if not self._idle and len(self._all) >= CONNECTIONS:
            self._waiting.append((number, done))
            return
        try:
            connection = self._idle.pop() if self._idle else self._connect()
            connection.done = done
            connection.socket.sendall(self._requests[number % len(self._requests)])
        except OSError:
            done(None)

    def turn(self) -> None:
        """Look for answers; send what waits."""
        for descriptor, _ in self._epoll.poll(0):
            connection = self._all[descriptor]
            if not connection.receive():
                self._epoll.unregister(descriptor)
                del self._all[descriptor]
                if connection in self._idle:
                    self._idle.remove(connection)
                connection.socket.close()
            elif connection.done is None:
                self._idle.append(connection)
        while self._waiting and (self._idle or len(self._all) < CONNECTIONS):
            self.submit(*self._waiting.popleft())

    def _connect(self) -> _Connection:
        connection = _Connection(next(self._addresses))
        self._all[connection.socket.fileno()] = connection
        self._epoll.register(connection.socket.fileno(), select.EPOLLIN)
        return connection


class _Verdict:
    """Says while a rate is offered whether it is sure to miss: too many of all that is to be sent are late.

    Args:
        times: when each is to be sent (time.monotonic seconds).
        late_s: from when on an answer is late.
    """

    def __init__(self, times: Sequence[float], late_s: float) -> None:
        self._times = times
        self._late_s = late_s
        self._allowed = _LATE_SHARE * len(times)
        self._not_before = times[0] + _GIVE_UP_AFTER_S
        self._due = 0
        self._in_time = 0

    def take(self, latency_s: float) -> None:
        """Count an answer."""
        self._in_time += latency_s < self._late_s

    def misses(self, sent: int, now: float) -> bool:
        """Say whether too many of those that were sent are late, answered or not."""
        while self._due < sent and self._times[self._due] + self._late_s <= now:
            self._due += 1
        # Some of those in time may be due later: then there are more late ones than this.
        return self._due - self._in_time > self._allowed and now > self._not_before


def open_loop(caller: Caller, rate: float, seconds: float, seed: int, late_s: float = math.inf) -> Outcomes:
    """Send for so long at that rate, or until it is sure that one of a hundred is late; return what came."""
    count = max(1, int(rate * seconds))
    gaps = np.random.default_rng(seed).exponential(1.0 / rate, count)
    times = (time.monotonic() + 0.01 + np.cumsum(gaps)).tolist()
    outcomes, verdict, sent = Outcomes(count), _Verdict(times, late_s), 0

    def take(at: float, answer: bytes | None) -> None:
        if answer is None:
            outcomes.errors += 1
        else:
            outcomes.latencies_s.append(time.monotonic() - at)
            verdict.take(outcomes.latencies_s[-1])

    give_up_at = times[-1] + PATIENCE_S
    while outcomes.settled < outcomes.offered and (now := time.monotonic()) < give_up_at:
        while sent < outcomes.offered and times[sent] <= now:
            outcomes.lags_s.append(time.monotonic() - times[sent])
            caller.submit(sent, partial(take, times[sent]))
            sent += 1
        caller.turn()
        if sent < outcomes.offered and verdict.misses(sent, now):
            outcomes.offered, outcomes.given_up = sent, True
            give_up_at = now + PATIENCE_S
    return outcomes


def answers(caller: Caller, count: int, patience_s: float = 60.0) -> list[bytes | None]:
    """Send one after another; return what each was answered, None from where nothing good came."""
    found: list[bytes | None] = []
    for number in range(count):
        give_up_at = time.monotonic() + patience_s
        came: list[bytes | None] = []
        caller.submit(number, came.append)
        while not came and time.monotonic() < give_up_at:
            caller.turn()
        if not came or came[0] is None:
            return found + [None] * (count - number)
        found.append(came[0])
    return found
