"""What two looks say together: rates, percentiles, and how each process is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from actors.top.figures import Buckets, Figures, added, quantile
from actors.top.look import Held, Look

STAGE: Final = "scorewire_stage_seconds"
STAGES: Final = ("queue", "features", "scorer", "kernel", "decision", "total")
#: What counts as work done by a role.
_WORK: Final[Mapping[str, str]] = {
    "preprocessor": "scorewire_requests_total",
    "scorer": "scorewire_requests_total",
    "gateway": "scorewire_requests_total",
    "tee": "scorewire_tee_taken_total",
    "sink": "scorewire_sink_stored_total",
    "shadow": "scorewire_candidate_evaluated_total",
}
#: The stage that says how fast a role is.
_TIMED: Final[Mapping[str, str]] = {"preprocessor": "total", "scorer": "kernel", "gateway": "total"}
_ORDER: Final = ("gateway", "preprocessor", "scorer", "tee", "sink", "shadow", "haproxy", "up")


@dataclass(frozen=True)
class Row:
    """One process.

    Attributes:
        node: its role, place and host.
        role: what it does.
        endpoint: where its figures are.
        state: as its health check says.
        release: the release that is current there; None where it knows of none.
        rate: what it does a second.
        errors: how many a second ended with an error.
        p50_ms: median of its own time for each; None while there is none.
        p99_ms: the 99th percentile.
        queue: requests that wait.
        in_flight: requests that are under way.
        cpu: share of one processor.
        memory_mb: memory, with shared pages.
        restarts: of its actors; of `up`: of its processes.
        note: what else is worth a word.
    """

    node: str
    role: str
    endpoint: str
    state: str
    release: int | None
    rate: float
    errors: float
    p50_ms: float | None
    p99_ms: float | None
    queue: int
    in_flight: int
    cpu: float
    memory_mb: float
    restarts: int
    note: str


@dataclass(frozen=True)
class View:
    """What `top` shows of a span of time.

    Attributes:
        environment: of what.
        seconds: how long the span is.
        rate: answers of preprocessors a second.
        errors: error code to how many a second, of preprocessors.
        retried: repetitions at the scorers a second.
        hedged: second askings a second.
        fallbacks: answers a second without a score.
        stages: stage to its percentiles in ms, by name.
        rows: all processes.
        lost: endpoint of each that does not answer, to why.
        held: what the database holds.
    """

    environment: str
    seconds: float
    rate: float
    errors: Mapping[str, float]
    retried: float
    hedged: float
    fallbacks: float
    stages: Mapping[str, Mapping[str, float]]
    rows: tuple[Row, ...]
    lost: Mapping[str, str]
    held: Held


def compare(environment: str, before: Look, now: Look) -> View:
    """Return what happened between two looks."""
    seconds = max(1e-3, now.at - before.at)
    spans = [_Span(end, found, before.figures.get(end), seconds) for end, found in now.figures.items()]
    live = [span for span in spans if span.role == "preprocessor"]
    errors: dict[str, float] = {}
    for span in live:
        for code, rate in span.rates("scorewire_errors_total", "code").items():
            errors[code] = errors.get(code, 0.0) + rate
    stages = {}
    for stage in STAGES:
        owners = [span for span in spans if span.role == "scorer"] if stage == "kernel" else live
        of_stage = added(span.buckets(stage) for span in owners)
        stages[stage] = {
            name: ms for name, share in _SHARES.items() if (ms := _ms(of_stage, share)) is not None
        }
    return View(
        environment=environment,
        seconds=round(seconds, 2),
        rate=sum(span.rate("scorewire_answers_total") for span in live),
        errors={code: rate for code, rate in sorted(errors.items()) if rate},
        retried=sum(span.rate("scorewire_scorers_retried_total") for span in live),
        hedged=sum(span.rate("scorewire_scorers_hedged_total") for span in live),
        fallbacks=sum(span.rate("scorewire_fallbacks_total") for span in live),
        stages=stages,
        rows=tuple(sorted((_row(span) for span in spans), key=_place)),
        lost=now.lost,
        held=now.held,
    )


_SHARES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}


class _Span:
    """One process between two looks; its counters begin anew where it is another process."""

    def __init__(self, endpoint: str, now: Figures, before: Figures | None, seconds: float) -> None:
        self.endpoint = endpoint
        self.now = now
        same = before is not None and _life(before) == _life(now)
        self._before = before if same else None
        self._seconds = seconds
        self.role = now.label("scorewire_node_info", "role")

    def rate(self, name: str) -> float:
        was = self._before.sum(name) if self._before is not None else self.now.sum(name)
        return max(0.0, self.now.sum(name) - was) / self._seconds

    def rates(self, name: str, label: str) -> dict[str, float]:
        was = self._before.by(name, label) if self._before is not None else self.now.by(name, label)
        now = self.now.by(name, label)
        return {one: max(0.0, value - was.get(one, 0.0)) / self._seconds for one, value in now.items()}

    def buckets(self, stage: str) -> Buckets:
        now = self.now.buckets(STAGE, stage=stage)
        was = self._before.buckets(STAGE, stage=stage) if self._before is not None else now
        return {bound: count - was.get(bound, 0.0) for bound, count in now.items()}


def _life(figures: Figures) -> str:
    return figures.label("scorewire_node_info", "life")


def _row(span: _Span) -> Row:
    now, role = span.now, span.role
    timed = span.buckets(_TIMED[role]) if role in _TIMED else {}
    states = now.by("scorewire_node_state", "state")
    return Row(
        node=now.label("scorewire_node_info", "node"),
        role=role,
        endpoint=span.endpoint,
        state=max(states, key=lambda state: states[state], default="unknown"),
        release=int(now.sum("scorewire_release")) or None,
        rate=span.rate(_WORK[role]) if role in _WORK else 0.0,
        errors=sum(span.rates("scorewire_errors_total", "code").values()),
        p50_ms=_ms(timed, 0.5),
        p99_ms=_ms(timed, 0.99),
        queue=int(now.sum("scorewire_queue_requests")),
        in_flight=int(now.sum("scorewire_in_flight_requests")),
        cpu=span.rate("process_cpu_seconds_total"),
        memory_mb=now.sum("process_resident_memory_bytes") / 1e6,
        restarts=int(now.sum("scorewire_actor_restarts_total") + now.sum("scorewire_process_restarts_total")),
        note=_NOTES[role](now) if role in _NOTES else "",
    )


def _place(row: Row) -> tuple[int, str]:
    return (_ORDER.index(row.role) if row.role in _ORDER else len(_ORDER), row.node)


def _ms(buckets: Buckets, share: float) -> float | None:
    found = quantile(buckets, share)
    return None if found is None else round(found * 1e3, 4)


def _preprocessor(now: Figures) -> str:
    known = now.by("scorewire_scorers", "state")
    scorers = ", ".join(f"{int(count)} {state}" for state, count in sorted(known.items()) if count)
    stale = now.sum("scorewire_stale_seconds")
    late = f"; last saw the database {stale:.0f} s ago" if stale > _STALE_S else ""
    dropped = now.sum("scorewire_tee_ring_dropped_total")
    lost = f"; {dropped:.0f} answers lost to the tee" if dropped else ""
    return f"scorers: {scorers or 'none'}{late}{lost}"


def _tee(now: Figures) -> str:
    kafka = "Kafka is away" if now.sum("scorewire_tee_kafka_away") else "Kafka is there"
    spooled, lost = now.sum("scorewire_tee_spool_records"), now.sum("scorewire_tee_spool_dropped_total")
    return f"{kafka}; spool {spooled:.0f}" + (f", {lost:.0f} lost" if lost else "")


def _sink(now: Figures) -> str:
    dead = now.sum("scorewire_sink_dead_total")
    return f"{now.sum('scorewire_sink_behind_seconds'):.1f} s behind" + (
        f"; {dead:.0f} laid aside" if dead else ""
    )


def _shadow(now: Figures) -> str:
    lag = now.sum("scorewire_shadow_lag_records")
    shadows = len(now.by("scorewire_candidate_evaluated_total", "shadow"))
    died = now.sum("scorewire_candidate_died_total")
    return f"{shadows} shadows; {lag:.0f} records behind" + (f"; {died:.0f} deaths" if died else "")


def _haproxy(now: Figures) -> str:
    return f"{now.sum('scorewire_haproxy_serving'):.0f} servers"


def _up(now: Figures) -> str:
    there, of = now.sum("scorewire_process_up"), len(now.by("scorewire_process_up", "process"))
    return f"{there:.0f} of {of} processes"


#: Seconds since the last look at the database that are worth a word.
_STALE_S: Final = 10.0
_NOTES: Final[Mapping[str, Callable[[Figures], str]]] = {
    "preprocessor": _preprocessor,
    "tee": _tee,
    "sink": _sink,
    "shadow": _shadow,
    "haproxy": _haproxy,
    "up": _up,
}


def rounded(value: Any) -> Any:
    """Round what goes into JSON: six digits say all."""
    if isinstance(value, float):
        return value if math.isinf(value) else float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    return value
