"""Which members act on the newest release that any of them has told of: for them alone a caller waits.

Nodes take a new release over one after the other, some milliseconds apart. A caller that has heard of it from
one and asked another next would be led back to what it has seen end. So it asks those who lead, and the
others as soon as they have told of it too, which they are asked for at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .member import Member, Request

#: Seconds in which those who are left have to learn of the newest release, where all who knew it are gone.
BEHIND_S = 0.25


class Lead:
    """Who leads among the members of a pool. All times are time.monotonic seconds.

    Attributes:
        members: those of the ready ones who act on the newest release, and those who do not say on what.
        newest: the largest activation that any member has told of.
    """

    __slots__ = ("_lost_at", "members", "newest")

    def __init__(self) -> None:
        self.members: Sequence[Member] = ()
        self.newest = 0
        self._lost_at = math.inf

    def learn(self, member: Member, activation: int) -> bool:
        """Note on what a member acts; True if nobody told of that before."""
        member.activation = activation
        news = activation > self.newest
        self.newest = max(self.newest, activation)
        return news

    def note(self, ready: Sequence[Member], now: float) -> None:
        """See who leads among those who are ready."""
        # A node of an older version says 0.
        self.members = [one for one in ready if not one.activation or one.activation >= self.newest]
        if self.members or not ready:
            self._lost_at = math.inf
        else:
            self._lost_at = min(self._lost_at, now)

    def among(self, ready: Sequence[Member], request: Request, now: float) -> Sequence[Member]:
        """Return who may be asked. Where nobody leads, a request without time to wait takes what there is."""
        if request.newest and (self.members or request.deadline - now > BEHIND_S):
            return self.members
        return ready

    def awaits(self, ready: Sequence[Member], request: Request) -> bool:
        """Say whether somebody may be asked once he has learned of the newest release."""
        return request.newest and len(self.members) < len(ready)

    def follow(self, ready: Sequence[Member], now: float) -> bool:
        """Let those lead who are left, where they have not learned in time of what the lost ones knew."""
        if now - self._lost_at < BEHIND_S:
            return False
        self.newest = max(member.activation for member in ready)
        self.note(ready, now)
        return True
