"""Looks for the highest rate that a service bears: doubles until it does not, then halves the gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.service.services import Running
from benchmarks.service.traffic import Outcomes

#: What the 99th percentile must stay under, ms.
LIMIT_MS = 10.0
#: The first rate that is tried, and the one at which all are compared.
FIRST = 50.0
#: The gap is halved until it is this small.
_NEAR = 1.1
#: By how much a rate is lowered that did not hold for longer, and how often at most.
_STEP, _STEPS = 0.88, 8
#: How often a rate is tried: something else may have had the service's core for a moment; and how often where
#: the callers say that somebody had theirs.
_TRIES, _DISTURBED_TRIES = 2, 4
#: Transactions that a 99th percentile is taken of at least, where that takes at most so many times longer.
_LEAST, _LONGEST = 200, 10
#: Seconds of each rate before anything counts, at most.
_SETTLE_S = 0.3
#: A caller that sends later than this in one of a hundred cases is itself at its end, ms.
_LAG_MS = 2.0


@dataclass(frozen=True)
class Point:
    """What came of one rate.

    Attributes:
        rate: transactions a second that were offered.
        answered: the share of them that was answered well.
        p50_ms: of these, from the time at which each was to be sent.
        p99_ms: see p50_ms.
        p999_ms: see p50_ms.
        lag_ms: the 99th percentile of how much later each was sent.
        cpu_s: processor seconds of the service for a thousand transactions.
    """

    rate: float
    answered: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lag_ms: float
    cpu_s: float

    @property
    def holds(self) -> bool:
        """Whether all were answered, and in time."""
        return self.answered == 1.0 and self.p99_ms < LIMIT_MS


def measure(running: Running, rate: float, seconds: float, seed: int = 0) -> Point:
    """Offer a rate for so long; again if it does not hold, and return the best."""
    found: list[Point] = []
    tries = _TRIES
    while len(found) < tries:
        found.append(_measure(running, rate, seconds, seed + 1000 * len(found)))
        if found[-1].holds:
            break
        if found[-1].lag_ms > _LAG_MS:
            tries = _DISTURBED_TRIES
    return min(found, key=lambda point: (-point.answered, point.p99_ms))


def _measure(running: Running, rate: float, seconds: float, seed: int) -> Point:
    seconds = max(seconds, min(_LEAST / rate, _LONGEST * seconds))
    running.generator.run(rate, min(_SETTLE_S, seconds), seed)
    running.processes.find()
    before = running.processes.cpu_s()
    found = running.generator.run(rate, seconds, seed + 1)
    return _point(rate, found, running.processes.cpu_s() - before)


def _point(rate: float, found: Outcomes, cpu_s: float) -> Point:
    p50, p99, p999 = (np.quantile(found.latencies_s or [np.inf], (0.5, 0.99, 0.999)) * 1e3).round(3).tolist()
    lag = round(float(np.quantile(found.lags_s or [np.inf], 0.99)) * 1e3, 3)
    answered = len(found.latencies_s) / found.offered
    return Point(round(rate, 1), answered, p50, p99, p999, lag, round(cpu_s / found.offered * 1e3, 4))


def highest(ask: Callable[[float], Point]) -> tuple[float, list[Point]]:
    """Return the highest rate that holds, 0 where none does, and all that was tried.

    Doubling goes on until two rates in a row do not hold: a single one may have been somebody else's fault.
    """
    tried = [ask(FIRST), ask(2 * FIRST)]
    while any(point.holds for point in tried[-2:]):
        tried.append(ask(2 * tried[-1].rate))
    low = max((point.rate for point in tried if point.holds), default=0.0)
    high = 2 * low
    while low and high / low > _NEAR:
        tried.append(ask((low * high) ** 0.5))
        low, high = (tried[-1].rate, high) if tried[-1].holds else (low, tried[-1].rate)
    return low, tried


def figures(running: Running, seconds: float, long_s: float) -> dict[str, Any]:
    """Return a service's row of the table.

    Args:
        running: the service.
        seconds: how long each rate is offered while the highest is looked for.
        long_s: how long the highest must hold, and the first one is measured.
    """
    running.generator.run(FIRST, min(2.0, long_s), 1)  # what warms up does so now
    idle_pss = running.processes.pss()
    light = measure(running, FIRST, long_s, 7)
    rate, tried = highest(lambda rate: measure(running, rate, seconds, len(f"{rate}")))
    best = None
    for number in range(_STEPS if rate else 0):
        best = measure(running, rate, long_s, 100 + number)
        if best.holds:
            break
        rate *= _STEP
    running.processes.find()
    held = best is not None and best.holds
    return {
        "rate": round(rate) if held else 0,
        "best": asdict(best) if best and held else None,
        "light": asdict(light),
        "tried": [asdict(point) for point in tried],
        "mb": round(max(idle_pss, running.processes.pss()) / 1e6),
        "started_s": round(running.started_s, 1),
        "callers_end": bool(rate) and best is not None and best.lag_ms > _LAG_MS,
    }
