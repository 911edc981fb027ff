"""Gates: the questions that a policy asks of a pipeline, each answered with its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb

from governance.artifacts import split_stage
from governance.database import Connection
from governance.evidence import Report, judge_labelled, judge_shadow
from governance.pipelines import Change
from governance.policy import Bound, Policy
from governance.releases import CHAMPION
from governance.verdicts import Verdict


def judge(
    connection: Connection, policy: Policy, change: Change, *, report: Report | None, canary: bool
) -> tuple[Verdict, ...]:
    """Ask all of a policy's gates that can be answered before any node prepares the release.

    Args:
        connection: to the database, whose clock counts.
        policy: whose gates.
        change: what is to be promoted.
        report: the evidence of a shadow run; None where there is none.
        canary: whether it is to be a canary first.
    """
    return tuple(_verdicts(connection, policy, change, report, canary=canary))


def _verdicts(
    connection: Connection, policy: Policy, change: Change, report: Report | None, *, canary: bool
) -> Iterator[Verdict]:
    now, slot, pipeline = _now(connection), change.slot, change.pipeline
    if policy.windows:
        passed = any(window.holds(now) for window in policy.windows)
        yield Verdict("windows", passed, f"it is {now:%A %H:%M} UTC")
    for environment in policy.after:
        yield _after(connection, environment, slot, pipeline)
    if policy.signed:
        yield _signed(connection, pipeline)
    # What comes first has no champion to be beside.
    if slot == CHAMPION and change.held:
        if policy.canary is not None and policy.canary.required:
            yield Verdict("canary.required", canary, "promote it with --canary")
        if policy.shadow is not None and change.changed:
            yield from judge_shadow(policy.shadow, report, now)
    if policy.labelled is not None:
        places = list(policy.after) or [change.environment]
        yield from judge_labelled(connection, policy.labelled, places, pipeline)
    models = {
        name: _provenance(connection, digest)
        for (base, name), digest in ((split_stage(stage), digest) for stage, digest in pipeline.items())
        if base == "model"
    }
    if policy.max_age_days is not None:
        for name, facts in sorted(models.items()):
            yield _fresh(name, facts.get("trained_at", ""), policy.max_age_days, now)
    for metric, bound in policy.metrics.items():
        yield _metric(metric, bound, models)


def _metric(metric: str, bound: Bound, models: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Judge a metric of the model without a name, or `NAME.METRIC` of one that has a name."""
    name, dot, own = metric.partition(".")
    facts = models[name] if dot and name in models else models[""]
    found = facts.get("metrics", {}).get(own if dot and name in models else metric)
    known = isinstance(found, int | float)
    said = f"is {found}" if known else "is not in its provenance (register --metric)"
    return Verdict(
        f"metrics.{metric}", known and bound.holds(found), f"{metric} {said}, asked is {bound.said()}"
    )


def _now(connection: Connection) -> datetime:
    row = connection.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None  # noqa: S101 - it has no FROM
    found: datetime = row["now"].astimezone(UTC)
    return found


def _after(connection: Connection, environment: str, slot: str, pipeline: Mapping[str, str]) -> Verdict:
    row = connection.execute(
        "SELECT r.number, r.finished_at FROM rollout r WHERE r.environment = %(environment)s"
        " AND r.state = 'active' AND r.kind <> 'canary' AND %(stages)s::jsonb = ("
        "  SELECT jsonb_object_agg(stage, digest) FROM release_stage s"
        "  WHERE s.environment = r.environment AND s.number = r.number AND s.slot = %(slot)s)"
        " ORDER BY r.id DESC LIMIT 1",
        {"environment": environment, "slot": slot, "stages": Jsonb(dict(pipeline))},
    ).fetchone()
    if row is None:
        return Verdict("after", False, f"this pipeline was never active in {environment}")
    when = f"{row['finished_at'].astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return Verdict("after", True, f"release {row['number']} of {environment}, since {when}")


def _signed(connection: Connection, pipeline: Mapping[str, str]) -> Verdict:
    rows = connection.execute(
        "SELECT DISTINCT digest FROM signature WHERE digest = ANY (%s)", (list(pipeline.values()),)
    ).fetchall()
    found = {row["digest"] for row in rows}
    without = [f"{stage} {digest[:12]}" for stage, digest in pipeline.items() if digest not in found]
    detail = f"without a signature: {', '.join(without)}" if without else "all artifacts are signed"
    return Verdict("signed", not without, detail)


def _fresh(name: str, trained_at: str, max_age_days: float, now: datetime) -> Verdict:
    model = f"model:{name}" if name else "model"
    try:
        trained = datetime.fromisoformat(trained_at)
    except ValueError:
        detail = f"the bundle of {model} does not say when it was trained (model import --trained-at)"
        return Verdict("max_age_days", False, detail)
    trained = trained if trained.tzinfo else trained.replace(tzinfo=UTC)
    age = (now - trained).total_seconds() / 86400
    detail = f"{model} was trained {age:.1f} days ago, at most {max_age_days:g} are asked"
    return Verdict("max_age_days", 0 <= age <= max_age_days, detail)


def _provenance(connection: Connection, digest: str) -> dict[str, Any]:
    row = connection.execute("SELECT provenance FROM artifact WHERE digest = %s", (digest,)).fetchone()
    return dict(row["provenance"]) if row else {}
