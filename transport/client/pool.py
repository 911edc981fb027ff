"""The pool: the one way to call a redundant set of nodes.

It belongs to one thread and is served by that thread's loop. It asks the less loaded of two random members,
by outstanding work and latency; holds a deadline for each request; asks elsewhere at once when a member
disconnects, says no, or misses three beats in a row, and a second time what is slow. A member that is left
out is probed and comes back with its first answer. Scoring is pure, so asking twice is safe: the first
answer counts. Where it matters which release answers, only those are asked who act on the newest that any
member has told of, so that no caller is led back to one that it has seen end.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection
from dataclasses import asdict

import zmq

from . import wire
from .budget import Budget
from .choice import cheapest, choose
from .deadlines import Deadlines, too_late
from .errors import (
    ClosedError,
    NodeFailedError,
    NoNodeError,
    OverloadedError,
    ScorewireError,
    UnknownReleaseError,
)
from .hedge import Hedger
from .loop import Reader, Sources
from .member import Member, Request, State
from .members import Members
from .stats import PoolStats
from .throttle import Throttle
from .wire import Kind

#: Called once for each request, with the answer's frame or with the error.
Done = Callable[[bytes | Exception], None]

#: Seconds between two beats to each member.
BEAT_S = 0.05
#: Unanswered beats after which a member is silent.
MISSES = 3
#: Requests under way beyond which a caller is told `overloaded`.
MAX_IN_FLIGHT = 50_000
#: Repetitions after an error for each request, in the long run and at once. What was lost with a node is
#: asked elsewhere without a budget: it replaces work and adds none.
RETRY_SHARE, RETRY_BURST = 0.2, 1_000.0
#: Seconds that a member which said `overloaded`, and not for how long, is spared.
_BUSY_S = 0.02
_LOST = "the connection was lost"


class Pool:
    """A redundant set of nodes, as one caller sees it. Use it from the loop's thread only."""

    def __init__(
        self,
        loop: Sources,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoints: Collection[str] = (),
        *,
        beat_s: float = BEAT_S,
    ) -> None:
        self.stats = PoolStats()
        self._loop = loop
        self._beat_s = beat_s
        self._next_beat = time.monotonic()
        self._links = Reader(self._read_links)
        self._members = Members(loop, context, self, self._links)
        self._hedger = Hedger()
        self._retries = Budget(RETRY_SHARE, RETRY_BURST)
        self._throttle = Throttle()
        self._ids = itertools.count(1)
        self._deadlines = Deadlines[Request]()
        self._waiting: list[Request] = []
        self._in_flight = 0
        loop.add(self)
        loop.add(self._links)
        self.set_members(endpoints)

    def set_members(self, endpoints: Collection[str], *, keep: bool = False) -> None:
        """Make these the members; what a leaving member holds is asked elsewhere.

        `keep`: who answers stays for as long as that lasts. Where a list may be wrong, its own word counts.
        """
        self._members.set_listed(endpoints)
        self._part_with_unlisted(keep=keep)

    def _part_with_unlisted(self, *, keep: bool) -> None:
        for member in self._members.unlisted(keep=keep):
            self._ask_elsewhere(self._members.part_with(member))

    def states(self) -> dict[str, str]:
        """Return what the pool thinks of each member, by endpoint."""
        return self._members.states()

    def busy_s(self, now: float) -> float:
        """Return for how many seconds every member that could be asked has asked not to be (0: not so)."""
        return self._members.busy_s(now)

    def heard(self) -> tuple[int, int]:
        """Return the newest activation that a ready member told of in a pong, and its release; else zeros."""
        return self._members.heard()

    def counters(self) -> dict[str, int]:
        """Return all counts, by name."""
        return {**asdict(self.stats), "in_flight": self._in_flight, "newest": self._members.lead.newest}

    def submit(
        self, kind: Kind, body: bytes, until: float, done: Done, *, newest: bool = False, failed: int = 0
    ) -> None:
        """Ask one member, and another if need be, until the deadline (time.monotonic seconds).

        `done` is called once, in this thread: with the answer's frame, or with a ScorewireError. `newest`:
        ask none who acts on an older release than another told of. `failed`: by how many nodes before.
        """
        request = Request(kind, body, until, done, newest, failures=failed)
        if self._in_flight >= MAX_IN_FLIGHT:
            done(OverloadedError(f"{self._in_flight} requests are under way already", retry_after=_BUSY_S))
            return
        if not self._throttle.admits():
            self.stats.throttled += 1
            done(OverloadedError("the nodes refuse more than they take: slow down", retry_after=_BUSY_S))
            return
        self._in_flight += 1
        self._retries.fill()
        self._deadlines.add(request, self._in_flight)
        if self._ask(request) and len(self._members.ready) > 1:
            self._hedger.watch(request)

    def due(self) -> float:
        """Return the time of the next beat, deadline or second asking."""
        return min(self._next_beat, self._hedger.due(), self._deadlines.due())

    def pump(self) -> bool:
        """Read answers and deadlines; beat when it is time. Say whether more may be there."""
        for member in list(self._members.by_endpoint.values()):
            for frame in member.frames():
                self._take(member, frame)
        now = time.monotonic()
        self._expire(now)
        self._hedge(now)
        if now >= self._next_beat:
            self._next_beat = now + self._beat_s
            self._beat(now)
        return True in [member.has_more for member in self._members.by_endpoint.values()]

    def _read_links(self) -> bool:
        """Read what happened to connections, behind what came over them."""
        more = self.pump()
        orphans: list[tuple[Request, str]] = []
        for member in list(self._members.by_endpoint.values()):
            if member.has_lost_its_link():
                orphans += [(request, member.route.node) for request in self._eject(member)]
        # All of them first: with a load balancer many connections end at once.
        self._ask_elsewhere(self._not_given_up(orphans, _LOST))
        return more

    def close(self) -> None:
        """Fail what is under way with ClosedError, and close all sockets."""
        self._loop.remove(self)
        self._loop.remove(self._links)
        self._members.close()
        for request in self._deadlines.take_all():
            self._finish(request, ClosedError("the pool was closed while the request was under way"))

    # -- asking

    def _ask(self, request: Request) -> bool:
        now = time.monotonic()
        while (chosen := choose(self._members.candidates(request, now), now)) is not None:
            request.tried.append(chosen)
            if chosen.send(request, next(self._ids), now):
                self.stats.sent += 1
                return True
        self._waiting.append(request)
        return False

    def _hedge(self, now: float) -> None:
        """Ask a second member what takes long; the answer that comes first counts."""
        for request in self._hedger.ripe(now):
            chosen = cheapest(self._members.candidates(request, now), now)
            request.tried += [chosen] if chosen else []
            if chosen and chosen.send(request, next(self._ids), now):
                request.hedge = chosen
                self.stats.sent += 1
                self.stats.hedged += 1

    def _ask_elsewhere(self, requests: list[Request]) -> None:
        for request in requests:
            if not request.finished and not request.holders:
                self.stats.retried += 1
                self._ask(request)

    def _ask_waiting(self) -> None:
        """Try again what found nobody; any ready member will do, even one that was tried before."""
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            # Where it is held by one that has come back, its answer is on the way.
            if not request.finished and not any(m.state is State.READY for m, _ in request.holders):
                request.tried.clear()
                self._ask(request)

    # -- being answered

    def _take(self, member: Member, frame: bytes) -> None:
        try:
            header = wire.unpack_header(frame)
            if header.number != member.activation:
                self._members.learn(member, header.number)
                self._ask_waiting()
            if header.kind is Kind.PONG:
                self._turn(member, member.hear(header.number, wire.unpack_body(frame)))
            elif header.kind is Kind.GOODBYE:
                member.route.retiring = member.route.balanced
                self._turn(member, State.NOT_READY)
            else:
                self._take_reply(member, header, frame)
        except wire.UnreadableError:
            self.stats.unreadable += 1

    def _take_reply(self, member: Member, header: wire.Header, frame: bytes) -> None:
        now = time.monotonic()
        request, sent_at = member.held.pop(header.id, (None, 0.0))
        if request is None:
            self._take_loser(member, header.id, now)
            return
        request.holders.remove((member, header.id))
        member.health.measure(now - sent_at, now)
        self._hedger.measure(now - sent_at)
        if header.kind is not Kind.ANSWER:
            self._take_error(request, member, wire.unpack_error(frame), now)
            return
        member.health.praise(sent_at, now)
        self.stats.answered += 1
        self._throttle.note(now, refused=False)
        self.stats.hedges_won += request.hedge is member
        for accused in request.accused:
            self.stats.failing += accused.health.blame(now)
        self._finish(request, frame)

    def _take_loser(self, member: Member, number: int, now: float) -> None:
        taken_s = member.take_loser(number, now)
        if taken_s is None:
            self.stats.late += 1
            return
        self.stats.duplicates += 1
        self._hedger.measure(taken_s)

    def _take_error(self, request: Request, member: Member, error: ScorewireError, now: float) -> None:
        """Ask elsewhere what another member may answer; hand the caller what nobody can mend."""
        if isinstance(error, OverloadedError):
            member.health.busy_until = now + (error.retry_after or _BUSY_S)
        elif type(error) is ScorewireError or isinstance(error, UnknownReleaseError):
            request.accused += (member,)
        if request.holders:  # another member may still answer it
            return
        if type(error) is ScorewireError:  # `internal`, or a code of a newer node
            hopeful = self._not_given_up([(request, member.route.node)], error.detail)
        else:
            members = self._members
            others = members.candidates(request, now) or members.lead.awaits(members.ready, request)
            hopeful = [request] if others and isinstance(error, _ELSEWHERE) else []
        if hopeful and self._retries.take():
            self._ask_elsewhere(hopeful)
        elif not request.finished:
            self.stats.unaffordable += bool(hopeful)
            self.stats.refused += 1
            self._throttle.note(now, refused=isinstance(error, OverloadedError))
            self._finish(request, error)

    def _not_given_up(self, orphans: list[tuple[Request, str]], why: str) -> list[Request]:
        """Count a failure of the nodes that held these; give up those that saw too many."""
        hopeful = []
        for request, node in orphans:
            if request.survives(node, lost=why == _LOST):
                hopeful.append(request)
            elif not request.holders:
                detail = f"{request.failures} nodes in turn failed while they held this request: {why}"
                self._finish(request, NodeFailedError(detail))
        return hopeful

    def _turn(self, member: Member, state: State) -> None:
        """Note what a member says of itself, and hand a member that became ready what waits."""
        if self._members.turn(member, state):
            self._ask_waiting()

    # -- time

    def _beat(self, now: float) -> None:
        for member in list(self._members.by_endpoint.values()):
            if member.beat() >= MISSES and member.state is not State.SILENT:
                self._fall_silent(member)
            member.forget_losers(now)
            if member.route.balanced:
                self._members.renew(member, now)
        self._hedger.settle()
        self._part_with_unlisted(keep=True)
        self.stats.behind += self._members.lead.follow(self._members.ready, now)
        self._ask_waiting()

    def _fall_silent(self, member: Member) -> None:
        """Ask a member nothing more until it speaks, and others what it holds; its answer still counts."""
        if member.route.balanced:  # another connection is made in its place, and hears no more of this one
            self._ask_elsewhere(self._eject(member))
            return
        self._leave_out(member)
        for request in [held for held, _ in member.held.values()]:
            if len(request.holders) == 1:
                self.stats.retried += 1
                self._ask(request)

    def _eject(self, member: Member) -> list[Request]:
        """Ask a member nothing more until it speaks; return what it held, and what is lost."""
        self._leave_out(member)
        return member.give_back()

    def _leave_out(self, member: Member) -> None:
        self.stats.ejected += self._members.leave_out(member)

    def _expire(self, now: float) -> None:
        for request in self._deadlines.passed(now):
            self.stats.expired += 1
            for member, _ in request.holders:
                member.health.measure(now - request.sent_at, now)
            self._finish(request, too_late(request, self.states()))

    def _finish(self, request: Request, outcome: bytes | Exception) -> None:
        if not request.finished:
            request.finished = True
            request.drop()
            self._in_flight -= 1
            request.done(outcome)


#: What another node may answer. Those that failed as a group, or out of time, are not asked in another group.
_ELSEWHERE = (OverloadedError, UnknownReleaseError, NoNodeError)
