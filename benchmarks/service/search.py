"""Looks for the highest rate that a service bears: doubles until it does not, then halves the gap.

A rate is given up as soon as it is sure to miss: where one of a hundred of all that was to be sent is late
already, nothing that comes can mend it. So what a service does not bear takes less time than what it does,
and the time goes into rates near the edge. The light rate, at which all are compared, is never given up.
"""

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
_STEP, _STEPS = 0.92, 12
#: How often a rate is tried: something else may have had the service's core for a moment; and how often where
#: the callers say that somebody had theirs.
_TRIES, _DISTURBED_TRIES = 2, 4
#: The share of late answers beyond which nobody else's doing explains them: it is not tried again.
_HOPELESS = 0.5
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
        late: the share that was not answered well within LIMIT_MS.
        given_up: whether it was sure to miss before all were sent; the figures are then of what was sent.
    """

    rate: float
    answered: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lag_ms: float
    cpu_s: float
    late: float = 0.0
    given_up: bool = False

    @property
    def holds(self) -> bool:
        """Whether all were answered, and in time."""
        return self.answered == 1.0 and self.p99_ms < LIMIT_MS and not self.given_up

    @property
    def disturbed(self) -> bool:
        """Whether the callers were late: somebody else had their cores, or they are at their end."""
        return self.lag_ms > _LAG_MS


#: Offers a rate once, with a seed, and returns what came of it.
Offer = Callable[[float, int], Point]


def measure(offer: Offer, rate: float, seed: int = 0) -> Point:
    """Offer a rate; again if it does not hold and that may be somebody else's doing; return the best."""
    found: list[Point] = []
    tries = _TRIES
    while len(found) < tries:
        found.append(offer(rate, seed + 1000 * len(found)))
        if found[-1].holds:
            break
        if found[-1].disturbed:
            tries = _DISTURBED_TRIES
        elif found[-1].late > _HOPELESS:
            break
    return min(found, key=lambda point: (-point.answered, point.given_up, point.p99_ms))


def offered(running: Running, seconds: float, *, late_s: float = LIMIT_MS / 1e3) -> Offer:
    """Return what offers rates to a service for so long, and gives up those that are sure to miss.

    Args:
        running: the service.
        seconds: for how long a rate is offered.
        late_s: what is late; infinite: no rate is given up.
    """

    def offer(rate: float, seed: int) -> Point:
        long_s = max(seconds, min(_LEAST / rate, _LONGEST * seconds))
        running.generator.run(rate, min(_SETTLE_S, long_s), seed, late_s)
        running.processes.find()
        before = running.processes.cpu_s()
        found = running.generator.run(rate, long_s, seed + 1, late_s)
        return _point(rate, found, running.processes.cpu_s() - before)

    return offer


def _point(rate: float, found: Outcomes, cpu_s: float) -> Point:
    p50, p99, p999 = (np.quantile(found.latencies_s or [np.inf], (0.5, 0.99, 0.999)) * 1e3).round(3).tolist()
    lag = round(float(np.quantile(found.lags_s or [np.inf], 0.99)) * 1e3, 3)
    answered = len(found.latencies_s) / found.offered
    in_time = sum(one * 1e3 < LIMIT_MS for one in found.latencies_s)
    return Point(
        rate=round(rate, 1),
        answered=answered,
        p50_ms=p50,
        p99_ms=p99,
        p999_ms=p999,
        lag_ms=lag,
        cpu_s=round(cpu_s / found.offered * 1e3, 4),
        late=round(1 - in_time / found.offered, 4),
        given_up=found.given_up,
    )


def highest(first: Point, ask: Callable[[float], Point]) -> tuple[float, list[Point]]:
    """Return the highest rate that holds, 0 where none does, and all that was tried, with the first one.

    Doubling goes on until two rates in a row do not hold: a single one may have been somebody else's fault.
    """
    tried = [first, ask(2 * first.rate)]
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
    light = measure(offered(running, long_s, late_s=np.inf), FIRST, 7)
    short, long = offered(running, seconds), offered(running, long_s)
    rate, tried = highest(light, lambda rate: measure(short, rate, len(f"{rate}")))
    best = None
    for number in range(_STEPS if rate else 0):
        best = measure(long, rate, 100 + number)
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
        "callers_end": bool(rate) and best is not None and best.disturbed,
    }
