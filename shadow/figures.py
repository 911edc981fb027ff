"""The figures of a shadow: what a report shows, and what gates read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

from governance.database import Connection
from shadow import sections
from shadow.conclusions import conclude
from shadow.labelled import areas, gains
from shadow.pairs import Bounds, LabelledPairs, Pairs
from shadow.reading import Reading, read
from shadow.slices import find_slices
from shadow.statistics import (
    kolmogorov_smirnov,
    population_stability,
    rank_correlation,
    share,
    top_overlap,
)
from shadow.summary import Document

#: The difference of scores within which results agree, as the figure agreement_epsilon has it.
EPSILON: Final = "0.01"
#: Where neither the reader nor the champion's decisions say what can be looked at: one in a hundred.
BUDGET: Final = 0.01


@dataclass(frozen=True)
class Options:
    """What a reader may choose.

    Attributes:
        budget: share of transactions that may be alerted, in (0, 1]; None for what the champion does not
            approve.
        alert_cost: what looking at one costs, in the unit of the amounts.
        bounds: how much is read.
    """

    budget: float | None = None
    alert_cost: float = 0.0
    bounds: Bounds = field(default_factory=Bounds)


@dataclass(frozen=True)
class Figures:
    """A shadow in figures.

    Attributes:
        numbers: name to number, as policies name them; what is not known yet is not there.
        parts: what tables and pictures are made of, for JSON.
    """

    numbers: Mapping[str, float]
    parts: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        return {"figures": dict(self.numbers), **self.parts}


def figures(connection: Connection, shadow_id: int, options: Options | None = None) -> Figures:
    """Work out the figures of a shadow as of now. The shadow may be running.

    Raises:
        ReportError: there is no such shadow.
        SummaryError: another version wrote its summaries.
    """
    options = options or Options()
    return work_out(read(connection, shadow_id, options.bounds), options)


def work_out(reading: Reading, options: Options, *, first: str = "") -> Figures:
    """Work out the figures of what was read.

    Args:
        reading: what was read.
        options: what the reader chose.
        first: the name of the shadow that takes the champion's place, if one does.
    """
    summary = reading.summary
    budget = options.budget or _alert_share(summary, 0) or BUDGET
    labelled, of_labels = compare_labelled(reading.labelled, budget, options.alert_cost)
    found = find_slices(summary)
    drift = sections.drift(summary)
    times = sections.times(summary)
    numbers = {
        **_observed(reading),
        **_agreement(summary),
        **compare_pairs(reading.pairs, budget),
        **_flips(summary),
        **_times(times),
        **_drift(drift),
        **labelled,
    }
    parts = {
        "kind": "diff" if first else "shadow",
        "names": {"champion": first or "champion", "shadow": reading.shadow["name"]},
        "at": reading.at.astimezone(UTC).isoformat(),
        "shadow": _facts(reading.shadow),
        "budget": budget,
        "budget_from": _budget_from(options, summary),
        "alert_cost": options.alert_cost,
        "sampled": len(reading.pairs.ids),
        "coverage": sections.coverage(reading),
        "trend": sections.trend(summary),
        "within": {name: n / max(summary["n"], 1) for name, n in summary["within"].items()},
        "outputs": {
            name: {"compared": n, "exact": exact / n, "within": near / n}
            for name, (n, exact, near) in sorted(summary["outputs"].items())
        },
        "distributions": sections.distributions(summary),
        "cloud": sections.cloud(reading.pairs),
        "matrix": sections.matrix(summary),
        "reasons": sections.reasons(summary),
        "different": summary["different"],
        "dearest": summary["dearest"],
        "slices": sections.slices_part(found),
        "drift": drift,
        "times": times,
        "labelled": of_labels,
    }
    return Figures(numbers, {**parts, **conclude(numbers, parts)})


def _facts(shadow: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: shadow[name].astimezone(UTC).isoformat() for name in ("started_at", "state_at")}
    names = ("id", "environment", "name", "overrides", "sample", "amount_field", "state", "state_reason")
    return {**{name: shadow[name] for name in names}, **times, "started_by": shadow["started_by"]}


def _budget_from(options: Options, summary: Document) -> str:
    if options.budget:
        return "as asked for"
    return "what is not approved today" if _alert_share(summary, 0) else "one in a hundred"


def _alert_share(summary: Document, side: int) -> float:
    """Return the share of decided results that the champion (0) or the shadow (1) does not approve."""
    alerts = sum(
        found[0] for name, found in summary["outcomes"].items() if name.split(">")[side] != "approve"
    )
    return alerts / summary["decided"] if summary["decided"] else 0.0


def _observed(reading: Reading) -> dict[str, float]:
    summary = reading.summary
    found: dict[str, float] = {"observations": summary["n"], "unknown_scores": summary["unknown"]}
    if summary["n"]:
        found["hours"] = (summary["last"] - summary["first"]) / 3.6e9
    seen = reading.coverage
    if seen and seen.expected:
        found |= share(seen.found, seen.expected).figures("coverage")
    lag = sections.lag_s(reading)
    if lag is not None:
        found["lag_s"] = lag
    failed = [(node["mine"] or {}).get(name, 0) for node in reading.nodes for name in ("poison", "refused")]
    found["failed"] = sum(failed)
    return found


def _agreement(summary: Document) -> dict[str, float]:
    compared = summary["n"] - summary["unknown"]
    if not compared:
        return {}
    return {
        **share(summary["exact"], compared).figures("agreement_exact"),
        **share(summary["within"][EPSILON], compared).figures("agreement_epsilon"),
        "mean_difference": summary["all"][3] / compared / 1e6,
    }


def compare_pairs(pairs: Pairs, budget: float) -> dict[str, float]:
    """Return the figures of a sample: correlation of ranks, stability, distance, overlap of the highest."""
    if not len(pairs.ids):
        return {}
    found = {
        **population_stability(pairs.first, pairs.second).figures("psi"),
        **kolmogorov_smirnov(pairs.first, pairs.second).figures("ks"),
        "top_overlap": top_overlap(pairs.first, pairs.second, budget),
    }
    correlation = rank_correlation(pairs.first, pairs.second)
    return found | (correlation.figures("rank_correlation") if correlation else {})


def _flips(summary: Document) -> dict[str, float]:
    if not summary["decided"]:
        return {}
    return {
        **share(summary["all"][1], summary["decided"]).figures("flip_rate"),
        "flips": summary["all"][1],
        "flip_amount": summary["all"][5] / 1000,
        "alert_share_champion": _alert_share(summary, 0),
        "alert_share_shadow": _alert_share(summary, 1),
    }


def _times(times: Mapping[str, Any]) -> dict[str, float]:
    """Return ratios of the stages that both sides were timed in: the shadow's time over the champion's."""
    both = times["champion"].keys() & times["shadow"].keys()
    found = {}
    for figure, of in (("latency_ratio", "p50_us"), ("latency_ratio_p99", "p99_us")):
        champion, shadow = (sum(times[side][stage][of] for stage in both) for side in sections.SIDES)
        if champion:
            found[figure] = shadow / champion
    return found


def _drift(drift: list[dict[str, Any]]) -> dict[str, float]:
    if not drift:
        return {}
    return {
        "drift_psi_max": max(one["psi"] or 0.0 for one in drift),
        "drift_differs_max": max(one["differs"] for one in drift),
    }


def compare_labelled(
    found: LabelledPairs, budget: float, alert_cost: float
) -> tuple[dict[str, float], dict[str, Any] | None]:
    """Return the figures and the curves of labelled pairs; None for curves where there are too few."""
    numbers: dict[str, float] = {
        "labels": found.positives + found.negatives,
        "positives": found.positives,
    }
    if found.share is not None:
        numbers["labels_share"] = found.share
    labelled = sections.labelled_of(found)
    if not labelled.enough:
        return numbers, None
    area = areas(labelled)
    gain = gains(labelled, budget)
    numbers |= {
        "auc_champion": area.champion.value,
        "auc_shadow": area.shadow.value,
        **area.gain.figures("auc_gain"),
        "precision_at_budget_champion": gain.precision[0].value,
        "precision_at_budget_shadow": gain.precision[1].value,
        **gain.precision[2].figures("precision_gain"),
        "recall_at_budget_champion": gain.recall[0].value,
        "recall_at_budget_shadow": gain.recall[1].value,
        **gain.recall[2].figures("recall_gain"),
        "money_champion": gain.money[0].value,
        "money_shadow": gain.money[1].value,
        **gain.money[2].figures("money_gain"),
        "money_gain_per_1000": 1000 * gain.money[2].value / (found.positives + found.negatives),
    }
    return numbers, {
        "positives_read": int(found.positive.sum()),
        "negatives_read": int((~found.positive).sum()),
        **sections.curves(gain, area, budget, alert_cost),
    }
