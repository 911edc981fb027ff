"""Policies: what an environment asks of a promotion, kept in the database, with all of its versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from governance.audit import acting
from governance.database import Connection
from governance.errors import PolicyError
from models.problems import problems

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_STRICT = ConfigDict(frozen=True, extra="forbid")


class Window(BaseModel):
    """When changes are welcome.

    Attributes:
        days: on which days.
        opens: from when.
        closes: until when; where it is not after `opens`, it is that time of the next day.
        zone: in which time zone, as in `Europe/Berlin`.
    """

    model_config = _STRICT
    days: tuple[Day, ...] = _DAYS
    opens: time = time(0, 0)
    closes: time = time(23, 59, 59, 999999)
    zone: str = "UTC"

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"there is no time zone {zone!r}") from error
        return zone

    def holds(self, moment: datetime) -> bool:
        """Say whether a moment lies in it."""
        local = moment.astimezone(ZoneInfo(self.zone))
        day, clock = local.weekday(), local.time()
        if self.opens < self.closes:
            return _DAYS[day] in self.days and self.opens <= clock <= self.closes
        began_today = _DAYS[day] in self.days and clock >= self.opens
        return began_today or (_DAYS[day - 1] in self.days and clock <= self.closes)


class Bound(BaseModel):
    """Between what a metric must lie."""

    model_config = _STRICT
    min: float | None = None
    max: float | None = None

    def holds(self, value: float) -> bool:
        """Say whether a value lies in it; NaN lies in none."""
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)

    def said(self) -> str:
        """Say it to a person."""
        bounds = (("at least", self.min), ("at most", self.max))
        return " and ".join(f"{word} {value}" for word, value in bounds if value is not None) or "anything"


class CanaryPolicy(BaseModel):
    """What an environment asks of a canary.

    Attributes:
        required: whether nothing becomes current without having been a canary.
        schedule: the percentages that each canary grows to by itself; empty: by hand, or as it is promoted.
        step_minutes: how long each of them lasts at least.
        min_observations: transactions of a step that must be the canary's before it grows, and before its
            latency and its scores are judged.
        max_error_rate: by how much its share of errors may be above the champion's.
        max_latency_ratio: how large the 99th percentile of its time may be, the champion's being 1.
        max_psi: the population stability index of its scores against the champion's.
    """

    model_config = _STRICT
    required: bool = False
    schedule: tuple[Annotated[float, Field(gt=0, le=100)], ...] = ()
    step_minutes: Annotated[float, Field(ge=0)] = 30.0
    min_observations: Annotated[int, Field(ge=1)] = 1000
    max_error_rate: Annotated[float, Field(ge=0, le=1)] | None = None
    max_latency_ratio: Annotated[float, Field(gt=0)] | None = None
    max_psi: Annotated[float, Field(gt=0)] | None = None

    @field_validator("schedule")
    @classmethod
    def _grows(cls, schedule: tuple[float, ...]) -> tuple[float, ...]:
        if list(schedule) != sorted(set(schedule)):
            raise ValueError("a schedule grows, as 1, 5, 25, 100 does")
        return schedule


class ShadowPolicy(BaseModel):
    """What an environment asks of the report on a shadow that tried what is to be promoted.

    Attributes:
        min_observations: transactions that the shadow must have evaluated.
        max_age_hours: how old the report may be.
        figures: bounds for its figures.
    """

    model_config = _STRICT
    min_observations: Annotated[int, Field(ge=0)] = 1000
    max_age_hours: Annotated[float, Field(gt=0)] | None = None
    figures: Mapping[str, Bound] = Field(default_factory=dict)


class LabelledPolicy(BaseModel):
    """What an environment asks of live decisions, by this pipeline and with labels, in those of `after`.

    Attributes:
        min_labels: how many there must be.
        precision: bounds for the share of what was not approved that was positive.
        recall: bounds for the share of the positive that was not approved.
    """

    model_config = _STRICT
    min_labels: Annotated[int, Field(ge=1)] = 100
    precision: Bound | None = None
    recall: Bound | None = None


class Policy(BaseModel):
    """What an environment asks of a promotion.

    Attributes:
        after: environments in which this very pipeline must have been active before.
        approvals: how many approvers of each role.
        own_approval: whether whoever promotes may approve it as well.
        windows: when; empty means at any time.
        signed: whether each artifact must bear a signature by some key; which keys count, nodes are told.
        max_age_days: how old a model's training may be.
        metrics: bounds for what the model's provenance says of it; `NAME.METRIC` for a model with a name.
        latency_us: how long a node's median single row may take in its smoke test.
        canary: what is asked of a canary; None asks for nothing.
        shadow: what is asked of the report on a shadow; None asks for none.
        labelled: what is asked of labelled decisions; None asks for none.
    """

    model_config = _STRICT
    after: tuple[str, ...] = ()
    approvals: Mapping[str, Annotated[int, Field(ge=1, le=20)]] = Field(default_factory=dict)
    own_approval: bool = False
    windows: tuple[Window, ...] = ()
    signed: bool = False
    max_age_days: Annotated[float, Field(gt=0)] | None = None
    metrics: Mapping[str, Bound] = Field(default_factory=dict)
    latency_us: Annotated[float, Field(gt=0)] | None = None
    canary: CanaryPolicy | None = None
    shadow: ShadowPolicy | None = None
    labelled: LabelledPolicy | None = None


def read_policy(document: Any) -> Policy:
    """Check a policy.

    Raises:
        PolicyError: names every key at fault.
    """
    try:
        return Policy.model_validate(document)
    except ValidationError as error:
        raise PolicyError(f"the policy is not valid: {problems(error)}") from error


def policy_of(connection: Connection, environment: str) -> Policy:
    """Return what an environment asks now; nothing where nobody set a policy."""
    row = connection.execute("SELECT policy_of(%s) AS document", (environment,)).fetchone()
    return read_policy(row["document"] if row else {})


def set_policy(connection: Connection, environment: str, policy: Policy, *, by: str, reason: str) -> int:
    """Write the next version of an environment's policy; return its number."""
    with acting(connection, by, reason):
        connection.execute(
            "INSERT INTO environment (name) VALUES (%s) ON CONFLICT DO NOTHING", (environment,)
        )
        connection.execute("SELECT 1 FROM environment WHERE name = %s FOR UPDATE", (environment,))
        row = connection.execute(
            "INSERT INTO policy (environment, version, document, set_by) VALUES (%(environment)s,"
            " 1 + (SELECT coalesce(max(version), 0) FROM policy WHERE environment = %(environment)s),"
            " %(document)s, %(by)s) RETURNING version",
            {"environment": environment, "document": Jsonb(policy.model_dump(mode="json")), "by": by},
        ).fetchone()
    assert row is not None  # noqa: S101 - RETURNING of one inserted row
    return int(row["version"])
