"""Evidence: what a shadow run, and live decisions with their labels, say of what is to be promoted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from governance.database import Connection
from governance.errors import PromotionRefusedError
from governance.labels import performance_of
from governance.policy import LabelledPolicy, ShadowPolicy
from governance.verdicts import Verdict


@dataclass(frozen=True)
class Report:
    """The figures of a shadow as they were taken down.

    Attributes:
        id: its number.
        shadow: the shadow's name.
        overrides: stage to digest, of what the shadow tried.
        at: when it was made.
        figures: name to number.
    """

    id: int
    shadow: str
    overrides: Mapping[str, str]
    at: datetime
    figures: Mapping[str, float]


def find_report(
    connection: Connection,
    environment: str,
    held: Mapping[str, str],
    changed: Mapping[str, str | None],
    wanted: int | None = None,
) -> Report | None:
    """Return the newest report on a shadow that tried what a promotion changes, and nothing else.

    Args:
        connection: to the database.
        environment: where the shadow ran.
        held: stage to digest, as the environment serves it.
        changed: stage to digest, of what becomes different; to None for what is dropped.
        wanted: this report and no other.

    Raises:
        PromotionRefusedError: the report that is wanted is on something else, or there is none.
    """
    rows = connection.execute(
        "SELECT r.id, s.name AS shadow, s.overrides, r.at, r.figures -> 'figures' AS figures"
        " FROM shadow_report r JOIN shadow s ON s.id = r.shadow"
        " WHERE s.environment = %(environment)s AND (%(wanted)s::bigint IS NULL OR r.id = %(wanted)s)"
        " ORDER BY r.id DESC",
        {"environment": environment, "wanted": wanted},
    )
    for row in rows:
        # A shadow may name what is served anyway.
        tried = {stage: digest for stage, digest in row["overrides"].items() if held.get(stage) != digest}
        if tried == changed:
            return Report(**{**row, "figures": row["figures"] or {}})
        if wanted is not None:
            raise PromotionRefusedError(
                f"report {wanted} is on shadow {row['shadow']}, which tried something else: {_told(tried)}"
            )
    if wanted is not None:
        raise PromotionRefusedError(f"there is no report {wanted} on a shadow of {environment}")
    return None


def judge_shadow(policy: ShadowPolicy, report: Report | None, now: datetime) -> Iterator[Verdict]:
    """Ask what a policy asks of the report on a shadow."""
    if report is None:
        yield Verdict(
            "shadow",
            False,
            "no shadow that tried this very change has a report: `run.py shadow start NAME` with it, and "
            "then `run.py shadow promote NAME`",
        )
        return
    about = f"report {report.id} on shadow {report.shadow}"
    seen = report.figures.get("observations", 0)
    detail = f"{about} has {seen:g} observations, asked is at least {policy.min_observations}"
    yield Verdict("shadow.min_observations", seen >= policy.min_observations, detail)
    if policy.max_age_hours is not None:
        age = (now - report.at.astimezone(UTC)).total_seconds() / 3600
        detail = f"{about} is {age:.1f} hours old, asked is at most {policy.max_age_hours:g}"
        yield Verdict("shadow.max_age_hours", age <= policy.max_age_hours, detail)
    for name, bound in policy.figures.items():
        found = report.figures.get(name)
        said = "is not known" if found is None else f"is {found:g}"
        passed = found is not None and bound.holds(found)
        yield Verdict(f"shadow.figures.{name}", passed, f"{name} {said} in {about}, asked is {bound.said()}")


def judge_labelled(
    connection: Connection, policy: LabelledPolicy, environments: list[str], pipeline: Mapping[str, str]
) -> Iterator[Verdict]:
    """Ask what a policy asks of live decisions that have labels."""
    found = performance_of(connection, environments, pipeline)
    where = f"of this pipeline in {', '.join(environments)}"
    detail = f"{found.labels} decisions {where} have labels, asked are at least {policy.min_labels}"
    yield Verdict("labelled.min_labels", found.labels >= policy.min_labels, detail)
    for name, bound, value in (
        ("precision", policy.precision, found.precision),
        ("recall", policy.recall, found.recall),
    ):
        if bound is None:
            continue
        said = "is not known yet" if value is None else f"is {value:.4f}"
        passed = value is not None and bound.holds(value)
        yield Verdict(f"labelled.{name}", passed, f"{name} {where} {said}, asked is {bound.said()}")


def _told(stages: Mapping[str, str | None]) -> str:
    return ", ".join(f"{stage} {(digest or 'dropped')[:12]}" for stage, digest in stages.items()) or "nothing"
