"""What must hold of a history: each request answered once and rightly, and releases never going back."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from benchmarks.chaos.load import Entry
from governance.database import Connection


@dataclass(frozen=True)
class Activation:
    """A release became the current one. A rollback makes an earlier number current again."""

    number: int
    at: datetime
    model: str


def activations(connection: Connection, environment: str) -> list[Activation]:
    """Return what became current, in order."""
    rows = connection.execute(
        "SELECT r.number, r.finished_at AS at, s.digest AS model FROM rollout r"
        " JOIN release_stage s ON s.environment = r.environment AND s.number = r.number"
        "  AND s.slot = 'champion' AND s.stage = 'model'"
        " WHERE r.environment = %s AND r.state = 'active' AND r.kind <> 'canary' ORDER BY r.id",
        (environment,),
    ).fetchall()
    return [Activation(row["number"], row["at"], row["model"]) for row in rows]


def failed(history: Sequence[Entry]) -> list[Entry]:
    """Return the requests that got no answer."""
    return [entry for entry in history if entry.error]


def not_answered_once(history: Sequence[Entry]) -> list[int]:
    """Return the numbers of requests whose answer came not once, or was another's."""
    answered = Counter(entry.number for entry in history)
    twice = {number for number, times in answered.items() if times != 1}
    missing = set(range(len(answered))) - set(answered) if answered else set()
    others = {entry.number for entry in history if not entry.error and entry.answer_id != str(entry.number)}
    return sorted(twice | missing | others)


def wrong_scores(
    history: Sequence[Entry],
    expected: Mapping[str, NDArray[np.float64]],
    found: Sequence[Activation],
) -> list[Entry]:
    """Return the answers whose score is not that of the model of the release that they name."""
    models = {one.number: one.model for one in found}
    return [
        entry
        for entry in history
        if not entry.error and not _is_right(entry, expected, models.get(entry.release, ""))
    ]


def _is_right(entry: Entry, expected: Mapping[str, NDArray[np.float64]], model: str) -> bool:
    scores = expected.get(model)
    return scores is not None and entry.model == model and entry.score == scores[entry.number % len(scores)]


def gone_backwards(history: Sequence[Entry], found: Sequence[Activation]) -> list[Entry]:
    """Return the answers from a release that was over for this caller already.

    A request that was sent after an answer had come may not be answered by what was current before the
    release of that answer. Each answer is taken for the earliest activation that it can be.
    """
    backwards, floor = [], 0
    arrived: list[tuple[float, int]] = []
    for entry in sorted((one for one in history if not one.error), key=lambda one: one.sent):
        while arrived and arrived[0][0] < entry.sent:
            floor = max(floor, heapq.heappop(arrived)[1])
        place = next((n for n in range(floor, len(found)) if found[n].number == entry.release), None)
        if place is None or found[place].at.timestamp() > entry.done:
            backwards.append(entry)
        else:
            heapq.heappush(arrived, (entry.done, place))
    return backwards
