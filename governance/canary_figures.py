"""What was counted of a canary and of its champion, and what its gates make of that."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from governance.database import Connection
from governance.policy import CanaryPolicy
from models.histogram import Histogram, merge, quantile, stability

State = Literal["holds", "waits", "broken"]

#: Observations from which on errors that chance cannot explain end a canary, however many were asked for.
_FEW: Final = 20
#: How likely errors may be by chance alone that end a canary before that.
_CHANCE: Final = 1 / 2000


@dataclass(frozen=True)
class Side:
    """What was counted of the canary, or of the champion.

    Attributes:
        requests: transactions.
        errors: how each ended that was not answered with scores, to how many.
        error_rate: their share; 0 where there were no transactions.
        p50_us: median microseconds of an answer in the preprocessor; None where there was none.
        p99_us: their 99th percentile.
        p50_score: the median of the last scores.
    """

    requests: int
    errors: Mapping[str, int]
    error_rate: float
    p50_us: float | None
    p99_us: float | None
    p50_score: float | None


@dataclass(frozen=True)
class Figures:
    """A canary beside its champion, in one step.

    Attributes:
        nodes: how many nodes counted.
        keyless: transactions without the key by which the canary is given: they are the champion's.
        canary: what was counted of the canary in the step.
        champion: of the champion; of all steps where this one has fewer transactions than a gate asks for.
        error_rate_above: the canary's share of errors less the champion's.
        latency_ratio: the 99th percentile of the canary's time, the champion's being 1.
        psi: the population stability index of the canary's scores against the champion's, less chance.
    """

    nodes: int
    keyless: int
    canary: Side
    champion: Side
    error_rate_above: float
    latency_ratio: float | None
    psi: float | None


@dataclass(frozen=True)
class Judgement:
    """What a gate of a canary says.

    Attributes:
        gate: its name, as the policy has it.
        state: `holds`; `waits` for more transactions; `broken`.
        detail: with which figures.
    """

    gate: str
    state: State
    detail: str


def figures(connection: Connection, environment: str, number: int, step: int, *, least: int = 1) -> Figures:
    """Add up what nodes counted in a step, those included that have died since.

    Args:
        connection: to the database.
        environment: where.
        number: the canary's release.
        step: which step.
        least: transactions of the champion below which those of all steps are taken: at 100 % it has none.
    """
    rows = connection.execute(
        "SELECT step, counts FROM canary_count WHERE environment = %s AND number = %s", (environment, number)
    ).fetchall()
    here = [row["counts"] for row in rows if row["step"] == step]
    canary = _added(one["canary"] for one in here)
    champion = _added(one["champion"] for one in here)
    if champion["requests"] < least:
        champion = _added(row["counts"]["champion"] for row in rows)
    a, b = _side(canary), _side(champion)
    ratio = a.p99_us / b.p99_us if a.p99_us and b.p99_us else None
    drift = stability(champion["scores"], canary["scores"])
    keyless = sum(one.get("keyless", 0) for one in here)
    return Figures(len(here), keyless, a, b, a.error_rate - b.error_rate, ratio, drift)


def judge(policy: CanaryPolicy | None, found: Figures) -> tuple[Judgement, ...]:
    """Ask a policy's gates of a canary; none where there is no policy."""
    return () if policy is None else tuple(_judgements(policy, found))


def _judgements(policy: CanaryPolicy, found: Figures) -> Iterator[Judgement]:
    seen, asked = found.canary.requests, policy.min_observations
    enough = seen >= asked
    yield Judgement("min_observations", "holds" if enough else "waits", f"{seen} of {asked} transactions")
    if policy.max_error_rate is not None:
        yield _errors(found, policy.max_error_rate, enough=enough)
    for gate, figure, limit, digits in (
        ("max_latency_ratio", found.latency_ratio, policy.max_latency_ratio, 2),
        ("max_psi", found.psi, policy.max_psi, 3),
    ):
        if limit is None:
            continue
        if figure is None:
            yield Judgement(gate, "waits", "there is nothing to compare yet")
            continue
        state: State = "waits" if not enough else "holds" if figure <= limit else "broken"
        yield Judgement(gate, state, f"is {figure:.{digits}f}, at most {limit:g} is allowed")


def _errors(found: Figures, limit: float, *, enough: bool) -> Judgement:
    """Judge errors: by their share once there are enough, and before by what chance cannot explain."""
    seen, above = found.canary.requests, found.error_rate_above
    detail = (
        f"{found.canary.error_rate:.2%} of {seen} failed, {found.champion.error_rate:.2%} of the champion's "
        f"{found.champion.requests}: {above:+.2%}, at most {limit:+.2%} is allowed"
    )
    failed, beside = round(found.canary.error_rate * seen), found.champion
    # The champion's share is not known to the last either: by Laplace's rule it is rather too large.
    expected = (beside.error_rate * beside.requests + 1) / (beside.requests + 2) + limit
    surely = seen >= _FEW and _by_chance(failed, seen, expected) < _CHANCE
    if surely or (enough and above > limit):
        return Judgement("max_error_rate", "broken", detail)
    return Judgement("max_error_rate", "holds" if enough else "waits", detail)


def _by_chance(failed: int, seen: int, share: float) -> float:
    """Return how likely so many or more of so many fail where each does with a probability (binomial)."""
    if not failed or share >= 1:
        return 1.0
    whole = math.lgamma(seen + 1)
    fewer = sum(
        math.exp(
            whole
            - math.lgamma(count + 1)
            - math.lgamma(seen - count + 1)
            + count * math.log(share)
            + (seen - count) * math.log1p(-share)
        )
        for count in range(failed)
    )
    return 1.0 - fewer


def _added(counts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    told = list(counts)
    errors: Counter[str] = Counter()
    for one in told:
        errors.update(one["errors"])
    return {
        "requests": sum(one["requests"] for one in told),
        "errors": dict(errors),
        "latency": merge(_histogram(one["latency"]) for one in told),
        "scores": merge(_histogram(one["scores"]) for one in told),
    }


def _histogram(told: Mapping[str, int]) -> Histogram:
    """Read a histogram back: JSON has text for keys."""
    return {int(key): count for key, count in told.items()}


def _side(counts: Mapping[str, Any]) -> Side:
    requests, latency = counts["requests"], counts["latency"]
    return Side(
        requests=requests,
        errors=counts["errors"],
        error_rate=min(1.0, sum(counts["errors"].values()) / requests) if requests else 0.0,
        p50_us=quantile(latency, 0.5),
        p99_us=quantile(latency, 0.99),
        p50_score=quantile(counts["scores"], 0.5),
    )
