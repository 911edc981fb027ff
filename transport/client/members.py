"""The members of a pool: who is listed, who is ready, and who leads among those."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import zmq

from .choice import untried
from .lead import Lead
from .loop import Source, Sources
from .member import Member, Request, State


class Members:
    """The nodes that a pool may ask. Use it from the loop's thread only; times are time.monotonic seconds.

    Args:
        loop: watches their sockets.
        context: makes their sockets.
        answers: the source that reads what members send.
        links: the source that reads what happened to connections.

    Attributes:
        by_endpoint: all of them.
        ready: those whose last word was that they can serve.
        lead: who acts on the newest release.
    """

    def __init__(
        self, loop: Sources, context: zmq.Context[zmq.Socket[bytes]], answers: Source, links: Source
    ) -> None:
        self.by_endpoint: dict[str, Member] = {}
        self.ready: list[Member] = []
        self.lead = Lead()
        self._loop = loop
        self._context = context
        self._answers = answers
        self._links = links
        self._listed: frozenset[str] = frozenset()

    # -- who they are

    def set_listed(self, endpoints: Collection[str]) -> None:
        """Meet those that are new; those that are no longer listed stay until they are parted with."""
        self._listed = frozenset(endpoints)
        for endpoint in sorted(self._listed - set(self.by_endpoint)):
            self._meet(endpoint)

    def unlisted(self, *, keep: bool) -> list[Member]:
        """Return those that are no longer listed; `keep`: but not those that answer."""
        members = self.by_endpoint.values()
        return [one for one in members if one.endpoint not in self._listed and not (keep and one.stays)]

    def part_with(self, member: Member) -> list[Request]:
        """Let a member go; return what it held."""
        del self.by_endpoint[member.endpoint]
        self._loop.unwatch(member.socket)
        self._loop.unwatch(member.link)
        orphans = member.give_back()
        member.close()
        self._note()
        return orphans

    def renew(self, member: Member, now: float) -> None:
        """Connect anew through a load balancer where the old connection leads nowhere, or is old."""
        if member.route.is_old(now) and member.state is State.READY and len(self.ready) > 1:
            member.route.retiring = True
            self.turn(member, State.NOT_READY)
        if member.leads_nowhere(now):
            self.part_with(member)
            self._meet(member.endpoint)

    def close(self) -> None:
        """Close all sockets."""
        for member in self.by_endpoint.values():
            member.close()
        self.by_endpoint.clear()

    # -- what is known of them

    def states(self) -> dict[str, str]:
        """Return what is thought of each member, by endpoint."""
        return {endpoint: member.state.value for endpoint, member in self.by_endpoint.items()}

    def busy_s(self, now: float) -> float:
        """Return for how many seconds every member that could be asked has asked not to be (0: not so)."""
        return max(0.0, min([member.health.busy_until for member in self.ready], default=now) - now)

    def heard(self) -> tuple[int, int]:
        """Return the newest activation that a ready member told of in a pong, and its release; else zeros."""
        return max((member.acts_on for member in self.ready), default=(0, 0))

    def candidates(self, request: Request, now: float) -> Sequence[Member]:
        """Return who may be asked: another node behind another address, if there is one."""
        members = self.lead.among(self.ready, request, now)
        return untried(members, request) if request.tried else members

    # -- what becomes of them

    def turn(self, member: Member, state: State) -> bool:
        """Note what a member says of itself; True if that made it ready."""
        if member.route.retiring:
            state = State.NOT_READY
        if not member.connected or member.state is state:
            return False
        member.state = state
        self._note()
        if state is State.READY:
            member.health.welcome(time.monotonic())
            return True
        return False

    def learn(self, member: Member, activation: int) -> None:
        """Note on what a member acts; where that is new, ask the others whether they do by now."""
        if self.lead.learn(member, activation):
            for other in self.ready:
                other.ping()
        self._note()

    def leave_out(self, member: Member) -> bool:
        """Ask a member nothing more until it speaks; say whether it was ready."""
        was_ready = member.state is State.READY
        member.state = State.SILENT
        self._note()
        return was_ready

    def _meet(self, endpoint: str) -> None:
        member = Member(self._context, endpoint)
        self.by_endpoint[endpoint] = member
        self._loop.watch(member.socket, self._answers)
        self._loop.watch(member.link, self._links)

    def _note(self) -> None:
        self.ready = [member for member in self.by_endpoint.values() if member.state is State.READY]
        self.lead.note(self.ready, time.monotonic())
