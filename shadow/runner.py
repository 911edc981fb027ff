"""Runs one shadow's candidate, whatever it does: restarts it, finds the record that kills it, gives it up."""

from __future__ import annotations

import collections
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from governance.backoff import Backoff
from shadow.errors import CandidateDiedError, CandidateWaitsError, ShadowBrokenError

logger = logging.getLogger(__name__)

#: Tries of one record alone before it counts as poison.
TRIES: Final = 2
#: Records that kill it one after another, or starts that fail, until a shadow is given up.
IN_A_ROW: Final = 3
#: Deaths within PERIOD_S seconds until a shadow is given up.
DEATHS: Final = 60
PERIOD_S: Final = 600.0
#: Seconds of the first pause before a restart, and of the longest.
_FIRST_S, _LONGEST_S = 0.05, 1.0


class Process(Protocol):
    """A candidate's process; see shadow.process.CandidateProcess."""

    def evaluate(self, records: Sequence[bytes]) -> list[Any]:
        """Have records evaluated."""

    def stop(self) -> None:
        """End it."""


class Poison:
    """That a record kills its candidate, and how."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class ShadowRunner:
    """Evaluates batches with a candidate that may die of any of them.

    Args:
        start: starts the candidate's process.
        stop: set when the node stops; waiting ends then.
        backoff: the pauses between restarts.
    """

    def __init__(
        self, start: Callable[[], Process], stop: threading.Event, backoff: Backoff | None = None
    ) -> None:
        self._start = start
        self._stop = stop
        self._process: Process | None = None
        self._backoff = backoff or Backoff(_FIRST_S, _LONGEST_S)
        self._deaths: collections.deque[float] = collections.deque(maxlen=DEATHS)
        self._fatal = 0
        #: Lives of the process that ended otherwise than asked.
        self.died = 0

    def evaluate(self, records: Sequence[bytes]) -> list[Any] | None:
        """Evaluate records.

        A batch that kills the process is cut where the process says that it was, or in halves, until the
        record is alone that kills it, which is poison then.

        Returns:
            for each record what CandidateProcess.evaluate gives, or Poison; None if the node stops.

        Raises:
            ShadowBrokenError: it is of no use to go on; says why.
        """
        found: list[Any] = [None] * len(records)
        tries: collections.Counter[int] = collections.Counter()
        left = [(0, len(records))]
        while left:
            low, high = left.pop()
            try:
                results = self._ask(records[low:high])
            except CandidateDiedError as error:
                self._note_death(str(error))
                left.extend(self._next_tries(low, high, tries, found, error))
                continue
            if results is None:
                return None
            found[low:high] = results
            self._fatal = 0
            self._backoff.reset()
        return found

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def _ask(self, records: Sequence[bytes]) -> list[Any] | None:
        """Ask a process that lives, for as long as it says that it has to wait; None if the node stops."""
        while not self._stop.is_set():
            process = self._process or self._started()
            if process is None:
                return None
            self._process = process
            try:
                return process.evaluate(records)
            except CandidateWaitsError as error:
                logger.warning("a candidate waits: %s", error)
                self._stop.wait(self._backoff.pause_s())
            except CandidateDiedError:
                self._process = None
                raise
        return None

    def _started(self) -> Process | None:
        """Start a process, again and again with growing pauses; None if the node stops."""
        for _ in range(IN_A_ROW):
            if self.died and self._stop.wait(self._backoff.pause_s()):
                return None
            try:
                return self._start()
            except CandidateDiedError as error:
                reason = str(error)
                self._note_death(reason)
        raise ShadowBrokenError(f"its process does not start: {reason}")

    def _next_tries(
        self,
        low: int,
        high: int,
        tries: collections.Counter[int],
        found: list[Any],
        died: CandidateDiedError,
    ) -> list[tuple[int, int]]:
        """Say which parts of a batch to try after it killed the process, the last one first."""
        reason = str(died)
        if high - low > 1:
            suspect = low + died.place
            if not low <= suspect < high:
                middle = (low + high) // 2
                return [(middle, high), (low, middle)]
            tries[suspect] += 1
            parts = [(suspect + 1, high), (suspect, suspect + 1), (low, suspect)]
            return [part for part in parts if part[0] < part[1]]
        tries[low] += 1
        if tries[low] < TRIES:
            return [(low, high)]
        found[low] = Poison(reason)
        self._fatal += 1
        if self._fatal >= IN_A_ROW:
            raise ShadowBrokenError(f"{self._fatal} records after another killed its process: {reason}")
        return []

    def _note_death(self, reason: str) -> None:
        self.died += 1
        logger.warning("a candidate's process died: %s", reason)
        now = time.monotonic()
        self._deaths.append(now)
        if len(self._deaths) == DEATHS and now - self._deaths[0] < PERIOD_S:
            raise ShadowBrokenError(f"its process died {DEATHS} times in {PERIOD_S:.0f} s, last: {reason}")
