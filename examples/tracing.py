"""What the demo asks at its end: is every answer kept, and does an old one come out the same again?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from actors.config import Settings
from actors.rescore import load_pipeline, rescore
from governance.database import Connection, connect
from governance.trace import trace
from transport.client import Answer

#: Seconds that the last answer may take to the database.
KEPT_S = 60.0


@dataclass(frozen=True)
class Traced:
    """What came of it.

    Attributes:
        kept: answers that are in the database.
        rescored: `same`, if the answer that was computed again was the same to the bit, or what differed.
        told: the answer in a line.
    """

    kept: int
    rescored: str
    told: str


def trace_one(settings: Settings, answers: Sequence[Answer]) -> Traced:
    """Wait until all answers are kept; trace one of the first release, and compute it again."""
    first = min(answers, key=lambda answer: answer.trace.release)
    with connect(settings.dsn) as connection:
        kept = _wait(connection, settings.environment, list({answer.id for answer in answers}))
        found = trace(connection, settings.environment, first.id)[-1]
        again = rescore(load_pipeline(connection, settings, found), found.transaction)
    one = found.transaction
    different = "; ".join(f"{check.what}: {check.detail}" for check in again.checks if check.same is False)
    told = (
        f"transaction {one.id} was answered by release {one.release}, which {found.release['created_by']} "
        f"promoted: {one.outcome}, {', '.join(f'{name} {value:.4f}' for name, value in one.scores.items())}"
    )
    return Traced(kept, different or "same", told)


def _wait(connection: Connection, environment: str, ids: list[str]) -> int:
    give_up_at = time.monotonic() + KEPT_S
    while True:
        row = connection.execute(
            "SELECT count(DISTINCT id) AS n FROM transaction WHERE environment = %s AND id = ANY(%s)",
            (environment, ids),
        ).fetchone()
        kept = int(row["n"]) if row else 0
        if kept >= len(ids) or time.monotonic() > give_up_at:
            return kept
        time.sleep(0.1)
