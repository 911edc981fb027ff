"""Growing pauses between tries."""

from __future__ import annotations

import random

#: Seconds of the first pause and of the longest.
FIRST_S, LONGEST_S = 0.1, 2.0
_FACTOR = 2.0
_JITTER = 0.2


class Backoff:
    """Doubling, jittered pauses, so that a thousand nodes do not knock at once."""

    def __init__(self, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def pause_s(self) -> float:
        """Return how long to wait now; the next time it is longer."""
        pause = self._next_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - jitter, no secret
        self._next_s = min(self._longest_s, self._next_s * _FACTOR)
        return pause

    def reset(self) -> None:
        """Begin again: it went well."""
        self._next_s = self._first_s
