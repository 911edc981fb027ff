"""What a reader should make of the figures: how sure they are, what is not known yet, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

from shadow.wording import VERDICTS, amount, interval, percent, seconds

Numbers = Mapping[str, float]
#: A finding: its level (good, bad, unsure, known) and its sentence.
Finding = tuple[str, str]

#: Where figures begin to worry.
_COVERED, _LAG_S, _SLOWER, _MOVED = 0.99, 60.0, 1.5, 0.25
#: Positives below which intervals are wide.
_FEW_POSITIVES: Final = 50


def conclude(numbers: Numbers, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict, the findings, what is not known yet, and what to do next.

    Args:
        numbers: the flat figures.
        parts: the other parts of the report.
    """
    if not numbers["observations"]:
        state = parts["shadow"]["state"]
        return {
            "verdict": "nothing yet",
            "headline": VERDICTS["nothing yet"],
            "findings": [],
            "unknown": ["Everything: no result was stored yet."],
            "next": _without_results(state, parts["shadow"]["name"], parts["shadow"]["state_reason"]),
        }
    first = "the champion" if parts["kind"] == "shadow" else parts["names"]["champion"]
    findings = [
        *_health(numbers),
        *_likeness(numbers, first),
        *_value(numbers, parts),
        *_cost(numbers, first),
    ]
    verdict = _verdict(numbers)
    return {
        "verdict": verdict,
        "headline": _headline(verdict, parts),
        "findings": [{"level": level, "text": text} for level, text in findings],
        "unknown": list(_unknown(numbers, parts)),
        "next": _next(verdict, numbers, parts),
    }


def _headline(verdict: str, parts: Mapping[str, Any]) -> str:
    if parts["kind"] == "shadow":
        return VERDICTS[verdict]
    names = parts["names"]
    shadow_first = VERDICTS[verdict].replace("The shadow", names["shadow"])
    return shadow_first.replace("the champion", names["champion"])


def _without_results(state: str, name: str, reason: str) -> str:
    if state == "running":
        return (
            "Is a shadow node running (`run.py status`), and are transactions coming? "
            "Results are stored within seconds of the live answers."
        )
    why = f" ({reason})" if reason else ""
    return f"The shadow is {state}{why}: `run.py shadow start {name}` starts it again."


def _health(numbers: Numbers) -> Iterator[Finding]:
    if "coverage" in numbers:
        covered = numbers["coverage"]
        level = "known" if covered >= _COVERED else "bad"
        text = f"{interval(numbers, 'coverage', as_percent=True)} of the live transactions have a result."
        yield level, text + ("" if level == "known" else " What is missing may differ from what is here.")
    if numbers.get("lag_s", 0) > _LAG_S:
        lag = seconds(numbers["lag_s"])
        yield "bad", f"It is {lag} behind the live stream: more shadow nodes share the work."
    if numbers.get("failed"):
        yield "bad", f"{amount(numbers['failed'])} transactions could not be evaluated by the shadow."
    if numbers["unknown_scores"]:
        yield "bad", f"{amount(numbers['unknown_scores'])} results have a score that is no finite number."


def _likeness(numbers: Numbers, first: str) -> Iterator[Finding]:
    if "agreement_exact" not in numbers:
        return
    n = amount(numbers["observations"])
    if numbers["agreement_exact"] == 1:
        yield "known", f"All scores are those of {first} to the last bit, in {n} results."
    else:
        within = interval(numbers, "agreement_epsilon", as_percent=True)
        yield "known", f"{within} of the scores lie within 0.01 of {first}'s, in {n} results."
        if "rank_correlation" in numbers:
            correlation = interval(numbers, "rank_correlation")
            text = f"Ranks correlate by {correlation}; of the highest scores of {first}"
            yield "known", f"{text} {percent(numbers['top_overlap'])} are among its highest too."
    if "flip_rate" in numbers:
        rate = interval(numbers, "flip_rate", as_percent=True)
        at_stake = amount(numbers["flip_amount"])
        yield "known", f"{rate} of the decisions differ, {at_stake} in amounts at stake."
        champion, shadow = (percent(numbers[f"alert_share_{side}"]) for side in ("champion", "shadow"))
        yield "known", f"It does not approve {shadow} of the transactions, {first} {champion}."
    if numbers.get("psi", 0) >= _MOVED:
        psi = interval(numbers, "psi")
        text = f"The distribution of scores is another one, PSI {psi}: thresholds of rules"
        yield "unsure", f"{text} that were set for {first} mean something else here."


def _value(numbers: Numbers, parts: Mapping[str, Any]) -> Iterator[Finding]:
    if "auc_gain" not in numbers:
        return
    n = f"{amount(parts['labelled']['positives_read'])} positives and "
    n += f"{amount(parts['labelled']['negatives_read'])} negatives"
    yield _better(
        numbers,
        "auc_gain",
        f"It ranks {{}}: AUC {numbers['auc_shadow']:.3f} against"
        f" {numbers['auc_champion']:.3f}, a gain of {interval(numbers, 'auc_gain')}, on {n}.",
    )
    share = percent(parts["budget"])
    precision = [percent(numbers[f"precision_at_budget_{side}"]) for side in ("shadow", "champion")]
    gain = interval(numbers, "precision_gain", as_percent=True)
    yield _better(
        numbers,
        "precision_gain",
        f"With {share} of the transactions alerted it is {{}}: {precision[0]} of its"
        f" alerts are right against {precision[1]}, a gain of {gain}.",
    )
    yield _better(
        numbers,
        "money_gain",
        f"With {share} alerted it saves {{}}: {amount(numbers['money_shadow'])} against"
        f" {amount(numbers['money_champion'])}, a gain of {interval(numbers, 'money_gain')}.",
        words=("more", "less", "neither more nor less, as far as can be told"),
    )


def _better(
    numbers: Numbers,
    name: str,
    text: str,
    *,
    words: tuple[str, str, str] = ("better", "worse", "neither better nor worse, as far as can be told"),
) -> Finding:
    if numbers[f"{name}_low"] > 0:
        return "good", text.format(words[0])
    if numbers[f"{name}_high"] < 0:
        return "bad", text.format(words[1])
    return "unsure", text.format(words[2])


def _cost(numbers: Numbers, first: str) -> Iterator[Finding]:
    ratio = numbers.get("latency_ratio")
    if ratio is None:
        return
    level = "bad" if ratio > _SLOWER else "known"
    text = f"Its stages take {ratio:.2f} times as long as {first}'s"
    yield level, f"{text} (median, of stages that both ran; a shadow scores in batches)."


def _verdict(numbers: Numbers) -> str:
    if numbers.get("agreement_exact") == 1 and not numbers.get("flips"):
        return "identical"
    if "auc_gain" not in numbers:
        return "not known yet"
    gains = [numbers[f"{name}_low"] for name in ("auc_gain", "money_gain")]
    losses = [numbers[f"{name}_high"] for name in ("auc_gain", "money_gain")]
    if max(gains) > 0 and min(losses) > 0:
        return "better"
    if min(losses) < 0 and max(gains) <= 0:
        return "worse"
    return "mixed" if max(gains) > 0 else "not known yet"


def _unknown(numbers: Numbers, parts: Mapping[str, Any]) -> Iterator[str]:
    if parts["kind"] == "diff":
        yield from _unknown_of_labels(numbers)
        return
    if "coverage" not in numbers:
        yield (
            "Coverage: no live transactions of the shadow's time are in the database "
            "(a sink stores them: `run.py node sink`)."
        )
    if "lag_s" not in numbers:
        yield "Lag: no shadow node has told yet how far it has come."
    if "flip_rate" not in numbers:
        yield "Decisions: one of the pipelines has no decision rules, so that only scores can be compared."
    if "latency_ratio" not in numbers:
        yield "Cost: no stage was run by both, so that their times cannot be compared."
    yield from _unknown_of_labels(numbers)


def _unknown_of_labels(numbers: Numbers) -> Iterator[str]:
    labels, positives = amount(numbers["labels"]), amount(numbers["positives"])
    if not numbers["labels"]:
        yield (
            "Whether it is better: no transaction has a label yet "
            "(`run.py labels import FILE` brings charge-backs and reviews)."
        )
    elif "auc_gain" not in numbers:
        yield (
            f"Whether it is better: {positives} of {labels} labels are positive; "
            "five positives and five negatives are needed for a first figure."
        )
    elif numbers["positives"] < _FEW_POSITIVES:
        yield f"Much: {positives} positives make wide intervals."
    share = numbers.get("labels_share", 0.0)
    if 0 < share < 0.5:  # noqa: PLR2004 - less than half
        yield (
            f"The labels of most transactions: {percent(share)} of the results have one. Where only what the "
            "champion alerted is looked into, what the shadow finds beyond that counts for nothing here."
        )


def _next(verdict: str, numbers: Numbers, parts: Mapping[str, Any]) -> str:
    if parts["kind"] == "diff":
        return _next_of_two(verdict, numbers, parts["names"])
    name = parts["shadow"]["name"]
    if numbers.get("coverage", 1.0) < _COVERED:
        return (
            "Find out why results are missing (`run.py status`, the dead-letter topic) before you conclude."
        )
    told = {
        "better": f"`run.py shadow promote {name}`: the gates of the environment read these figures.",
        "worse": f"`run.py shadow retire {name} --reason ...`, or train it again.",
        "identical": "It can replace the champion unnoticed; labels would say the same of both.",
        "mixed": "Look at the curve of money and the slices below, and decide which of the two matters.",
    }
    if verdict in told:
        return told[verdict]
    if not numbers["labels"]:
        return "Let it run, and import labels when they come: likeness alone does not say which is right."
    return _how_many_more(numbers)


def _next_of_two(verdict: str, numbers: Numbers, names: Mapping[str, str]) -> str:
    if verdict in ("better", "worse"):
        kept, other = names["shadow"], names["champion"]
        if verdict == "worse":
            kept, other = other, kept
        return f"Keep {kept}: `run.py shadow retire {other} --reason ...`."
    if verdict == "identical":
        return "One of the two is enough."
    if verdict == "mixed":
        return "Look at the curve of money and the slices, and decide which of the two matters."
    if not numbers["labels"]:
        return "Let both run, and import labels when they come: likeness alone does not say which is right."
    return _how_many_more(numbers)


def _how_many_more(numbers: Numbers) -> str:
    if "auc_gain" not in numbers or not numbers["auc_gain"]:
        return "Let it run until more labels have come."
    width = (numbers["auc_gain_high"] - numbers["auc_gain_low"]) / 2
    factor = (width / abs(numbers["auc_gain"])) ** 2
    needed = math.ceil(numbers["positives"] * max(factor, 1.0))
    return (
        f"Let it run: if the gain is what it seems, about {amount(needed)} positives tell it from chance "
        f"(there are {amount(numbers['positives'])})."
    )
