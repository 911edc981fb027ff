"""Folds results into the parts of a summary, column by column."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shadow.buckets import FEATURES, FIELDS, TIMES
from shadow.result import ResultRow
from shadow.summary_schema import FIELD_VALUES, MOST_DIFFERENT

Flags = NDArray[np.bool_]
Numbers = NDArray[np.float64]
Integers = NDArray[np.int64]

#: What PostgreSQL's jsonb refuses in text.
_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")
#: Letters of a text that are kept, and reason codes of a transaction.
_LETTERS, _REASONS = 64, 8
_LETTERS_OF_ID: Final = 200
#: Beyond these, amounts, differences and their squares count as these: so that sums of 4096 fit 64 bits.
_MAX_AMOUNT, _MAX_DIFFERENCE, _MAX_SQUARE = 1e12, 1e6, 1e6
#: Other outputs agree within this.
_NEAR: Final = 0.01
_TEXTS: Final = {None: "(null)", True: "true", False: "false"}
_NOT_A_NUMBER: Final = "(not a number)"


@dataclass(frozen=True, eq=False)
class Facts:
    """What is asked of all rows more than once.

    Attributes:
        champion: float64 [n], the champion's scores.
        shadow: float64 [n], the shadow's.
        difference: float64 [n], the shadow's less the champion's; 0 where one is no finite number.
        known: bool [n], both scores are finite numbers.
        decided: bool [n], both have an outcome.
        flipped: bool [n], the outcomes differ.
        paid: bool [n], the amount is known.
        amount: int64 [n], in thousandths; 0 where it is not known.
        group: int64 [n, 6], what each row adds to a group (summary_schema.GROUP).
    """

    champion: Numbers
    shadow: Numbers
    difference: Numbers
    known: Flags
    decided: Flags
    flipped: Flags
    paid: Flags
    amount: Integers
    group: Integers


def facts_of(rows: Sequence[ResultRow]) -> Facts:
    """Return the facts of some rows, at least one."""
    champion = np.array([row.champion_score for row in rows], np.float64)
    shadow = np.array([row.shadow_score for row in rows], np.float64)
    known = np.isfinite(champion) & np.isfinite(shadow)
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.where(known, shadow - champion, 0.0)
    known &= np.isfinite(difference)
    difference[~known] = 0.0
    outcomes = [(row.champion_outcome, row.shadow_outcome) for row in rows]
    decided = np.array([a is not None and b is not None for a, b in outcomes])
    flipped = decided & np.array([a != b for a, b in outcomes])
    raw = np.array([math.nan if row.amount is None else row.amount for row in rows], np.float64)
    paid = np.isfinite(raw)
    amount = _scaled(np.where(paid, raw, 0.0), _MAX_AMOUNT, 1e3)
    limited = np.clip(difference, -_MAX_DIFFERENCE, _MAX_DIFFERENCE)
    group = np.column_stack(
        [
            np.ones(len(rows), np.int64),
            flipped,
            known,
            _scaled(limited, _MAX_DIFFERENCE, 1e6),
            _scaled(limited**2, _MAX_SQUARE, 1e6),
            np.where(flipped, amount, 0),
        ]
    ).astype(np.int64)
    return Facts(champion, shadow, difference, known, decided, flipped, paid, amount, group)


def clean(text: str, letters: int = _LETTERS) -> str:
    """Return a text that jsonb takes, and not longer than it may be."""
    return _UNFIT.sub("\ufffd", text[:letters])


def microseconds(moment: datetime) -> int:
    """Return Unix time in microseconds, exactly."""
    since = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def groups(labels: Sequence[str], group: Integers) -> dict[str, list[int]]:
    """Return label to the sums of its rows of `group`, int64 [n, columns]."""
    places: dict[str, int] = {}
    place_of = np.array([places.setdefault(label, len(places)) for label in labels], np.int64)
    order = np.argsort(place_of, kind="stable")
    starts = np.searchsorted(place_of[order], np.arange(len(places)))
    sums = np.add.reduceat(group[order], starts, axis=0) if places else group
    return dict(zip(places, sums.tolist(), strict=False))


def outputs(rows: Sequence[ResultRow]) -> dict[str, list[int]]:
    """Return output to how many scores of it can be compared, are the same, and are within 0.01."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in rows:
        for name, champion in row.champion_scores.items():
            shadow = row.shadow_scores.get(name)
            if shadow is not None and math.isfinite(apart := abs(shadow - champion)):
                counts = found[clean(name)]
                counts[0] += 1
                counts[1] += apart == 0
                counts[2] += apart <= _NEAR
    return dict(found)


def outcomes(rows: Sequence[ResultRow], facts: Facts) -> dict[str, list[int]]:
    """Return "champion's>shadow's" to how many results, how many with an amount, and what amount."""
    both = facts.decided
    each = np.column_stack([both, both & facts.paid, facts.amount * both]).astype(np.int64)
    labels = [f"{clean(row.champion_outcome or '')}>{clean(row.shadow_outcome or '')}" for row in rows]
    return {label: sums for label, sums in groups(labels, each).items() if sums[0]}


def reasons(rows: Sequence[ResultRow]) -> dict[str, list[int]]:
    """Return reason code to how many results have it from the champion, and from the shadow."""
    champion = Counter(clean(code) for row in rows for code in row.champion_reasons)
    shadow = Counter(clean(code) for row in rows for code in row.shadow_reasons)
    return {code: [champion[code], shadow[code]] for code in champion | shadow}


def times(rows: Iterable[Mapping[str, int]]) -> dict[str, dict[str, Any]]:
    """Return stage to how many times it was timed, their sum in microseconds, and their buckets."""
    found: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        for stage, us in row.items():
            found[clean(stage)].append(us)
    return {
        stage: {"n": len(values), "sum": sum(map(int, values)), "buckets": TIMES.count(values)}
        for stage, values in found.items()
    }


def slices(rows: Sequence[ResultRow], facts: Facts) -> dict[str, Any]:
    """Return field to the sums of the rows that have it, and of the rows of each of its values."""
    columns: dict[str, tuple[list[int], list[Any]]] = defaultdict(lambda: ([], []))
    names = _Cleaned()
    for place, row in enumerate(rows):
        for name, value in row.fields.items():
            places, values = columns[names[name]]
            places.append(place)
            values.append(value)
    return {name: _field(facts.group[places], values) for name, (places, values) in columns.items()}


def _field(group: Integers, values: list[Any]) -> dict[str, Any]:
    labels = _labels(values)
    distinct = dict.fromkeys(labels)
    mine = group
    if len(kept := FIELD_VALUES.kept(distinct)) < len(distinct):
        places = [place for place, label in enumerate(labels) if label in kept]
        labels, mine = [labels[place] for place in places], group[places]
    return {"all": group.sum(axis=0).tolist(), "values": groups(labels, mine)}


def _labels(values: list[Any]) -> list[str]:
    """Return what stands for each value: a text itself, a number its range of 1, 2, 5, 10, ..."""
    labels = [""] * len(values)
    numbers: list[float] = []
    places: list[int] = []
    for place, value in enumerate(values):
        kind = type(value)
        if kind is float or kind is int:
            places.append(place)
            numbers.append(value)
        else:
            labels[place] = clean(value) if kind is str else _TEXTS[value]
    array = np.array(numbers, np.float64)
    odd = np.isnan(array)
    buckets = FIELDS.index(np.where(odd, 0.0, array)).tolist()
    for place, bucket, is_odd in zip(places, buckets, odd.tolist(), strict=True):
        labels[place] = _NOT_A_NUMBER if is_odd else _range(bucket)
    return labels


@lru_cache(maxsize=256)
def _range(bucket: int) -> str:
    low, high = FIELDS.bounds(bucket)
    if bucket == 0:
        return "0"
    return f"{low:g} and more" if low == high else f"{low:g} to {high:g}"


def drift(rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Return feature to how its values differ, and the buckets of both."""
    columns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    names = _Cleaned()
    for row in rows:
        for name, pair in row.drift.items():
            columns[names[name]].append(pair)
    return {name: _feature(np.array(pairs, np.float64)) for name, pairs in columns.items()}


def _feature(pairs: Numbers) -> dict[str, Any]:
    missing = np.isnan(pairs)
    same = (pairs[:, 0] == pairs[:, 1]) | missing.all(axis=1)
    return {
        "n": len(pairs),
        "differs": int((~same).sum()),
        "missing": missing.sum(axis=0).tolist(),
        "champion": FEATURES.count(pairs[~missing[:, 0], 0]),
        "shadow": FEATURES.count(pairs[~missing[:, 1], 1]),
    }


def top(rows: Sequence[ResultRow], which: Flags, weights: Numbers) -> list[dict[str, Any]]:
    """Return the rows of the greatest weights among those that `which` tells, as the report shows them."""
    places = np.flatnonzero(which & (weights > 0))
    if len(places) > MOST_DIFFERENT:  # all of the weight of the last one: their ids settle it
        least = np.partition(weights[places], -MOST_DIFFERENT)[-MOST_DIFFERENT]
        places = places[weights[places] >= least]
    return [_entry(rows[place], float(weights[place])) for place in places.tolist()]


def _entry(row: ResultRow, weight: float) -> dict[str, Any]:
    return {
        "weight": weight,
        "id": clean(row.transaction_id, _LETTERS_OF_ID),
        "at": microseconds(row.at),
        "release": row.release,
        "amount": row.amount if row.amount is not None and math.isfinite(row.amount) else None,
        "scores": [_finite(row.champion_score), _finite(row.shadow_score)],
        "outcomes": [None if o is None else clean(o) for o in (row.champion_outcome, row.shadow_outcome)],
        "reasons": [
            [clean(code) for code in codes[:_REASONS]] for codes in (row.champion_reasons, row.shadow_reasons)
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _scaled(values: Numbers, limit: float, scale: float) -> Integers:
    return np.rint(np.clip(values, -limit, limit) * scale).astype(np.int64)


class _Cleaned(dict[str, str]):
    def __missing__(self, name: str) -> str:
        self[name] = found = clean(name)
        return found
