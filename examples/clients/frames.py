"""Scores pandas frames, and with them Spark's: many transactions under way at a time, in their order.

# pandas
scored = next(score_frames(iter([payments]), "tcp://127.0.0.1:7301"))

# Spark: each partition has a client of its own
scored = payments.mapInPandas(partial(score_frames, addresses="tcp://127.0.0.1:7301"), SCHEMA)
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from scorewire_client import Answer, Client, ScorewireError

#: What comes back, in Spark's words.
SCHEMA = "id string, score double, outcome string, release int, error string"
_TYPES = dict(part.split() for part in SCHEMA.split(", "))
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
            scored = pd.DataFrame(map(_row, results), columns=list(_TYPES))
            # Texts of pandas's own type, that of version 3, are more than Spark can take.
            yield scored.astype({name: object for name, kind in _TYPES.items() if kind == "string"})


def _transaction(row: dict[Hashable, Any]) -> dict[str, Any]:
    return {str(name): _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Return what a transaction can hold: NaN and NaT are nothing, timestamps and the like go as text."""
    if isinstance(value, np.ndarray):  # as Spark has its arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if pd.isna(value):
        return None
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, bool | int | float | str | bytes) else str(value)


def _row(result: Answer | ScorewireError) -> dict[str, Any]:
    if isinstance(result, ScorewireError):
        return {"error": f"{result.code}: {result.detail}"}
    return {
        "id": result.id,
        "score": None if result.fallback else result.score,
        "outcome": result.decision and result.decision.outcome,
        "release": result.trace.release,
    }
