"""Rows of results for the tests of this room."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from shadow.result import ResultRow
from shadow.store import Summarise

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def result(number: int, *, shadow: int = 1, **more: Any) -> ResultRow:
    """Return a row; those of 60 numbers lie in an hour."""
    facts: dict[str, Any] = {
        "shadow": shadow,
        "transaction_id": f"tx-{number}",
        "at": NOON + timedelta(minutes=number),
        "release": 3,
        "champion_score": 0.25,
        "shadow_score": 0.5,
        "champion_scores": {"fraud": 0.25},
        "shadow_scores": {"fraud": 0.5},
        "champion_outcome": "approve",
        "shadow_outcome": "review",
        "champion_reasons": (),
        "shadow_reasons": ("high",),
        "amount": 12.5,
        "fields": {"amount": 12.5, "channel": "online", "night": True, "note": None},
        "champion_us": {"features": 30, "model": 20},
        "shadow_us": {"model": 22},
        "drift": {},
    }
    return ResultRow(**{**facts, **more})


def _fold(rows: Sequence[ResultRow]) -> dict[str, Any]:
    return {"count": len(rows), "score": sum(row.shadow_score for row in rows)}


def _merge(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {name: a[name] + b[name] for name in a}


#: Counts rows, which is all that the tests of storing ask.
COUNTING = Summarise(_fold, _merge)
