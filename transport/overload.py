"""What tells a burst from overload.

A burst may wait its whole deadline; where the wait has stood above a small share of the deadlines for a
while, a request is admitted only where it would wait for no more than that: so what is admitted is answered
soon, and the excess refused at once. After the controlled delay of Nichols and Jacobson ("Controlling Queue
Delay", ACM Queue 2012) as Facebook's servers have it (Maurer, "Fail at Scale", ACM Queue 2015); what was
refused keeps the overload standing, since whoever refuses keeps the queue short.
"""

from __future__ import annotations

import math

#: Seconds for which all must have waited long before it is overload, and none be refused before it is over,
#: or no more than a share of what came.
WINDOW_S, FEW_SHARE = 0.1, 0.1
#: The first of them where it was overload a few seconds ago: what comes back then is no burst.
AGAIN_S, AGAIN_WINDOW_S = 2.0, 0.01
#: The share of its deadline that is a long wait; seconds, or half of its time, that are not in any case.
LONG_SHARE, LONG_S = 0.05, 0.005
#: The same of the wait that a request may have in overload, and for how many others it may wait in any case.
#: It is shorter than a long one, since one that is admitted waits elsewhere as well, and long enough for the
#: slices of work to be whole.
HURRIED_SHARE, HURRIED_S, HURRIED_TIMES = 0.01, 0.001, 16
#: Seconds that are left for the rest of the way where a caller gives more: it is in no hurry, and may wait.
PATIENT_S = 1.0


class Overload:
    """Tells a burst from overload, for one priority; all times are time.monotonic seconds.

    Attributes:
        standing: whether it is overload.
    """

    __slots__ = ("_asked", "_counts_from", "_over_at", "_refused", "_refused_at", "_well_at", "standing")

    def __init__(self) -> None:
        self.standing = False
        self._well_at = self._refused_at = self._over_at = -math.inf
        self._count(-math.inf)

    def limit_s(self, wait_s: float, left_s: float, least_s: float, now: float) -> float:
        """Return for how long a request may wait that has `left_s`, where one in no turn would `wait_s`.

        `least_s`: seconds that it may in any case, if it has twice that.
        """
        patient_s = left_s - PATIENT_S
        if wait_s <= max(min(left_s / 2, max(LONG_S, least_s)), left_s * LONG_SHARE, patient_s):
            self._well_at = now
        if self.standing:
            self.standing = self._lasts(now)
            self._over_at = now
        else:
            window_s = AGAIN_WINDOW_S if now - self._over_at < AGAIN_S else WINDOW_S
            self.standing = now - self._well_at >= window_s
            self._count(now)
        if self.standing:
            return max(min(left_s / 2, max(HURRIED_S, least_s)), left_s * HURRIED_SHARE, patient_s)
        return left_s

    def is_well(self, now: float) -> None:
        """Note that nobody waits, where it is no overload."""
        self._well_at = now
        self._count(now)

    def refuse(self, now: float) -> None:
        """Note that a request was refused."""
        self._refused_at = now
        self._refused += 1

    def _lasts(self, now: float) -> bool:
        """Say whether enough was refused of late: below its capacity a node's queue is not empty either."""
        if now - self._refused_at >= WINDOW_S:
            return False
        if now - self._counts_from >= WINDOW_S:
            if self._refused < FEW_SHARE * self._asked:
                return False
            self._count(now)
        self._asked += 1
        return True

    def _count(self, now: float) -> None:
        self._counts_from = now
        self._asked = self._refused = 0
