"""Scores of the same transactions by two sides, read as uniform samples of bounded size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import numpy as np
from numpy.typing import NDArray

from governance.database import Connection

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Bounds:
    """How much a report reads.

    Attributes:
        sample: results that are read one by one: those of the lowest rank, a uniform sample.
        labelled: labelled results of each label that are read one by one.
        walk: results, and positive labels, that are looked through for them.
        live: live transactions that are looked up among the results.
    """

    sample: int = 5_000
    labelled: int = 5_000
    walk: int = 20_000
    live: int = 5_000


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scores of the same transactions by two sides, first the champion (or the other candidate).

    Attributes:
        ids: the transactions' ids.
        first: float64 [n], finite.
        second: float64 [n], finite.
        outcomes: of each, the first's and the second's; None where nothing was decided.
        amount: float64 [n]; NaN where it is not known.
    """

    ids: Sequence[str]
    first: Numbers
    second: Numbers
    outcomes: Sequence[tuple[str | None, str | None]]
    amount: Numbers


@dataclass(frozen=True, eq=False)
class LabelledPairs:
    """Pairs of a known label.

    Attributes:
        pairs: them.
        positive: bool [n].
        positives: how many positives there are in all, as far as it is known.
        negatives: how many negatives.
        share: the share of the results that have a label; None where no result was looked at.
    """

    pairs: Pairs
    positive: NDArray[np.bool_]
    positives: float
    negatives: float
    share: float | None


#: The results of the lowest ranks.
_MINE: Final = (
    "mine AS MATERIALIZED"
    " (SELECT transaction_id, rank, amount, champion_score, shadow_score, champion_outcome, shadow_outcome"
    " FROM shadow_result WHERE shadow = %(shadow)s ORDER BY rank LIMIT %(walk)s)"
)
_AGAINST_CHAMPION: Final = (
    "a.transaction_id, a.rank, a.amount, a.champion_score AS first, a.shadow_score AS second,"
    " a.champion_outcome AS first_outcome, a.shadow_outcome AS second_outcome"
)
_AGAINST_OTHER: Final = (
    "a.transaction_id, a.rank, a.amount, a.shadow_score AS first, b.shadow_score AS second,"
    " a.shadow_outcome AS first_outcome, b.shadow_outcome AS second_outcome"
)
# Each looked up by its key, whatever the planner thinks of reading the whole table instead: LIMIT sees to it.
_OTHER: Final = (
    " CROSS JOIN LATERAL (SELECT * FROM shadow_result"
    " WHERE shadow = %(other)s AND transaction_id = a.transaction_id LIMIT 1) b"
)


def _pair(other: int | None) -> tuple[LiteralString, LiteralString]:
    """Return the columns of a pair, and what joins its other side."""
    return (_AGAINST_CHAMPION, "") if other is None else (_AGAINST_OTHER, _OTHER)


def read_pairs(connection: Connection, shadow: int, other: int | None, bounds: Bounds) -> Pairs:
    """Return a uniform sample of a shadow's results, beside the champion's or beside another shadow's."""
    columns, join = _pair(other)
    walk = bounds.sample if other is None else bounds.walk
    rows = connection.execute(
        f"WITH {_MINE} SELECT {columns} FROM mine a{join}"  # noqa: S608 - of our own
        " ORDER BY a.rank LIMIT %(sample)s",
        {"shadow": shadow, "other": other, "walk": walk, "sample": bounds.sample},
    ).fetchall()
    return _pairs(rows)


def read_labelled(
    connection: Connection, environment: str, shadow: int, other: int | None, bounds: Bounds, *, total: int
) -> LabelledPairs:
    """Return results whose transaction has a label: positives and negatives, each a uniform sample.

    The results of the lowest ranks tell how frequent both labels are. Where positives are so rare that few of
    them are among these, more are found from the side of the labels.

    Args:
        connection: to the database.
        environment: whose labels.
        shadow: the number of a shadow.
        other: the number of another, if it is compared with that.
        bounds: how much is read.
        total: how many results the shadow has.
    """
    columns, join = _pair(other)
    terms = {"environment": environment, "shadow": shadow, "other": other}
    terms |= {"walk": bounds.walk, "limit": bounds.labelled}
    window = connection.execute(
        f"WITH {_MINE}, p AS MATERIALIZED (SELECT {columns} FROM mine a{join}),"  # noqa: S608 - of our own
        " labelled AS ("
        " SELECT p.*, l.positive, count(*) OVER (PARTITION BY l.positive) AS alike,"
        "  row_number() OVER (PARTITION BY l.positive ORDER BY p.rank) AS place"
        " FROM p CROSS JOIN LATERAL (SELECT positive FROM label"
        "  WHERE environment = %(environment)s AND transaction_id = p.transaction_id LIMIT 1) l)"
        " SELECT *, (SELECT count(*) FROM mine) AS seen, (SELECT count(*) FROM p) AS walked"
        " FROM labelled WHERE place <= %(limit)s",
        terms,
    ).fetchall()
    rare = connection.execute(
        "WITH l AS MATERIALIZED ("  # noqa: S608 - of our own
        "SELECT transaction_id, md5(transaction_id) AS chance FROM label"
        " WHERE environment = %(environment)s AND positive ORDER BY md5(transaction_id) LIMIT %(walk)s)"
        f" SELECT {columns}, true AS positive, count(*) OVER () AS alike, (SELECT count(*) FROM l) AS seen"
        " FROM l CROSS JOIN LATERAL (SELECT * FROM shadow_result"
        "  WHERE shadow = %(shadow)s AND transaction_id = l.transaction_id LIMIT 1) a"
        f"{join} ORDER BY l.chance LIMIT %(limit)s",
        terms,
    ).fetchall()
    return _labelled(window, rare, bounds, total)


def _labelled(
    window: Sequence[Mapping[str, Any]], rare: Sequence[Mapping[str, Any]], bounds: Bounds, total: int
) -> LabelledPairs:
    positive = [row for row in window if row["positive"]]
    negative = [row for row in window if not row["positive"]]
    seen = window[0]["seen"] if window else 0
    # Each result that was looked through stands for so many.
    scale = total / seen if seen >= bounds.walk else 1.0
    negatives = _alike(negative) * scale
    all_positives_seen = bool(rare) and rare[0]["seen"] < bounds.walk
    positives = _alike(rare) if all_positives_seen else _alike(positive) * scale
    found = (_alike(positive) + _alike(negative)) / window[0]["walked"] if window else 0.0
    kept = (rare if len(rare) >= len(positive) else positive, negative)
    pairs = _pairs([row for rows in kept for row in rows])
    known = {row["transaction_id"] for row in kept[0]}
    return LabelledPairs(
        pairs, np.array([id_ in known for id_ in pairs.ids], bool), positives, negatives, found
    )


def _alike(rows: Sequence[Mapping[str, Any]]) -> float:
    return float(rows[0]["alike"]) if rows else 0.0


def _pairs(rows: Sequence[Mapping[str, Any]]) -> Pairs:
    usable = [row for row in rows if math.isfinite(row["first"]) and math.isfinite(row["second"])]
    amounts = [math.nan if row["amount"] is None else row["amount"] for row in usable]
    return Pairs(
        ids=[row["transaction_id"] for row in usable],
        first=np.array([row["first"] for row in usable], np.float64),
        second=np.array([row["second"] for row in usable], np.float64),
        outcomes=[(row["first_outcome"], row["second_outcome"]) for row in usable],
        amount=np.array(amounts, np.float64),
    )
