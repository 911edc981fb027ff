"""Drift: what the fields of live transactions look like, counted against the training profile.

A preprocessor counts a transaction after its answer has left. Counting takes as long as computing features
does, so of wide specs only every nth transaction is counted, in turn: rates need no more.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from models.features.fields import FieldRecipe
from models.features.profile import FieldProfile, Profile

#: Fields that are counted for each transaction, on average: about a microsecond.
FIELDS_A_TRANSACTION = 4
#: A share below this counts as this: a bin that was empty in training is no infinite drift.
_LEAST_SHARE = 1e-4

#: Slots of a field's counts: missing first; then of numbers below, each bin, above; of texts each, others.
Counts = Mapping[str, Sequence[int]]


class DriftCounter:
    """Counts the fields of a release's transactions. One actor writes, another may take a snapshot.

    Args:
        fields: the fields that the spec reads.
        profile: what they looked like in training.

    Attributes:
        profile: see above.
        since: when it began.
        every: of so many transactions one is counted.
        seen: how many there were.
        counted: how many were counted.
        refused: field and rule to how many transactions were refused by it.
    """

    def __init__(self, fields: Mapping[str, FieldRecipe], profile: Profile) -> None:
        self.profile = profile
        self.since = datetime.now(UTC)
        self.counts: dict[str, list[int]] = {}
        self._numbers: list[tuple[str, tuple[float, ...], list[int]]] = []
        self._values: list[tuple[str, dict[Any, int], list[int]]] = []
        for name, one in profile.fields.items():
            if name in fields:
                self._declare(name, fields[name], one)
        self.every = max(1, round(len(self.counts) / FIELDS_A_TRANSACTION))
        self.seen = self.counted = 0
        self._left = self.every
        self.refused: dict[str, int] = {}

    def _declare(self, name: str, recipe: FieldRecipe, one: FieldProfile) -> None:
        if one.edges:
            counts = [0] * (len(one.edges) + 2)
            # Above is what is larger than the largest.
            edges = (*one.edges[:-1], math.nextafter(one.edges[-1], math.inf))
            self._numbers.append((name, edges, counts))
        else:
            known: list[Any] = list(one.categories or {})
            if recipe.type == "flag":
                known = [value == "True" for value in known]
            places: dict[Any, int] = {value: place for place, value in enumerate(known, 1)}
            counts = [0] * (len(known) + 2)
            self._values.append((name, {None: 0, **places}, counts))
        self.counts[name] = counts

    def sees(self) -> bool:
        """Take note of a transaction that was answered; say whether it is to be counted."""
        self.seen += 1
        self._left -= 1
        if self._left:
            return False
        self._left = self.every
        return True

    def count(self, transaction: Mapping[str, Any]) -> None:
        """Count the fields of a transaction."""
        self.counted += 1
        get = transaction.get
        for name, edges, counts in self._numbers:
            value = get(name)
            # NaN is missing as None is.
            place = 0 if value is None or value != value else bisect_right(edges, value) + 1  # noqa: PLR0124
            counts[place] += 1
        for name, places, counts in self._values:
            counts[places.get(get(name), -1)] += 1

    def refuse(self, field: str, rule: str) -> None:
        """Count a transaction that a rule of a field refused."""
        key = f"{field[:200]}: {rule}"
        self.refused[key] = self.refused.get(key, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        """Return what was counted so far, as `figures` takes it."""
        return {
            "seen": self.seen,
            "counted": self.counted,
            "refused": dict(self.refused),
            "fields": {name: list(counts) for name, counts in self.counts.items()},
        }


@dataclass(frozen=True)
class FieldDrift:
    """How a field of live transactions differs from training.

    Attributes:
        counted: transactions that were counted.
        missing: the share in which it was missing.
        missing_trained: that share in training.
        unseen: the share whose category training had not; None where that is not counted.
        outside: the share below the least or above the largest of training; None for what is no number.
        psi: the population stability index over bins or categories and what is missing; None where there are
            none.
    """

    counted: int
    missing: float
    missing_trained: float
    unseen: float | None
    outside: float | None
    psi: float | None


def figures(profile: Profile, counts: Counts) -> dict[str, FieldDrift]:
    """Return each field's drift.

    Args:
        profile: of the spec.
        counts: field to its counts, of one counter or of several added up.
    """
    found = {}
    for name, one in profile.fields.items():
        counted = list(counts.get(name, []))
        if len(counted) == _size(one) and any(counted):
            found[name] = _drift(one, counted)
    return found


def _size(one: FieldProfile) -> int:
    return (len(one.edges) if one.edges else len(one.categories or {})) + 2


def _drift(one: FieldProfile, counts: Sequence[int]) -> FieldDrift:
    total = sum(counts)
    there = 1 - one.missing
    if one.edges:
        # What lies outside belongs to the bins at the ends.
        bins = list(counts[2:-1])
        bins[0] += counts[1]
        bins[-1] += counts[-1]
        trained = [one.missing, *(share * there for share in one.shares)]
        psi = _psi(trained, [counts[0], *bins])
        outside = (counts[1] + counts[-1]) / total
        return FieldDrift(total, counts[0] / total, one.missing, None, outside, psi)
    if one.categories is None:
        return FieldDrift(total, counts[0] / total, one.missing, None, None, None)
    shares = list(one.categories.values())
    trained = [one.missing, *(share * there for share in shares), max(0.0, 1 - sum(shares)) * there]
    unseen = None if one.more or sum(shares) < 1 - 1e-9 else counts[-1] / total
    return FieldDrift(total, counts[0] / total, one.missing, unseen, None, _psi(trained, counts))


def _psi(trained: Sequence[float], counts: Sequence[int]) -> float:
    """Return the population stability index: the sum of (p - q) ln(p / q) over bins."""
    total = sum(counts)
    live = [max(count / total, _LEAST_SHARE) for count in counts]
    before = [max(share, _LEAST_SHARE) for share in trained]
    return math.fsum((p - q) * math.log(p / q) for p, q in zip(live, before, strict=True))


def add(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Add two snapshots of counters of one spec."""
    fields = {
        name: [a + b for a, b in zip(left["fields"].get(name, [0] * len(counts)), counts, strict=False)]
        for name, counts in right["fields"].items()
    }
    refused = {
        key: left["refused"].get(key, 0) + right["refused"].get(key, 0)
        for key in {**left["refused"], **right["refused"]}
    }
    return {
        "seen": left["seen"] + right["seen"],
        "counted": left["counted"] + right["counted"],
        "refused": refused,
        "fields": {**left["fields"], **fields},
    }
