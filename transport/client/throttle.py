"""A caller's own restraint: what its nodes would refuse most likely is refused before it is sent.

Even to say no costs a node something; a caller that goes on asking takes from the work that is done. After
"Client-Side Throttling" (Site Reliability Engineering, chapter 21, "Handling Overload").
"""

from __future__ import annotations

import math
import random

#: How many times as much is sent as the nodes take, and the share of all that is sent in any case: so a
#: caller finds out when they take more, and is back at its full rate within a second or two.
EXCESS, LEAST = 1.25, 0.2
#: Seconds in which what was counted fades to a third.
_FADE_S = 0.2
#: Outcomes below which nothing is concluded.
_ENOUGH = 20.0


class Throttle:
    """Counts what becomes of requests, and says which ones not to send. Use it from one thread."""

    __slots__ = ("_counted_at", "_random", "_refused", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._refused = 0.0
        self._counted_at = 0.0
        self._random = random.Random()  # noqa: S311 - thins out load, keeps no secret

    def admits(self) -> bool:
        """Say whether to send the next request. One that is not sent counts as refused."""
        if not self._refused or self._total < _ENOUGH:
            return True
        excess = (self._total - EXCESS * (self._total - self._refused)) / (self._total + 1.0)
        if excess <= 0.0 or self._random.random() >= min(excess, 1.0 - LEAST):
            return True
        self._total += 1.0
        self._refused += 1.0
        return False

    def note(self, now: float, *, refused: bool) -> None:
        """Count an outcome (now: time.monotonic seconds)."""
        fade = math.exp((self._counted_at - now) / _FADE_S)
        self._counted_at = now
        self._total = self._total * fade + 1.0
        self._refused = self._refused * fade + refused
        if self._refused < _NOTHING:
            self._refused = 0.0


_NOTHING = 0.01
