"""The result of a shadow on one transaction, beside the live answer."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

Scalar = str | float | bool | None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What a shadow made of a transaction, and what the live system had made of it.

    Attributes:
        shadow: the shadow's number.
        transaction_id: the transaction's id.
        at: when the live answer left.
        release: the release that gave it.
        champion_score: its last score of the unnamed model.
        shadow_score: the same of the shadow.
        champion_scores: name to score, of the live answer.
        shadow_scores: name to score; the live ones where the shadow overrides no model.
        champion_outcome: approve, review or decline; None where no rules decided.
        shadow_outcome: the same of the shadow.
        champion_reasons: the codes of the live decision.
        shadow_reasons: the codes of the shadow's.
        amount: the value of the field that the shadow names; None where it is missing or no number.
        fields: the transaction's scalars after the field policy.
        champion_us: stage to microseconds: features, model, decision.
        shadow_us: the same, of the stages that the shadow overrides.
        drift: only where features are overridden: name of a feature that both have to (live value, shadow's).
    """

    shadow: int
    transaction_id: str
    at: datetime
    release: int
    champion_score: float
    shadow_score: float
    champion_scores: Mapping[str, float]
    shadow_scores: Mapping[str, float]
    champion_outcome: str | None
    shadow_outcome: str | None
    champion_reasons: tuple[str, ...]
    shadow_reasons: tuple[str, ...]
    amount: float | None
    fields: Mapping[str, Scalar]
    champion_us: Mapping[str, int]
    shadow_us: Mapping[str, int]
    drift: Mapping[str, tuple[float, float]]


#: The columns of the table shadow_result that make a ResultRow; `rank` comes beside them.
COLUMNS = tuple(field.name for field in fields(ResultRow))
_OF_SCORES = ("champion_scores", "shadow_scores")
_AS_JSON = (
    *_OF_SCORES,
    "champion_reasons",
    "shadow_reasons",
    "fields",
    "champion_us",
    "shadow_us",
    "drift",
)


def rank_of(transaction_id: str) -> int:
    """Return the first 8 bytes of the id's blake2b as a signed number: uniform, and the same everywhere."""
    digest = hashlib.blake2b(transaction_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def sampled(rank: int, sample: float) -> bool:
    """Say whether a share of all transactions, 0 to 1, holds the one of this rank."""
    return sample >= 1.0 or rank + (1 << 63) < sample * (1 << 64)


def to_columns(row: ResultRow) -> list[Any]:
    """Return a row's values as the table takes them, in the order of COLUMNS, JSON as text."""
    found = [getattr(row, name) for name in COLUMNS]
    for place in _JSON_PLACES:
        found[place] = _json(found[place])
    return found


def document(row: ResultRow) -> bytes:
    """Return a row as a JSON object, for readers outside: `at` in ISO 8601, null for NaN."""
    found = {name: getattr(row, name) for name in COLUMNS}
    found["at"] = row.at.isoformat()
    return json.dumps(_plain(found), ensure_ascii=False, separators=(",", ":")).encode()


def row_of(record: Mapping[str, Any]) -> ResultRow:
    """Return the row that a record of the table holds; columns that it does not know are left alone."""
    found = {name: record[name] for name in COLUMNS}
    for name in _OF_SCORES:
        found[name] = {output: _number(value) for output, value in found[name].items()}
    for name in ("champion_reasons", "shadow_reasons"):
        found[name] = tuple(found[name])
    found["drift"] = {name: (_number(a), _number(b)) for name, (a, b) in found["drift"].items()}
    return ResultRow(**found)


def _json(value: Any) -> str:
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:  # JSON has no NaN and no infinity
        text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    if "\\u0000" in text:  # which PostgreSQL's jsonb does not hold
        text = json.dumps(_clean(_plain(value)), ensure_ascii=False, separators=(",", ":"))
    return text


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_clean(name): _clean(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    """Return a value with null for NaN, and a number beyond float64 for an infinity."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else f"{value}"
    return value


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


_JSON_PLACES = tuple(COLUMNS.index(name) for name in _AS_JSON)
