"""The pool: the one way to call a redundant set of nodes.

It belongs to one thread and is served by that thread's loop. It asks the less loaded of two random
members ("The Power of Two Choices in Randomized Load Balancing", Mitzenmacher 2001), holds a deadline for
each request, and asks elsewhere at once when a member disconnects, says no, or misses three beats in a
row. A member that is left out is probed with every beat and comes back with its first answer. Scoring is
pure, so asking twice is safe: the first answer counts.
"""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass

import zmq

from . import wire
from .errors import (
    ClosedError,
    DeadlineExceededError,
    NodeFailedError,
    NoNodeError,
    OverloadedError,
    ScorewireError,
    UnavailableError,
)
from .loop import Loop
from .member import Member, Request, State
from .wire import Kind

#: Called once for each request, with the answer's frame or with the error.
Done = Callable[[bytes | Exception], None]

#: Seconds between two beats to each member.
BEAT_S = 0.05
#: Unanswered beats after which a member is silent.
MISSES = 3
#: Failed members after which a request is given up: it may itself be what kills them.
MAX_FAILURES = 3
#: Requests under way beyond which a caller is told `overloaded`.
MAX_IN_FLIGHT = 50_000
#: Answered requests that may wait for their deadline before they are let go.
_DEADLINES_KEPT = 1_000


@dataclass(slots=True)
class PoolStats:
    """What a pool has counted since it was made."""

    sent: int = 0
    answered: int = 0
    refused: int = 0
    retried: int = 0
    expired: int = 0
    late: int = 0
    ejected: int = 0
    unreadable: int = 0


class Pool:
    """A redundant set of nodes, as one caller sees it. Use it from the loop's thread only."""

    def __init__(
        self,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Collection[str] = (),
        *,
        beat_s: float = BEAT_S,
    ) -> None:
        self.stats = PoolStats()
        self._loop = loop
        self._context = context
        self._beat_s = beat_s
        self._next_beat = time.monotonic()
        self._members: dict[str, Member] = {}
        self._ids = itertools.count(1)
        self._deadlines: list[tuple[float, int, Request]] = []
        self._waiting: list[Request] = []
        self._in_flight = 0
        self._random = random.Random()  # noqa: S311 - balances load, keeps no secret
        loop.add(self)
        self.set_members(endpoints)

    def set_members(self, endpoints: Collection[str]) -> None:
        """Make these the members; what a leaving member holds is asked elsewhere."""
        for endpoint in set(self._members) - set(endpoints):
            member = self._members.pop(endpoint)
            self._loop.unwatch(member.socket)
            self._loop.unwatch(member.monitor)
            orphans = member.give_back()
            member.close()
            self._ask_elsewhere(orphans)
        for endpoint in sorted(set(endpoints) - set(self._members)):
            member = Member(self._context, endpoint)
            self._members[endpoint] = member
            self._loop.watch(member.socket, self)
            self._loop.watch(member.monitor, self)

    def states(self) -> dict[str, str]:
        """Return what the pool thinks of each member, by endpoint."""
        return {endpoint: member.state.value for endpoint, member in self._members.items()}

    def counters(self) -> dict[str, int]:
        """Return all counts, by name."""
        return {**asdict(self.stats), "in_flight": self._in_flight}

    def submit(self, kind: Kind, body: bytes, deadline: float, done: Done) -> None:
        """Ask one member, and another if need be, until the deadline (time.monotonic seconds).

        `done` is called once, in this thread: with the answer's frame, or with a ScorewireError.
        """
        request = Request(kind, body, deadline, done)
        if self._in_flight >= MAX_IN_FLIGHT:
            done(OverloadedError(f"{self._in_flight} requests are under way already"))
            return
        self._in_flight += 1
        heapq.heappush(self._deadlines, (deadline, next(self._ids), request))
        if len(self._deadlines) > 2 * self._in_flight + _DEADLINES_KEPT:
            self._forget_finished()
        self._ask(request)

    def due(self) -> float:
        """Return the time of the next beat or deadline."""
        while self._deadlines and self._deadlines[0][2].finished:
            heapq.heappop(self._deadlines)
        return min(self._next_beat, self._deadlines[0][0]) if self._deadlines else self._next_beat

    def _forget_finished(self) -> None:
        """Let go of answered requests: with long deadlines they would pile up until those have passed."""
        self._deadlines = [entry for entry in self._deadlines if not entry[2].finished]
        heapq.heapify(self._deadlines)

    def pump(self) -> None:
        """Read answers, link events and deadlines; beat when it is time."""
        for member in list(self._members.values()):
            for frame in member.frames():
                self._take(member, frame)
            for connected in member.link_events():
                if connected:
                    member.ping()
                else:
                    self._ask_elsewhere(self._not_given_up(self._eject(member), "the connection was lost"))
        now = time.monotonic()
        self._expire(now)
        if now >= self._next_beat:
            self._next_beat = now + self._beat_s
            self._beat()

    def close(self) -> None:
        """Fail what is under way with ClosedError, and close all sockets."""
        self._loop.remove(self)
        for member in self._members.values():
            member.close()
        self._members.clear()
        for _, _, request in self._deadlines:
            self._finish(request, ClosedError("the pool was closed while the request was under way"))
        self._deadlines.clear()

    # -- asking

    def _ask(self, request: Request) -> None:
        while candidates := self._candidates(request):
            chosen = self._less_loaded(candidates)
            request.tried.add(chosen.endpoint)
            if chosen.send(request, next(self._ids)):
                self.stats.sent += 1
                return
        self._waiting.append(request)

    def _candidates(self, request: Request) -> list[Member]:
        return [
            member
            for endpoint, member in self._members.items()
            if member.state is State.READY and endpoint not in request.tried
        ]

    def _less_loaded(self, candidates: list[Member]) -> Member:
        if len(candidates) == 1:
            return candidates[0]
        first, second = self._random.sample(candidates, 2)
        return min(first, second, key=lambda member: (len(member.held), member.latency_s))

    def _ask_elsewhere(self, requests: list[Request]) -> None:
        for request in requests:
            if not request.finished:
                self.stats.retried += 1
                self._ask(request)

    def _ask_waiting(self) -> None:
        """Try again what found nobody; any ready member will do, even one that was tried before."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            if not request.finished:
                request.tried.clear()
                self._ask(request)

    # -- being answered

    def _take(self, member: Member, frame: bytes) -> None:
        try:
            header = wire.unpack_header(frame)
            if header.kind is Kind.PONG:
                ready = wire.unpack_body(frame).get("state") == "ready"
                self._turn(member, State.READY if ready else State.NOT_READY)
            elif header.kind is Kind.GOODBYE:
                self._turn(member, State.NOT_READY)
            else:
                self._take_reply(member, header, frame)
        except wire.UnreadableError:
            self.stats.unreadable += 1

    def _take_reply(self, member: Member, header: wire.Header, frame: bytes) -> None:
        request, sent_at = member.held.pop(header.id, (None, 0.0))
        if request is None or request.finished:
            self.stats.late += 1
            return
        member.measure(sent_at)
        if header.kind is Kind.ANSWER:
            self.stats.answered += 1
            self._finish(request, frame)
            return
        self._take_error(request, wire.unpack_error(frame))

    def _take_error(self, request: Request, error: ScorewireError) -> None:
        """Ask elsewhere what another member may answer; hand the caller what nobody can mend."""
        request.drop()
        if type(error) is ScorewireError:  # `internal`, or a code of a newer node
            self._ask_elsewhere(self._not_given_up([request], error.detail))
        elif isinstance(error, UnavailableError) and self._candidates(request):
            self._ask_elsewhere([request])
        else:
            self.stats.refused += 1
            self._finish(request, error)

    def _not_given_up(self, requests: list[Request], why: str) -> list[Request]:
        """Count a failure of the node that held these; give up those that failed too many."""
        hopeful = []
        for request in requests:
            request.failures += 1
            if request.failures < MAX_FAILURES:
                hopeful.append(request)
            else:
                detail = f"{request.failures} nodes in turn failed while they held this request: {why}"
                self._finish(request, NodeFailedError(detail))
        return hopeful

    def _turn(self, member: Member, state: State) -> None:
        """Note what a member says of itself, and hand a member that became ready what waits."""
        if not member.connected:
            return
        became_ready = state is State.READY and member.state is not State.READY
        member.state = state
        if became_ready:
            self._ask_waiting()

    # -- time

    def _beat(self) -> None:
        for member in list(self._members.values()):
            if member.beat() >= MISSES and member.state is not State.SILENT:
                self._ask_elsewhere(self._eject(member))
        if self._waiting:
            self._ask_waiting()

    def _eject(self, member: Member) -> list[Request]:
        """Ask a member nothing more until it speaks; return what it held."""
        if member.state is State.READY:
            self.stats.ejected += 1
        member.state = State.SILENT
        return member.give_back()

    def _expire(self, now: float) -> None:
        while self._deadlines and self._deadlines[0][0] <= now:
            request = heapq.heappop(self._deadlines)[2]
            if not request.finished:
                self.stats.expired += 1
                self._finish(request, self._deadline_error(request))

    def _deadline_error(self, request: Request) -> ScorewireError:
        if request.asked:
            why = f"no answer in time, though it was sent {request.asked} times; the nodes: {self.states()}"
            return DeadlineExceededError(why)
        return NoNodeError(
            f"no node could be reached in time: {self.states()}; are the addresses right, and are nodes up?",
        )

    def _finish(self, request: Request, outcome: bytes | Exception) -> None:
        if not request.finished:
            request.finished = True
            request.drop()
            self._in_flight -= 1
            request.done(outcome)
