"""The listener: the socket at which an actor takes requests, with beats answered on the same socket.

A beat is answered by the thread that does the work, so that a hung actor is a silent one. All that has
arrived is read before the next slice of work: what waits in a socket could be neither refused nor dropped.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import zmq

from transport.admission import Admission
from transport.client import wire
from transport.client.errors import OverloadedError, ProtocolError, ScorewireError, UnavailableError
from transport.client.loop import Loop
from transport.client.wire import Kind
from transport.errors import BindRefusedError
from transport.turns import Request

#: Messages read from the socket before work goes on.
_READS = 2048
#: Seconds after its last word that a caller is still told goodbye.
_CALLER_MEMORY_S = 60.0
#: Milliseconds for which what was answered may still leave when the socket is closed.
_LINGER_MS = 200
#: Numbers, since making flags of flags costs as much as sending.
_NOW, _PART, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.RCVMORE)
_LOOPBACK = {"127.0.0.1", "localhost", "[::1]", "::1"}


@dataclass(slots=True)
class ListenerStats:
    """What a listener has counted since it was made."""

    requests: int = 0
    answers: int = 0
    refused: int = 0
    overloaded: int = 0
    late: int = 0
    unreadable: int = 0
    failed: int = 0


class Listener:
    """A ROUTER socket that takes requests for one actor. Use it from the actor's thread only.

    Args:
        loop: the actor's loop.
        context: the node's ZeroMQ context.
        address: where to listen; port `*` picks a free one.
        kind: the kind of requests that are served here.
        on_batch: takes the requests that are served next, about a millisecond's worth.
        ready: says whether this actor can serve now; told to callers with every beat.
        acts_on: says how new what this actor acts on is, which callers are told with every reply, and the
            release, which they are told with every beat; zeros say nothing of that.
        busy_s: for how many seconds no request can be served, since those that it needs are full.
        wide: allow an address beyond loopback, although nothing is encrypted there.

    Raises:
        BindRefusedError: the address is wide and that was not asked for, or is taken.
    """

    def __init__(
        self,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        *,
        kind: Kind,
        on_batch: Callable[[list[Request]], None],
        ready: Callable[[], bool],
        acts_on: Callable[[], tuple[int, int]] = lambda: (0, 0),
        busy_s: Callable[[float], float] = lambda _: 0.0,
        wide: bool = False,
    ) -> None:
        self.stats = ListenerStats()
        self._loop = loop
        self._kind = kind
        self._on_batch = on_batch
        self._ready = ready
        self._acts_on = acts_on
        self._busy_s = busy_s
        self._queue = Admission()
        self._refused: Counter[str] = Counter()
        self._refusals: dict[int, bytes] = {}
        self._callers: dict[bytes, float] = {}
        self._leaving = False
        # Callers behind a load balancer tell by it which of their connections lead here.
        self._name = os.urandom(8).hex()
        check_address(address, wide=wide)
        self._socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.SNDHWM, 50_000)
        self._socket.setsockopt(zmq.RCVHWM, 10_000)
        self._socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_SOCKET_BYTES)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise BindRefusedError(f"cannot listen at {address}: {error}; is another node there?") from error
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        loop.add(self, self._socket)

    def due(self) -> float | None:
        """Return when the next slice of what waits is to be worked off."""
        return self._queue.ready_at(time.monotonic())

    def waiting(self) -> int:
        """Return how many requests wait here."""
        return len(self._queue)

    def pump(self) -> None:
        """Read what has arrived: answer beats, refuse what cannot be read or served; then serve a slice."""
        now = time.monotonic()
        busy_s = self._busy_s(now)
        receive = self._socket.recv
        for _ in range(_READS):
            try:
                caller = receive(_NOW)
            except zmq.Again:
                break
            frame = self._frame(receive(_NOW))  # the parts of a message arrive together
            try:
                self._take(caller, frame, now, busy_s)
            except ScorewireError as error:
                self.stats.unreadable += 1
                self._send(caller, Kind.ERROR, getattr(error, "id", 0), wire.pack_error(error))
        now = time.monotonic()
        self._queue.measure(now)
        ready_at = self._queue.ready_at(now)
        if ready_at is not None and ready_at <= now:
            batch = self._queue.take(now)
            self.stats.requests += len(batch)
            self._on_batch(batch)
            self._queue.done(time.monotonic())

    def answer(self, request: Request, body: bytes, *, done: bool = True) -> bool:
        """Answer a request; one whose deadline has passed is counted and not answered, which is False.

        `done`: whether the answer is what it was asked for, and says how long such work takes.
        """
        now = time.monotonic()
        self._queue.end(request, now, done=done)
        if request.deadline < now:
            self.stats.late += 1
            return False
        self.stats.answers += 1
        return self._send(request.caller, Kind.ANSWER, request.id, body)

    def refuse(self, request: Request, error: ScorewireError) -> None:
        """Answer a request with an error."""
        self._queue.end(request, time.monotonic(), done=not isinstance(error, UnavailableError))
        self.stats.refused += 1
        self._refused[error.code] += 1
        self._send(request.caller, Kind.ERROR, request.id, wire.pack_error(error))

    def fail(self, request: Request, error: Exception) -> None:
        """Answer a request with `internal`, so that the pool asks elsewhere at once."""
        self._queue.end(request, time.monotonic())
        self.stats.failed += 1
        detail = f"{type(error).__name__}: {error}"
        self._send(request.caller, Kind.ERROR, request.id, wire.pack_error(ScorewireError(detail)))

    def drop_late(self, requests: list[Request]) -> list[Request]:
        """Leave out the requests whose deadline has passed, and count them."""
        now = time.monotonic()
        timely = [request for request in requests if request.deadline > now]
        if len(timely) < len(requests):
            self.stats.late += len(requests) - len(timely)
            for request in requests:
                if request.deadline <= now:
                    self._queue.end(request, now)
        return timely

    def say_goodbye(self) -> None:
        """Tell every caller of late to send nothing more here; requests that still come are served."""
        self._leaving = True
        horizon = time.monotonic() - _CALLER_MEMORY_S
        for caller, seen in self._callers.items():
            if seen > horizon:
                self._send(caller, Kind.GOODBYE, 0, _EMPTY)

    def counters(self) -> dict[str, int]:
        """Return all counts, by name."""
        return asdict(self.stats)

    def errors(self) -> dict[str, int]:
        """Return how many requests ended with each error code; those that came or got late have no answer."""
        stats = self.stats
        found = Counter({"overloaded": stats.overloaded, "late": stats.late})
        found.update({ProtocolError.code: stats.unreadable, ScorewireError.code: stats.failed})
        found.update(dict(self._refused))  # copied in one step, whatever its thread does meanwhile
        return found

    def close(self) -> None:
        """Stop listening; what was answered still leaves. Closing twice is harmless."""
        self._loop.remove(self)
        self._socket.close(_LINGER_MS)

    def _frame(self, frame: bytes) -> bytes:
        """Return the one frame that a message has behind the route back; of one with more nothing is read."""
        while self._socket.get(_MORE):
            self._socket.recv(_NOW)
            frame = b""
        return frame

    def _take(self, caller: bytes, frame: bytes, now: float, busy_s: float) -> None:
        header = wire.unpack_header(frame)
        if header.kind is Kind.PING:
            self._pong(caller, header.id, now)
            return
        if header.kind is not self._kind:
            why = f"{header.kind.name} is not served here, only {self._kind.name}: is the address right?"
            raise wire.UnreadableError(why, rule="kind", id=header.id)
        if len(frame) > wire.MAX_MESSAGE_BYTES:
            error = wire.too_large(len(frame))
            self.stats.refused += 1
            self._refused[error.code] += 1
            self._send(caller, Kind.ERROR, header.id, wire.pack_error(error))
            return
        if not header.number:
            self.stats.late += 1
            return
        deadline = now + header.number / 1e6
        request = Request(caller, header.id, header.kind, frame, now, deadline, wire.is_replay(frame))
        retry_s = busy_s or self._queue.offer(request, now)
        if retry_s:
            self.stats.overloaded += 1
            self._send(caller, Kind.ERROR, header.id, self._refusal(retry_s))

    def _refusal(self, retry_s: float) -> bytes:
        """Return the body that says `overloaded`, packed once for each wait: a refusal must be cheap."""
        retry_ms = min(1_000, math.ceil(retry_s * 1e3))
        if retry_ms not in self._refusals:
            self._refusals[retry_ms] = wire.pack_error(overloaded(len(self._queue), retry_ms / 1e3))
        return self._refusals[retry_ms]

    def _pong(self, caller: bytes, id_: int, now: float) -> None:
        self._callers[caller] = now
        if len(self._callers) > _MANY_CALLERS:
            horizon = now - _CALLER_MEMORY_S
            self._callers = {c: seen for c, seen in self._callers.items() if seen > horizon}
        state = "ready" if self._ready() and not self._leaving else "not_ready"
        activation, release = self._acts_on()
        told = {"state": state, "node": self._name, "release": release}
        self._send(caller, Kind.PONG, id_, wire.pack_body(told), activation)

    def _send(self, caller: bytes, kind: Kind, id_: int, body: bytes, activation: int | None = None) -> bool:
        number = self._acts_on()[0] if activation is None else activation
        try:
            header = wire.pack_header(kind, id_, number)
            # By parts, which takes a third of what send_multipart does; only the first can be refused.
            self._socket.send(caller, _PART)
            self._socket.send(header + body, _NOW)
        except zmq.Again:
            # The caller reads nothing: its own deadline tells it, and memory here stays bounded.
            self.stats.late += 1
            return False
        return True


def check_address(address: str, *, wide: bool) -> None:
    """Refuse to listen beyond loopback unless that was asked for by name.

    Raises:
        BindRefusedError: the address is not loopback and `wide` is false, or it is no address.
    """
    if address.startswith("ipc://") or wide:
        return
    parts = urlsplit(address.replace("*", "0") if address.endswith(":*") else address)
    if parts.scheme != "tcp" or not parts.hostname:
        raise BindRefusedError(f"cannot listen at {address!r}: an address is tcp://host:port or ipc://path")
    if parts.hostname not in _LOOPBACK:
        raise BindRefusedError(
            f"refusing to listen at {address}: it is not loopback and nothing is encrypted there; "
            "set allow_wide_bind = true if that network is yours alone",
        )


def overloaded(in_flight: int, retry_after: float) -> OverloadedError:
    """Name the overload of a node, with its figures."""
    detail = f"this node is full ({in_flight} under way): ask elsewhere, or after {retry_after * 1e3:.0f} ms"
    return OverloadedError(detail, retry_after=retry_after)


#: Made known from here to those that take requests.
__all__ = ["Listener", "ListenerStats", "Request", "check_address", "overloaded"]

_MANY_CALLERS = 10_000
_EMPTY = wire.pack_body({})
