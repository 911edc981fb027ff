"""What a pool has seen of one member: how fast it answers, and whether it errs.

The latency is a peak-sensitive moving average ("Peak EWMA" of Finagle's load balancer): a slow answer counts
at once and in full, and fades with time. A member that errs where another answers the same request is left
out for a while, then tried with one request, as Envoy's outlier detection does; one that is new or has come
back is given its share little by little (Envoy's slow start).
"""

from __future__ import annotations

import math

#: Seconds in which a latency peak fades to a third.
DECAY_S = 0.5
#: Latencies below this count as equal: so near to each other, outstanding work tells more.
_FLOOR_S = 0.0003
#: The share of the newest outcome in the error rate, and the rate at which a member is left out: five errors
#: in a row do it, or half of all over a longer time.
_ERROR_WEIGHT = 0.13
MAX_ERROR_RATE = 0.5
#: Seconds that a member is left out for errors, at first and at most; doubled each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0
#: Seconds in which a new or returned member grows to its full share, and the share that it starts with.
SLOW_START_S = 1.0
_FIRST_SHARE = 0.1


class Health:
    """Latency, error rate and age of one member. All times are time.monotonic seconds.

    Attributes:
        failing: whether it is left out for its errors.
        busy_until: until then it has asked not to be asked (`overloaded`).
    """

    __slots__ = (
        "_errors",
        "_failing_since",
        "_latency_s",
        "_measured_at",
        "_pause_s",
        "_probe_at",
        "_since",
        "busy_until",
        "failing",
    )

    def __init__(self) -> None:
        self.failing = False
        self.busy_until = 0.0
        self._errors = 0.0
        self._failing_since = 0.0
        self._latency_s = 0.0
        self._measured_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._probe_at = 0.0
        self._since = 0.0

    def welcome(self, now: float) -> None:
        """Note that it is new, or has come back."""
        self._since = now

    def measure(self, taken_s: float, now: float) -> None:
        """Take the time of an answer, or the time that was waited in vain."""
        fade = math.exp((self._measured_at - now) / DECAY_S)
        self._latency_s = max(taken_s, self._latency_s * fade + taken_s * (1.0 - fade))
        self._measured_at = now

    def latency_s(self, now: float) -> float:
        """Return the smoothed latency; it fades while nothing is measured: a slow one is tried again."""
        return self._latency_s * math.exp((self._measured_at - now) / DECAY_S)

    def cost(self, now: float, outstanding: int) -> float:
        """Return the load that one more request would meet here; the lower the better."""
        share = (now - self._since) / SLOW_START_S
        load = (self.latency_s(now) + _FLOOR_S) * (outstanding + 1)
        return load if share >= 1.0 else load / max(_FIRST_SHARE, share)

    def usable(self, now: float, outstanding: int) -> bool:
        """Say whether it should be asked: a failing one only now and then, with one request."""
        if self.failing:
            return now >= self._probe_at and not outstanding
        return now >= self.busy_until

    def probe(self, now: float) -> None:
        """Note that a failing member is sent a request: the next one waits twice as long."""
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)
        self._probe_at = now + self._pause_s

    def praise(self, sent_at: float, now: float) -> None:
        """Count an answer to what was sent at `sent_at`; a failing member is back with its probe's."""
        self._errors -= _ERROR_WEIGHT * self._errors
        if self.failing and sent_at > self._failing_since:
            self.failing = False
            self._errors = 0.0
            self._since = now
        elif not self.failing and self._errors < _ERROR_WEIGHT / 4:
            self._pause_s = FIRST_PAUSE_S

    def blame(self, now: float) -> bool:
        """Count an error that was the member's own; True if it is left out from here on."""
        self._errors += _ERROR_WEIGHT * (1.0 - self._errors)
        if self.failing or self._errors < MAX_ERROR_RATE:
            return False
        self.failing = True
        self._failing_since = now
        self._probe_at = now + self._pause_s
        return True
