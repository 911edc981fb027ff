"""Says what a preprocessor counted of drift: to the database every few seconds, to the log every minute."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from actors.state import Loaded, NodeState
from governance.drift import report_drift
from models.features.drift import DriftCounter, figures

logger = logging.getLogger(__name__)

#: Seconds between two reports of a counter to the database, and to the log.
REPORT_S, LOG_S = 5.0, 60.0
#: Fields that the log names: those that moved most.
_NAMED = 3

Do = Callable[[Callable[[psycopg.Connection[Any]], None]], bool]


class DriftWatch:
    """Reports the drift counters of a node's releases.

    Args:
        state: of the node.
    """

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._told: dict[DriftCounter, int] = {}
        self._logged: dict[DriftCounter, int] = {}
        self._report_at = self._log_at = 0.0

    def tell(self, do: Do, *, now: bool = False) -> None:
        """Report what was counted since the last time, if it is time, or now."""
        if now or time.monotonic() >= self._report_at:
            self._report_at = time.monotonic() + REPORT_S
            self._told = self._fresh(self._told, lambda *which: self._report(do, *which))
        if now or time.monotonic() >= self._log_at:
            self._log_at = time.monotonic() + LOG_S
            self._logged = self._fresh(self._logged, _log)

    def _fresh(
        self, told: dict[DriftCounter, int], tell: Callable[[Loaded, str, DriftCounter], bool]
    ) -> dict[DriftCounter, int]:
        """Tell each counter that has counted since; return what is told by now, of those that are held."""
        found = {}
        for loaded, stage, counter in self._counters():
            before, count = told.get(counter, 0), counter.seen + sum(counter.refused.values())
            found[counter] = count if count == before or tell(loaded, stage, counter) else before
        return found

    def _counters(self) -> Iterator[tuple[Loaded, str, DriftCounter]]:
        for loaded in self._state.holdings.releases.values():
            for stage, counter in loaded.drift.items():
                yield loaded, stage, counter

    def _report(self, do: Do, loaded: Loaded, stage: str, counter: DriftCounter) -> bool:
        counts, node_id = counter.snapshot(), self._state.node_id
        return do(
            lambda connection: report_drift(
                connection,
                loaded.environment,
                number=loaded.release,
                stage=stage,
                node_id=node_id,
                since=counter.since,
                counts=counts,
            )
        )


def _log(loaded: Loaded, stage: str, counter: DriftCounter) -> bool:
    found = figures(counter.profile, counter.counts)
    worst = sorted(found.items(), key=lambda item: -(item[1].psi or 0.0))[:_NAMED]
    said = ", ".join(f"{name} PSI {drift.psi or 0.0:.3f}" for name, drift in worst)
    logger.info(
        "release %d, %s: %d of %d transactions counted; moved most from training: %s; refused %s",
        *(loaded.release, stage, counter.counted, counter.seen, said, counter.refused),
    )
    return True
