"""One member of a pool: its socket, what it holds for us, and whether it is alive."""

from __future__ import annotations

import contextlib
import enum
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import zmq
from zmq.utils.monitor import recv_monitor_message

from . import wire
from .wire import Kind

#: The share of a new measurement in the smoothed latency.
_LATENCY_WEIGHT = 0.2
#: Frames read from one member before the others have their turn.
_FRAMES_A_TURN = 256

_RECONNECT_MS = 20
_RECONNECT_MAX_MS = 500


class State(enum.Enum):
    """What a pool thinks of a member."""

    UNKNOWN = "unknown"  # never heard
    READY = "ready"
    SILENT = "silent"  # disconnected, or several beats without a word: asked nothing, but probed
    NOT_READY = "not_ready"  # answers beats, but says that it cannot serve: starting, or draining


@dataclass(slots=True, eq=False)
class Request:
    """One request under way.

    Attributes:
        kind: SCORE or VECTOR.
        body: the packed body, packed once and sent as often as it takes.
        deadline: when an answer is of no more use (time.monotonic seconds).
        done: called once, with the answer's frame or the error, in the thread of the loop.
        tried: members that were asked since it last found nobody.
        asked: how often it was sent.
        failures: members that failed while they held it.
        holder: the member that holds it now, and under which number.
    """

    kind: Kind
    body: bytes
    deadline: float
    done: Callable[[bytes | Exception], None]
    tried: set[str] = field(default_factory=set)
    asked: int = 0
    failures: int = 0
    holder: tuple[Member, int] | None = None
    finished: bool = False

    def drop(self) -> None:
        """Let the member that holds it forget it."""
        if self.holder is not None:
            member, number = self.holder
            member.held.pop(number, None)
            self.holder = None


class Member:
    """A node's actor as one caller sees it: a DEALER socket of its own, so that what it holds is known."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.endpoint = endpoint
        self.state = State.UNKNOWN
        # What a dead connection had delivered is read after its end is: a beat among it proves nothing.
        self.connected = False
        self.held: dict[int, tuple[Request, float]] = {}
        self.latency_s = 0.0
        self._unanswered_beats = 0
        self._heard = False
        self._pinged = False
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 10_000)
        self.socket.setsockopt(zmq.RCVHWM, 0)  # answers are bounded by what was asked
        self.socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_SOCKET_BYTES)
        # Without IMMEDIATE a request would wait in the queue of a dead connection.
        self.socket.setsockopt(zmq.IMMEDIATE, 1)
        self.socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        self.socket.setsockopt(zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS)
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(events)
        self.socket.connect(endpoint)

    def send(self, request: Request, id: int) -> bool:  # noqa: A002 - the word on the wire
        """Hand a request over; False if the member cannot take it now."""
        now = time.monotonic()
        budget_us = max(1, int((request.deadline - now) * 1e6))
        try:
            self.socket.send(wire.pack_header(request.kind, id, budget_us) + request.body, zmq.NOBLOCK)
        except zmq.Again:
            return False
        self.held[id] = (request, now)
        request.holder = (self, id)
        request.asked += 1
        return True

    def frames(self) -> Iterator[bytes]:
        """Read what has arrived, without waiting, up to one turn's worth."""
        for _ in range(_FRAMES_A_TURN):
            try:
                frame = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._heard = True
            self._unanswered_beats = 0
            yield frame

    def link_events(self) -> Iterator[bool]:
        """Read what happened to the connection: True for made, False for lost."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)
            self.connected = event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            yield self.connected

    def beat(self) -> int:
        """Count the beats that went unanswered, and send the next one.

        Beats are counted, not timed: a caller that was itself held up for seconds has sent no beats in
        that time, and must not find all of its members silent when it comes back.
        """
        if self._pinged and not self._heard:
            self._unanswered_beats += 1
        self._heard = False
        self.ping()
        return self._unanswered_beats

    def ping(self) -> None:
        """Ask for a sign of life; a member that is not connected is not asked."""
        try:
            self.socket.send(wire.pack_header(Kind.PING, 0) + _EMPTY, zmq.NOBLOCK)
            self._pinged = True
        except zmq.Again:
            self._pinged = False

    def measure(self, sent_at: float) -> None:
        """Take the time of an answer into the smoothed latency."""
        taken = time.monotonic() - sent_at
        self.latency_s += _LATENCY_WEIGHT * (taken - self.latency_s)

    def give_back(self) -> list[Request]:
        """Give back the requests that it holds."""
        requests = [request for request, _ in self.held.values()]
        for request in requests:
            request.drop()
        return requests

    def close(self) -> None:
        """Close both sockets."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


_EMPTY = wire.pack_body({})
