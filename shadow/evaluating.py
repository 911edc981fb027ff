"""The step that evaluates: a batch goes to the candidate of each shadow that runs, all at once."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

from governance.shadows import Shadow
from shadow.batch import Arrived, Batch, dead, result_row
from shadow.errors import ShadowBrokenError, Stopped
from shadow.result import ResultRow, sampled
from shadow.runner import Poison, Process, ShadowRunner

logger = logging.getLogger(__name__)

#: Records that a shadow refuses one after another, having taken none, until it is given up.
REFUSED_IN_A_ROW: Final = 1000
_AT_ONCE = 64

#: One running of a shadow: one that is started again is another.
Running = tuple[int, datetime]


class Evaluating:
    """Hands batches to the candidates of the shadows that run, and collects what comes of it.

    Args:
        start: starts a process for a shadow.
        shadows: returns the shadows that run.
        stop: set when the node stops.
    """

    def __init__(
        self,
        start: Callable[[Shadow], Process],
        shadows: Callable[[], Sequence[Shadow]],
        stop: threading.Event,
    ) -> None:
        self._start = start
        self._shadows = shadows
        self._stop = stop
        self._runners: dict[Running, _Kept] = {}
        self._broken: dict[Running, str] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, "candidate")

    def broken(self) -> Mapping[Running, str]:
        """Return the shadows that were given up, and why."""
        return dict(self._broken)

    def counters(self) -> dict[int, dict[str, int]]:
        """Return shadow's number to counter to number, in this life of the node."""
        return {
            shadow: {**kept.counts, "died": kept.runner.died}
            for (shadow, _), kept in list(self._runners.items())
        }

    def __call__(self, batch: Batch) -> None:
        """Evaluate a batch, and leave the results in it.

        Raises:
            Stopped: the node stops before all of it is evaluated.
        """
        running = {(s.id, s.state_at): s for s in self._shadows()}
        for key in self._runners.keys() - running.keys():
            self._runners.pop(key).runner.close()
        for key in self._broken.keys() - running.keys():
            del self._broken[key]
        wanted = [shadow for key, shadow in running.items() if key not in self._broken]
        if batch.records:
            list(self._pool.map(lambda shadow: self._evaluate(shadow, batch), wanted))

    def close(self) -> None:
        """End all processes."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for kept in self._runners.values():
            kept.runner.close()

    def _evaluate(self, shadow: Shadow, batch: Batch) -> None:
        key = (shadow.id, shadow.state_at)
        kept = self._runners.get(key)
        if kept is None:
            kept = _Kept(ShadowRunner(lambda: self._start(shadow), self._stop))
            self._runners[key] = kept
        records = [one for one in batch.records if sampled(one.rank, shadow.sample)]
        if not records:
            return
        try:
            found = kept.runner.evaluate([one.raw for one in records])
            if found is None:
                raise Stopped
            batch.rows[shadow.id] = kept.sort(shadow, records, found, batch)
        except ShadowBrokenError as error:
            logger.error("shadow %s is given up: %s", shadow.name, error)  # noqa: TRY400 - it says all
            self._broken[key] = str(error)
            kept.runner.close()


class _Kept:
    """A shadow's runner, and what was counted of it."""

    def __init__(self, runner: ShadowRunner) -> None:
        self.runner = runner
        self.counts = collections.Counter(evaluated=0, refused=0, poison=0)
        self._refused_in_a_row = 0
        self._took = False

    def sort(
        self, shadow: Shadow, records: Sequence[Arrived], found: Sequence[Any], batch: Batch
    ) -> list[ResultRow]:
        """Return the results; what was refused, or kills the candidate, becomes a dead letter.

        Raises:
            ShadowBrokenError: it refuses whatever it is given.
        """
        rows, letters = [], []
        for one, evaluated in zip(records, found, strict=True):
            if isinstance(evaluated, list):
                rows.append(result_row(shadow, one.record, evaluated))
                continue
            why = evaluated.reason if isinstance(evaluated, Poison) else evaluated
            self.counts["poison" if isinstance(evaluated, Poison) else "refused"] += 1
            letters.append(dead(one.message, why, shadow.name))
        self._took = self._took or bool(rows)
        self._refused_in_a_row = 0 if rows else self._refused_in_a_row + len(letters)
        if not self._took and self._refused_in_a_row >= REFUSED_IN_A_ROW:
            raise ShadowBrokenError(f"it refuses every transaction: {letters[-1].reason}")
        self.counts["evaluated"] += len(rows)
        batch.dead.extend(letters)
        return rows
