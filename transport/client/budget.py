"""A budget: what may be done beyond the work that callers asked for.

A token bucket that each request fills by a share and each extra empties by one, as the retry budgets of
Finagle and gRPC (proposal A6) do: extras are a bounded share of the load however long trouble lasts.
"""

from __future__ import annotations


class Budget:
    """A token bucket. Use it from one thread.

    Args:
        share: extras for each request, in the long run.
        burst: extras that may come at once; it starts with these.
    """

    __slots__ = ("_burst", "_share", "_tokens")

    def __init__(self, share: float, burst: float) -> None:
        self._share = share
        self._burst = burst
        self._tokens = burst

    def fill(self) -> None:
        """Count a request."""
        self._tokens = min(self._burst, self._tokens + self._share)

    def take(self) -> bool:
        """Spend on one extra; False if nothing is left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
