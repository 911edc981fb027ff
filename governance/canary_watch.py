"""The watch over a canary: nodes say what they counted, and whichever node looks first judges it.

Nobody coordinates. Each node reports and looks with its beats; one look a second is taken, in one
transaction that holds the environment. It ends a canary whose gates break, gives it to more keys when its
step has passed, and makes it current after the last: so nobody's death can leave it half way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from psycopg.types.json import Jsonb

from governance.audit import acting
from governance.canary_figures import Figures, Judgement, figures, judge
from governance.canary_steps import Canary, begin_step, end_canary, end_step, note_figures
from governance.database import Connection
from governance.freezes import frozen
from governance.notify import notify
from governance.policy import Policy, policy_of
from governance.rollouts import begin_rollout

#: Seconds between two looks at a canary, by whichever node.
LOOK_S: Final = 1.0
#: Seconds that nodes have to prepare what they hold already.
_PREPARE_S: Final = 30.0


@dataclass(frozen=True)
class Standing:
    """How a canary stands.

    Attributes:
        environment: where.
        release: its number.
        percent: how many of a hundred keys it is given.
        key: the field whose value is the key; "" is the transaction's id.
        step: the number of its step.
        since: when the step began.
        plan: how it grows.
        follows: the percentage that follows; None after the last, and where it grows by hand.
        due: when the step has lasted as long as it should; None where nothing follows by itself.
        figures: what was counted in the step.
        judgements: what its gates say.
        held_up: why it would not grow now although its step is over; "" where nothing holds it up.
    """

    environment: str
    release: int
    percent: float
    key: str
    step: int
    since: datetime
    plan: Canary
    follows: float | None
    due: datetime | None
    figures: Figures
    judgements: tuple[Judgement, ...]
    held_up: str


def report(
    connection: Connection,
    environment: str,
    *,
    number: int,
    step: int,
    node_id: str,
    counts: Mapping[str, Any],
) -> None:
    """Take down what a node counted in a step so far, in the place of what it said before."""
    connection.execute(
        "INSERT INTO canary_count (environment, number, step, node_id, counts) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (environment, number, step, node_id) DO UPDATE"
        " SET counts = EXCLUDED.counts, at = clock_timestamp()",
        (environment, number, step, node_id, Jsonb(counts)),
    )


def look(connection: Connection, environment: str, *, by: str) -> str:
    """Judge an environment's canary, unless somebody did so a moment ago.

    Args:
        connection: to the database.
        environment: where.
        by: the node that looks.

    Returns:
        what was done, as a sentence; "" for nothing.
    """
    taken = connection.execute(
        "INSERT INTO canary_look AS l (environment) VALUES (%(environment)s) ON CONFLICT (environment)"
        " DO UPDATE SET at = clock_timestamp() WHERE l.at < clock_timestamp() - make_interval(secs => %(s)s)",
        {"environment": environment, "s": LOOK_S},
    )
    return act(connection, environment, by=by) if taken.rowcount else ""


def act(connection: Connection, environment: str, *, by: str) -> str:
    """Judge an environment's canary, and end it, let it grow or make it current where it is time.

    Returns:
        what was done, as a sentence; "" for nothing.
    """
    with connection.transaction():
        connection.execute("SELECT 1 FROM environment WHERE name = %s FOR UPDATE", (environment,))
        found = standing(connection, environment)
        if found is None:
            return ""
        broken = [one for one in found.judgements if one.state == "broken"]
        if broken:
            return _return(connection, found, broken, by)
        if found.due is None or found.due > _now(connection) or found.held_up:
            return ""
        return _grow(connection, found, by)


def standing(connection: Connection, environment: str) -> Standing | None:
    """Return how an environment's canary stands; None where there is none."""
    row = connection.execute(
        "SELECT e.canary, e.canary_percent, e.canary_key, s.step, s.since, o.schedule, o.step_s, o.stays,"
        " EXISTS (SELECT FROM rollout r WHERE r.environment = e.name AND r.state = 'preparing') AS busy,"
        " EXISTS (SELECT FROM rollout r WHERE r.environment = e.name AND r.number = e.canary"
        "  AND r.state = 'abandoned') AS refused"
        " FROM environment e JOIN canary_step s ON s.environment = e.name AND s.until IS NULL"
        " JOIN rollout o ON o.environment = e.name AND o.number = e.canary AND o.kind = 'canary'"
        " WHERE e.name = %s",
        (environment,),
    ).fetchone()
    if row is None:
        return None
    policy = policy_of(connection, environment)
    percent = row["canary_percent"]
    plan = Canary(percent, row["canary_key"], tuple(row["schedule"]), row["step_s"], row["stays"])
    least = policy.canary.min_observations if policy.canary else 1
    counted = figures(connection, environment, row["canary"], row["step"], least=least)
    judgements = judge(policy.canary, counted)
    follows = plan.after(percent)
    # From 0 percent nothing follows: whoever took all keys away gives them back by hand.
    grows = bool(plan.schedule and percent) and (follows is not None or not plan.stays)
    return Standing(
        environment=environment,
        release=row["canary"],
        percent=percent,
        key=row["canary_key"],
        step=row["step"],
        since=row["since"],
        plan=plan,
        follows=follows,
        due=row["since"] + timedelta(seconds=plan.step_s) if grows else None,
        figures=counted,
        judgements=judgements,
        held_up=_held_up(connection, environment, policy, judgements, row) if grows else "",
    )


def _held_up(
    connection: Connection,
    environment: str,
    policy: Policy,
    judgements: tuple[Judgement, ...],
    row: Mapping[str, Any],
) -> str:
    """Say why a canary would not grow although its step is over."""
    waiting = [f"{one.gate}: {one.detail}" for one in judgements if one.state == "waits"]
    if waiting:
        return "; ".join(waiting)
    if row["busy"]:
        return "a rollout is under way"
    if row["refused"]:
        return (
            "nodes refused to make it current: `run.py status` says why, `run.py canary finish` tries again"
        )
    found = frozen(connection, environment)
    if found:
        return f"{environment} is frozen by {found.by}: {found.reason}"
    if policy.windows and not any(window.holds(_now(connection)) for window in policy.windows):
        return "it is outside the policy's windows"
    return ""


def _return(connection: Connection, found: Standing, broken: list[Judgement], by: str) -> str:
    why = "; ".join(f"{one.gate}: {one.detail}" for one in broken)
    said = f"canary {found.release} has returned at {found.percent:g} %: {why}"
    with acting(connection, by, said):
        end_canary(connection, found.environment, outcome="returned", figures=asdict(found.figures))
        notify(connection, found.environment)
    return said


def _grow(connection: Connection, found: Standing, by: str) -> str:
    held = "; ".join(f"{one.gate}: {one.detail}" for one in found.judgements)
    if found.follows is None:
        said = (
            f"canary {found.release} becomes current after {found.percent:g} %: {held or 'its time is over'}"
        )
        with acting(connection, by, said):
            note_figures(connection, found.environment, asdict(found.figures))
            row = connection.execute(
                "SELECT finish_canary(%s, %s, %s, %s) AS id", (found.environment, _PREPARE_S, by, said)
            ).fetchone()
            assert row is not None  # noqa: S101 - it has no FROM
            begin_rollout(connection, found.environment, row["id"])
        return said
    said = f"canary {found.release} grows from {found.percent:g} to {found.follows:g} %"
    with acting(connection, by, f"{said}: {held}" if held else said):
        end_step(connection, found.environment, "grew", asdict(found.figures))
        begin_step(connection, found.environment, found.release, found.follows)
        notify(connection, found.environment)
    return said


def _now(connection: Connection) -> datetime:
    row = connection.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None  # noqa: S101 - it has no FROM
    now: datetime = row["now"].astimezone(UTC)
    return now
