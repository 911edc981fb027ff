"""The parts of a report, worked out from what was read; each is made for JSON and bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from shadow.buckets import FEATURES, SCORES, TIMES, Scale, quantile, sorted_counts
from shadow.labelled import SHARES, Areas, Curve, Gains, Labelled
from shadow.pairs import LabelledPairs, Pairs
from shadow.reading import Reading
from shadow.slices import Found
from shadow.statistics import stability_of_buckets
from shadow.summary import Document
from shadow.summary_schema import HOURS, MINUTES

Numbers = NDArray[np.float64]

#: Bars of a picture of scores; points of a cloud; points of a curve.
BARS, POINTS, STEPS = 50, 800, 101
#: Shares of transactions whose thresholds are told.
TOLD_SHARES: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
SIDES: Final = ("champion", "shadow")


def trend(summary: Document) -> list[dict[str, Any]]:
    """Return minutes, hours or days, the finest of which all are kept, each with its results and flips."""
    if summary["last"] is None:
        return []
    minutes = (summary["last"] - summary["first"]) / 60e6
    kept = "minutes" if minutes < MINUTES else "hours" if minutes < 60 * HOURS else "days"
    return [
        {
            "when": when,
            "results": sums[0],
            "flip_rate": sums[1] / sums[0],
            "mean_difference": sums[3] / max(sums[2], 1) / 1e6,
        }
        for when, sums in sorted(summary[kept].items())
    ]


def distributions(summary: Document) -> dict[str, Any]:
    """Return bars of both sides' scores, as shares of the results."""
    counts = summary["scores"]
    edges = _edges(counts)
    return {
        "edges": edges.tolist(),
        **{side: _bars(SCORES, counts[side], edges).tolist() for side in SIDES},
        "median": {side: quantile(SCORES, counts[side], 0.5) for side in SIDES},
    }


def _edges(counts: Mapping[str, Mapping[str, int]]) -> Numbers:
    """Return 0 to 1 where all scores lie there, and from the lowest to the highest thousandth otherwise."""
    buckets = [int(bucket) for side in SIDES for bucket in counts[side]]
    one = int(SCORES.index(1.0))
    if not buckets or (min(buckets) >= 0 and max(buckets) <= one):
        return np.linspace(0, 1, BARS + 1)
    ends = [quantile(SCORES, counts[side], share) or 0.0 for side in SIDES for share in (0.001, 0.999)]
    low, high = min(ends), max(ends)
    return np.linspace(low, high if high > low else low + 1, BARS + 1)


def _bars(scale: Scale, counts: Mapping[str, int], edges: Numbers) -> Numbers:
    """Return the share of the counted values between each two edges; a bucket is spread over its width."""
    found = sorted_counts(counts)
    if not found:
        return np.zeros(len(edges) - 1)
    bounds = np.array([scale.bounds(bucket) for bucket, _ in found])
    upto = np.cumsum([count for _, count in found], dtype=np.float64)
    # Nothing lies between a bucket's upper bound and the next one's lower.
    below = np.repeat(np.concatenate([[0.0], upto]), 2)[1:-1]
    reached = np.interp(edges, bounds.ravel(), below)
    # What lies beyond is told at the ends.
    reached[0], reached[-1] = 0.0, upto[-1]
    return np.asarray(np.diff(reached) / upto[-1])


def cloud(pairs: Pairs) -> list[list[Any]]:
    """Return points of a picture: the champion's score, the shadow's, and whether the outcomes differ."""
    points = zip(pairs.first[:POINTS].tolist(), pairs.second[:POINTS].tolist(), pairs.outcomes, strict=False)
    return [[a, b, x is not None and y is not None and x != y] for a, b, (x, y) in points]


def matrix(summary: Document) -> dict[str, Any]:
    """Return the outcomes of both sides: how many results have each pair of them, and what amount."""
    cells = []
    for name, (results, _, amount) in sorted(summary["outcomes"].items()):
        champion, _, shadow = name.partition(">")
        cells.append({"champion": champion, "shadow": shadow, "results": results, "amount": amount / 1000})
    return {"decided": summary["decided"], "cells": cells}


def matrix_of_pairs(pairs: Pairs) -> dict[str, Any]:
    """Return the same of a sample."""
    cells: dict[tuple[str, str], list[float]] = {}
    for (first, second), amount in zip(pairs.outcomes, pairs.amount.tolist(), strict=True):
        if first is not None and second is not None:
            cell = cells.setdefault((first, second), [0, 0.0])
            cell[0] += 1
            cell[1] += amount if np.isfinite(amount) else 0.0
    found = [
        {"champion": a, "shadow": b, "results": int(n), "amount": amount}
        for (a, b), (n, amount) in sorted(cells.items())
    ]
    return {"decided": sum(cell["results"] for cell in found), "cells": found}


def reasons(summary: Document, *, most: int = 20) -> list[dict[str, Any]]:
    """Return the reason codes whose frequency differs most."""
    found = [
        {"code": code, "champion": champion, "shadow": shadow}
        for code, (champion, shadow) in summary["reasons"].items()
    ]
    return sorted(found, key=lambda one: (-abs(one["shadow"] - one["champion"]), one["code"]))[:most]


def times(summary: Document) -> dict[str, Any]:
    """Return side to stage to how long it took."""
    return {
        side: {
            stage: {
                "timed": found["n"],
                "mean_us": found["sum"] / found["n"],
                "p50_us": quantile(TIMES, found["buckets"], 0.5),
                "p99_us": quantile(TIMES, found["buckets"], 0.99),
            }
            for stage, found in sorted(summary["us"][side].items())
        }
        for side in SIDES
    }


def drift(summary: Document, *, most: int = 30) -> list[dict[str, Any]]:
    """Return the features of both sides whose values differ most."""
    found = [
        {
            "feature": name,
            "results": one["n"],
            "differs": one["differs"] / one["n"],
            "missing_champion": one["missing"][0] / one["n"],
            "missing_shadow": one["missing"][1] / one["n"],
            "psi": stability_of_buckets(one["champion"], one["shadow"]),
            "median_champion": quantile(FEATURES, one["champion"], 0.5),
            "median_shadow": quantile(FEATURES, one["shadow"], 0.5),
        }
        for name, one in summary["drift"].items()
    ]
    return sorted(found, key=lambda one: (-(one["psi"] or 0), -one["differs"], one["feature"]))[:most]


def slices_part(found: Found) -> dict[str, Any]:
    """Return slices for JSON."""
    return {
        "looked_at": found.looked_at,
        "partly": list(found.partly),
        "slices": [asdict(one) for one in found.slices],
    }


def labelled_of(found: LabelledPairs) -> Labelled:
    """Return labelled pairs as the statistics take them; an unknown amount counts as nothing."""
    return Labelled(
        champion=found.pairs.first,
        shadow=found.pairs.second,
        positive=found.positive,
        amount=np.nan_to_num(found.pairs.amount, posinf=0.0, neginf=0.0),
        positives=found.positives,
        negatives=found.negatives,
    )


def curves(found: Gains, area: Areas, budget: float, alert_cost: float) -> dict[str, Any]:
    """Return curves of both sides for pictures and tables, thinned to a bounded number of points.

    Args:
        found: the gains.
        area: the areas.
        budget: share of transactions that may be alerted.
        alert_cost: what looking at one costs.
    """
    grid = np.linspace(0, 1, STEPS)
    fine = np.concatenate([np.geomspace(1e-4, 0.1, STEPS), np.linspace(0.1, 1, STEPS)[1:]])
    sides = {"champion": found.champion, "shadow": found.shadow}
    shares = sorted({*TOLD_SHARES, budget})
    return {
        "p_value": area.p_value,
        "average_precision": {side: curve.average_precision for side, curve in sides.items()},
        "roc": {
            "fallout": fine.tolist(),
            **{side: np.interp(fine, curve.fallout, curve.recall).tolist() for side, curve in sides.items()},
        },
        "precision_recall": {
            "recall": grid[1:].tolist(),
            **{side: _precision_at(curve, grid[1:]).tolist() for side, curve in sides.items()},
        },
        "money": {
            "share": SHARES.tolist(),
            "low": found.bands[0].tolist(),
            "high": found.bands[1].tolist(),
            **{side: _net(curve, SHARES, alert_cost).tolist() for side, curve in sides.items()},
            "threshold": {side: _threshold(curve, SHARES).tolist() for side, curve in sides.items()},
        },
        "thresholds": [
            {"share": share, **{side: _at(curve, share, alert_cost) for side, curve in sides.items()}}
            for share in shares
        ],
    }


def _precision_at(curve: Curve, recall: Numbers) -> Numbers:
    """Return the precision where a share of the positives is caught, at the first score that reaches it."""
    places = np.minimum(np.searchsorted(curve.recall, recall - 1e-12), len(curve.recall) - 1)
    return np.asarray(curve.precision[places])


def _net(curve: Curve, shares: Numbers, alert_cost: float) -> Numbers:
    return np.asarray(curve.at(shares, curve.money) - alert_cost * shares * curve.alerts[-1])


def _threshold(curve: Curve, shares: Numbers) -> Numbers:
    """Return the lowest score that is alerted where a share of all transactions is."""
    places = np.searchsorted(curve.alerts, shares * curve.alerts[-1] * (1 - 1e-12))
    return np.asarray(curve.threshold[np.clip(places, 1, len(curve.threshold) - 1)])


def _at(curve: Curve, share: float, alert_cost: float) -> dict[str, float]:
    caught = float(curve.at(share, curve.caught))
    return {
        "threshold": float(_threshold(curve, np.array([share]))[0]),
        "precision": caught / (share * float(curve.alerts[-1])),
        "recall": caught / float(curve.caught[-1]),
        "money": float(_net(curve, np.array([share]), alert_cost)[0]),
    }


def lag_s(reading: Reading, *, stale_s: float = 15.0) -> float | None:
    """Return how many seconds the newest stored results are behind, in the partition that is furthest behind.

    A partition of which nothing was heard for a while has fallen behind since then, if it was not at its end.
    """
    behind = [row["behind_s"] + (row["age_s"] if row["age_s"] > stale_s else 0.0) for row in reading.progress]
    return max(behind, default=None)


def coverage(reading: Reading) -> dict[str, Any]:
    """Return how much of the live stream has results, and how far they are behind."""
    seen = reading.coverage
    return {
        "results": reading.summary["n"],
        "sample": reading.shadow["sample"],
        "first": reading.summary["first"],
        "last": reading.summary["last"],
        "looked_at": seen.looked_at if seen else 0,
        "expected": seen.expected if seen else 0,
        "found": seen.found if seen else 0,
        "lag_s": lag_s(reading),
        "partitions": [dict(row) for row in reading.progress],
        "nodes": [dict(row) for row in reading.nodes],
        "releases": {str(int(name)): n for name, n in sorted(reading.summary["releases"].items())},
    }
