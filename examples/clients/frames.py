"""Scores pandas frames, and with them Spark's: many transactions under way at a time, in their order.

# pandas
scored = next(score_frames(iter([payments]), "tcp://127.0.0.1:7301"))

# Spark: each partition has a client of its own
scored = payments.mapInPandas(partial(score_frames, addresses="tcp://127.0.0.1:7301"), SCHEMA)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import pandas as pd
from scorewire_client import Answer, Client, ScorewireError

#: What comes back, in Spark's words.
SCHEMA = "id string, score double, outcome string, release int, error string"
#: Seconds that one transaction may take: a batch can wait.
DEADLINE_S = 30.0


def score_frames(frames: Iterator[pd.DataFrame], addresses: str) -> Iterator[pd.DataFrame]:
    """Yield a frame of results for each frame of transactions, row by row.

    A row that is refused has its reason in `error`, and stops nobody else. As replays these go after all that
    is live, and the tee keeps no copy of them.

    Args:
        frames: a column for each field; missing values are nothing at all to the feature spec.
        addresses: the preprocessors, separated by commas.
    """
    with Client(addresses, deadline=DEADLINE_S) as client:
        for frame in frames:
            results = client.score_many(map(_transaction, frame.to_dict("records")), replay=True, window=256)
            yield pd.DataFrame(map(_row, results), columns=[part.split()[0] for part in SCHEMA.split(", ")])


def _transaction(row: dict[Hashable, Any]) -> dict[str, Any]:
    # Timestamps and other objects of pandas go as text; NaN and NaT are nothing.
    kept = {str(name): None if pd.isna(value) else value for name, value in row.items()}
    plain = bool | int | float | str | bytes | None
    return {name: value if isinstance(value, plain) else str(value) for name, value in kept.items()}


def _row(result: Answer | ScorewireError) -> dict[str, Any]:
    if isinstance(result, ScorewireError):
        return {"error": f"{result.code}: {result.detail}"}
    return {
        "id": result.id,
        "score": None if result.fallback else result.score,
        "outcome": result.decision and result.decision.outcome,
        "release": result.trace.release,
    }
