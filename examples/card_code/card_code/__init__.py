"""The features of examples/card_payments.toml, by hand: what a code package looks like."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

CHANNELS = {name: float(code) for code, name in enumerate(("chip", "contactless", "online"))}
COUNTRIES = {name: float(code) for code, name in enumerate(("BE", "FR", "NL", "DE", "LU"))}
#: No payment yet: as long ago as the longest window.
NEVER_S = 2_592_000.0
WINDOWS = ("1d", "7d", "30d")


class RefusedError(ValueError):
    """Raised when a transaction is at fault: the caller is told the field and the rule that it breaks."""

    def __init__(self, field: str, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.rule = rule


def features(tx: Mapping[str, Any]) -> list[float]:
    """Return the features of a payment, in the order of scorewire.toml."""
    amount = _number(tx, "amount", None)
    moment = _moment(tx)
    means = [_number(tx, f"customer_mean_{window}", 0.0) for window in WINDOWS]
    counts = [_number(tx, f"customer_count_{window}", 0.0) for window in WINDOWS]
    values = [
        amount,
        math.log1p(amount),
        float(moment.hour),
        float(moment.weekday()),
        float(moment.weekday() >= 5),
        float(not 6 <= moment.hour < 22),
        CHANNELS.get(tx["channel"], -1.0),
        COUNTRIES.get(tx.get("country") or "", -1.0),
        math.log1p(_number(tx, "seconds_since_last", NEVER_S)),
    ]
    for window, count, mean in zip(WINDOWS, counts, means, strict=True):
        terminal = _number(tx, f"terminal_count_{window}", 0.0)
        values += [count, mean, terminal, _number(tx, f"terminal_risk_{window}", 0.0)]
    values += [_ratio(amount, mean) for mean in means]
    values += [means[0] - means[2], _ratio(counts[0], counts[1])]
    return values


def _number(tx: Mapping[str, Any], name: str, missing: float | None) -> float:
    value = tx.get(name, missing)
    if value is None:
        value = missing
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise RefusedError(name, "type", f"must be a number, got {value!r}")
    if not 0 <= value < math.inf:
        raise RefusedError(name, "range", f"must be a number from 0, got {value!r}")
    return float(value)


def _moment(tx: Mapping[str, Any]) -> datetime:
    value = tx.get("timestamp")
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        return datetime.fromtimestamp(float(value or "missing"), UTC)
    except (ValueError, OverflowError, OSError, TypeError) as error:
        raise RefusedError("timestamp", "timestamp", f"must be a moment, got {value!r}") from error


def _ratio(value: float, by: float) -> float:
    return value / by if by else 0.0
