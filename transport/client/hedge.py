"""Hedging: a request that takes longer than nineteen of twenty is asked a second time elsewhere.

"The Tail at Scale" (Dean and Barroso, CACM 2013): a few percent of extra load cut the slow tail. The budget
holds the extra load there when everything is slow at once, since then asking twice only adds to it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from .budget import Budget
from .member import Request

#: Extras for each request in the long run, and at once.
SHARE, BURST = 0.03, 8.0
#: Which of the observed latencies must have passed.
QUANTILE = 0.95
#: Latencies that are kept, and how many it takes before anything is hedged.
_KEPT, _ENOUGH = 512, 40
#: Seconds before which nothing is hedged: timers are no finer.
_FLOOR_S = 0.001


class Hedger:
    """Says which requests to ask a second time, and when.

    Attributes:
        after_s: seconds after its first asking that a request is asked again; infinite until enough is known.
    """

    def __init__(self) -> None:
        self.after_s = math.inf
        self._latencies: deque[float] = deque(maxlen=_KEPT)
        self._open: deque[Request] = deque()
        self._budget = Budget(SHARE, BURST)

    def watch(self, request: Request) -> None:
        """Take a request that was just sent for the first time."""
        self._budget.fill()
        self._open.append(request)

    def measure(self, taken_s: float) -> None:
        """Take the latency of one asking."""
        self._latencies.append(taken_s)

    def settle(self) -> None:
        """Work out the quantile; called with each beat, since sorting costs more than an answer may."""
        if len(self._latencies) >= _ENOUGH:
            ordered = sorted(self._latencies)
            self.after_s = max(_FLOOR_S, ordered[int(QUANTILE * len(ordered))])

    def due(self) -> float:
        """Return when the next request is to be asked again (time.monotonic seconds)."""
        waiting = self._open
        while waiting and waiting[0].finished:
            waiting.popleft()
        return waiting[0].sent_at + self.after_s if waiting else math.inf

    def ripe(self, now: float) -> Iterator[Request]:
        """Take the requests out whose time has come, as long as there is a budget for them."""
        while self.due() <= now:
            request = self._open.popleft()
            # One that was asked elsewhere meanwhile, for whatever reason, has had its second chance.
            if request.asked == 1 and self._budget.take():
                yield request
