"""What the results of a shadow come to: a document that merges, however the results are split into parts.

`fold` makes one of some results; `merge` makes one of two. Merging is associative and commutative to the last
digit, since all that is added is an integer: counts, amounts in thousandths, differences of scores in
millionths. A document's size has a bound whatever the number of results, and jsonb can hold it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, Final

import numpy as np

from shadow import summary_parts as parts
from shadow.buckets import SCORES
from shadow.result import ResultRow
from shadow.summary_schema import EPSILONS, SUMMARY

Document = dict[str, Any]

#: Rows that are folded at once: sums of that many fit 64 bits (summary_parts).
_ROWS: Final = 4096
_MINUTE_US: Final = 60_000_000
#: How many letters of 2026-01-31T23:59 name a moment.
_MOMENTS: Final = {"minutes": 16, "hours": 13, "days": 10}


def fold(rows: Sequence[ResultRow]) -> Document:
    """Return what some results come to."""
    return merge_all(_fold(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS))


def merge(a: Mapping[str, Any], b: Mapping[str, Any]) -> Document:
    """Return what two documents come to; neither is changed. An empty map is a document of no results.

    Raises:
        SummaryError: one of the two was written by another version.
    """
    return SUMMARY.merge(a, b)


def merge_all(documents: Iterable[Mapping[str, Any]]) -> Document:
    """Return what documents come to.

    Raises:
        SummaryError: one of them was written by another version.
    """
    return reduce(merge, documents, SUMMARY.empty())


def _fold(rows: Sequence[ResultRow]) -> Document:
    facts = parts.facts_of(rows)
    moments = np.array([parts.microseconds(row.at) for row in rows], np.int64)
    minutes = np.datetime_as_string((moments // _MINUTE_US).astype("datetime64[m]")).tolist()
    return {
        **_agreement(facts),
        "v": SUMMARY.parts["v"].empty(),
        "n": len(rows),
        "first": int(moments.min()),
        "last": int(moments.max()),
        "outputs": parts.outputs(rows),
        "decided": int(facts.decided.sum()),
        "outcomes": parts.outcomes(rows, facts),
        "reasons": parts.reasons(rows),
        "amount": [int(facts.paid.sum()), int(facts.amount.sum())],
        "all": facts.group.sum(axis=0).tolist(),
        "us": {
            "champion": parts.times(row.champion_us for row in rows),
            "shadow": parts.times(row.shadow_us for row in rows),
        },
        "slices": parts.slices(rows, facts),
        "drift": parts.drift(rows),
        "different": parts.top(rows, facts.known, np.abs(facts.difference)),
        "dearest": parts.top(rows, facts.flipped & facts.paid, facts.amount / 1000),
        **{
            part: kind.merge(parts.groups([minute[:letters] for minute in minutes], facts.group), {})
            for part, letters in _MOMENTS.items()
            for kind in [SUMMARY.parts[part]]
        },
        "releases": {
            name: sums[0]
            for name, sums in parts.groups([f"{row.release:010}" for row in rows], facts.group).items()
        },
    }


def _agreement(facts: parts.Facts) -> Document:
    known = facts.known
    difference = facts.difference[known]
    return {
        "unknown": int((~known).sum()),
        "exact": int((difference == 0).sum()),
        "within": {epsilon: int((np.abs(difference) <= float(epsilon)).sum()) for epsilon in EPSILONS},
        "scores": {
            "champion": SCORES.count(facts.champion[known]),
            "shadow": SCORES.count(facts.shadow[known]),
        },
        "difference": SCORES.count(difference),
    }
