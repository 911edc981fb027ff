"""One member of a pool: its socket, what it holds for us, and whether it is alive."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from . import wire
from .health import Health
from .loop import readable
from .route import GREETING_MS, Route
from .wire import Kind

#: Failed members after which a request is given up: it may itself be what kills them.
MAX_FAILURES = 3
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
        sent_at: when it was sent first.
        failed: nodes that failed while they held it.
        failures: how often one did; connections to one node that are lost together are one failure.
        holders: the members that hold it now, and under which numbers.
        newest: whether only those are asked who act on the newest release that any member told of.
        hedge: the member that was asked because the first one took long.
        accused: members that erred on it, and are blamed for that if another answers it.
    """

    kind: Kind
    body: bytes
    deadline: float
    done: Callable[[bytes | Exception], None]
    newest: bool = False
    tried: list[Member] = field(default_factory=list)
    asked: int = 0
    sent_at: float = 0.0
    failed: frozenset[str] = frozenset()
    failures: int = 0
    holders: list[tuple[Member, int]] = field(default_factory=list)
    hedge: Member | None = None
    accused: tuple[Member, ...] = ()
    finished: bool = False

    def survives(self, node: str, *, lost: bool) -> bool:
        """Count a failure of a node that held it; False if too many have failed.

        `lost`: by the loss of a connection; several to one node that are lost are one failure.
        """
        self.failures += not (lost and node in self.failed)
        self.failed |= {node}
        return self.failures < MAX_FAILURES

    def drop(self) -> None:
        """Let the members that hold it forget it, but for how long they take with it."""
        for member, number in self.holders:
            entry = member.held.pop(number, None)
            if entry is not None:
                member.losers[number] = (entry[1], self.deadline)
        self.holders.clear()


class Member:
    """A node's actor as one caller sees it: a DEALER socket of its own, so that what it holds is known."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self.endpoint = endpoint
        self.route = Route(endpoint)
        self.state = State.UNKNOWN
        # What a dead connection had delivered is read after its end is: a beat among it proves nothing.
        self.connected = False
        self.health = Health()
        #: How new what it acts on is, by its last reply; 0 where it says nothing of that.
        self.activation = 0
        #: That of its last pong, and the release on which it acts.
        self.acts_on = (0, 0)
        self.held: dict[int, tuple[Request, float]] = {}
        # What another member answered first, or nobody in time: still work here. Number to (sent, deadline).
        self.losers: dict[int, tuple[float, float]] = {}
        #: Whether more had arrived than was read in the last turn.
        self.has_more = False
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
        self._monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(events)
        # Its descriptor tells of nothing before it was asked once.
        readable(self._monitor)
        #: The descriptor that tells of link events, which are read until none is left.
        self.link = self._monitor.fileno()
        if self.route.balanced:
            self.socket.setsockopt(zmq.HANDSHAKE_IVL, GREETING_MS)
        self.socket.connect(self.route.address)

    def send(self, request: Request, id: int, now: float) -> bool:  # noqa: A002 - the word on the wire
        """Hand a request over; False if the member cannot take it now."""
        budget_us = max(1, int((request.deadline - now) * 1e6))
        try:
            self.socket.send(wire.pack_header(request.kind, id, budget_us) + request.body, zmq.NOBLOCK)
        except zmq.Again:
            return False
        if self.health.failing:
            self.health.probe(now)
        self.held[id] = (request, now)
        request.holders.append((self, id))
        if not request.asked:
            request.sent_at = now
        request.asked += 1
        return True

    def leads_nowhere(self, now: float) -> bool:
        """Say whether to connect anew through its load balancer: nothing is held that would be lost."""
        if self.held or not self.route.may_turn(now):
            return False
        silent = self.connected and self.state in (State.NOT_READY, State.SILENT)
        return self.route.retiring or silent

    @property
    def stays(self) -> bool:
        """Whether it is connected, and does not take its leave."""
        return self.connected and self.state is not State.NOT_READY

    def usable(self, now: float) -> bool:
        """Say whether it should be asked, if another can be."""
        return self.health.usable(now, len(self.held))

    def cost(self, now: float) -> float:
        """Return the load that one more request would meet here."""
        return self.health.cost(now, len(self.held) + len(self.losers))

    def frames(self) -> Iterator[bytes]:
        """Read what has arrived, without waiting, up to one turn's worth."""
        self.has_more = False
        for _ in range(_FRAMES_A_TURN):
            if not readable(self.socket):
                return
            frame = self.socket.recv(zmq.NOBLOCK)
            self._heard = True
            self._unanswered_beats = 0
            yield frame
        self.has_more = True

    def hear(self, activation: int, told: Mapping[str, Any]) -> State:
        """Take what it says of itself in a pong; return what that makes of it."""
        self.route.node = str(told.get("node", self.endpoint))
        release = told.get("release")
        self.acts_on = (activation, release if isinstance(release, int) else 0)
        return State.READY if told.get("state") == "ready" else State.NOT_READY

    def has_lost_its_link(self) -> bool:
        """Read what happened to the connection; say whether it was lost. Who is met anew is pinged."""
        lost = False
        while readable(self._monitor):
            event = recv_monitor_message(self._monitor)
            self.connected = event["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            if self.connected:
                self.ping()
            else:
                lost = True
        return lost

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

    def give_back(self) -> list[Request]:
        """Give back the requests that it holds; those that another holds as well keep that one."""
        requests = []
        for number, (request, _) in self.held.items():
            request.holders.remove((self, number))
            requests.append(request)
        self.held.clear()
        self.losers.clear()
        return requests

    def take_loser(self, number: int, now: float) -> float | None:
        """Take the answer to what another member answered first; return the seconds, None if it is late."""
        sent_at, deadline = self.losers.pop(number, (now, now))
        if deadline <= now:
            return None
        self.health.measure(now - sent_at, now)
        return now - sent_at

    def forget_losers(self, now: float) -> None:
        """Wait no longer for what nobody can want any more, and note how long it was waited for."""
        for number in [number for number, (_, deadline) in self.losers.items() if deadline < now]:
            sent_at, _ = self.losers.pop(number)
            self.health.measure(now - sent_at, now)

    def close(self) -> None:
        """Close both sockets."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(0)


_EMPTY = wire.pack_body({})
