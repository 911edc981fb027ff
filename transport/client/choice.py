"""The choice among members: the less loaded of two that are drawn at random.

"The Power of Two Choices in Randomized Load Balancing" (Mitzenmacher, 2001): callers that know nothing of
each other do not all run to the one node that looked best a moment ago.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from .member import Member, Request

_random = random.Random()  # noqa: S311 - balances load, keeps no secret


def choose(members: Sequence[Member], now: float) -> Member | None:
    """Return the member to ask; None if there is none. One that is busy or errs is better than none."""
    if len(members) <= 1:
        return members[0] if members else None
    one, two = _two_of(members)
    if not (one.usable(now) and two.usable(now)):
        members = [member for member in members if member.usable(now)] or members
        if len(members) == 1:
            return members[0]
        one, two = _two_of(members)
    return one if one.cost(now) <= two.cost(now) else two


def cheapest(members: Sequence[Member], now: float) -> Member | None:
    """Return who is to be asked a second time for what takes long; None where nobody should be."""
    usable = [member for member in members if member.usable(now)]
    return min(usable, key=lambda member: member.cost(now)) if usable else None


def untried(members: Sequence[Member], request: Request) -> list[Member]:
    """Return whom to ask further: another node behind another address, if there is one."""
    tried = request.tried
    fresh = [member for member in members if member not in tried]
    nodes = {member.route.node for member in tried} | request.failed
    fresh = [member for member in fresh if member.route.node not in nodes] or fresh
    addresses = {member.route.address for member in tried}
    return [member for member in fresh if member.route.address not in addresses] or fresh


def _two_of(members: Sequence[Member]) -> tuple[Member, Member]:
    # random.sample takes ten times as long.
    first = int(_random.random() * len(members))
    second = int(_random.random() * (len(members) - 1))
    return members[first], members[second + (second >= first)]
