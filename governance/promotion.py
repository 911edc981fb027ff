"""Promotion: the only way to a new release, through the environment's policy and the people that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import psycopg
from psycopg.types.json import Jsonb

from governance.audit import acting
from governance.canary_steps import Canary
from governance.database import Connection
from governance.errors import (
    ApprovalNeededError,
    ApprovalRefusedError,
    GateError,
    PromotionRefusedError,
    RolloutInProgressError,
)
from governance.evidence import find_report
from governance.freezes import refuse_frozen
from governance.gates import judge
from governance.pipelines import change_of, refuse_retired, resolve, slots_of
from governance.policy import Policy, policy_of
from governance.proposals import Proposal, people, proposal
from governance.releases import CHAMPION, current_release, write_release
from governance.rollouts import Rollout, open_rollout

#: Seconds that all nodes together have to prepare a release.
PREPARE_S = 30.0


@dataclass(frozen=True)
class _Wanted:
    """A promotion as it is asked for; see promote."""

    environment: str
    slot: str
    stages: Mapping[str, str | None]
    by: str
    comment: str
    prepare_s: float
    canary: Canary | None
    evidence: int | None

    @classmethod
    def of(cls, found: Proposal) -> _Wanted:
        """Return what a proposal is for."""
        return cls(
            found.environment,
            found.slot,
            found.stages,
            found.proposed_by,
            found.comment,
            found.prepare_s,
            found.canary,
            found.evidence,
        )


def promote(
    connection: Connection,
    *,
    environment: str,
    stages: Mapping[str, str | None],
    by: str,
    slot: str = CHAMPION,
    comment: str = "",
    prepare_s: float = PREPARE_S,
    canary: Canary | None = None,
    evidence: int | None = None,
) -> Rollout:
    """Write the next release of an environment, and open its rollout.

    Args:
        connection: to the database.
        environment: where; made at its first promotion.
        stages: stage to artifact (a digest, its beginning, or a name's newest version), or to None, which
            takes the stage out; the slot's other stages, and all other slots, stay as they are.
        by: who promotes.
        slot: which slot.
        comment: why.
        prepare_s: seconds that the nodes have to prepare it.
        canary: which keys are given it beside the current release; None makes it the current one.
        evidence: the report on a shadow run by which it is promoted; None takes the newest on this very
            change where the policy asks for one.

    Raises:
        PromotionRefusedError: a canary without a current release, an unknown stage, a stage without an
            artifact, an artifact of another kind, or one that is retired.
        FrozenError: the environment is frozen.
        GateError: gates of the environment's policy do not let it through; names them with their figures.
        RolloutInProgressError: another rollout is under way.
        ApprovalNeededError: the policy asks for approvals; carries the proposal, which was written.
    """
    with acting(connection, by, comment):
        connection.execute(
            "INSERT INTO environment (name) VALUES (%s) ON CONFLICT DO NOTHING", (environment,)
        )
        found = resolve(connection, stages)
        wanted = _Wanted(environment, slot, found, by, comment, prepare_s, canary, evidence)
        policy, wanted = _pass_gates(connection, wanted)
        if not policy.approvals:
            return _release(connection, wanted)
        canary, plan = wanted.canary, wanted.canary or Canary(0)
        row = connection.execute(
            "INSERT INTO proposal (environment, slot, stages, proposed_by, comment, prepare_s, evidence,"
            " percent, key, schedule, step_s, stays) VALUES"
            " (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
            (
                *(environment, slot, Jsonb(found), by, comment, prepare_s, wanted.evidence),
                *(canary.percent if canary else None, plan.key, list(plan.schedule), plan.step_s, plan.stays),
            ),
        ).fetchone()
        assert row is not None  # noqa: S101 - RETURNING of one inserted row
        waiting = proposal(connection, row["id"])
    raise ApprovalNeededError(
        f"proposal {waiting.id} waits for the approval of {people(waiting.needed)}", waiting.id
    )


def decide(
    connection: Connection, proposal_id: int, *, person: str, role: str, approves: bool, comment: str = ""
) -> Proposal:
    """Take a person's word on a proposal; the last approval that is needed releases it.

    Raises:
        UnknownProposalError: there is none of that number.
        ApprovalRefusedError: the person is no approver of that role, it is their own proposal, they gave
            their word before, the policy does not ask for that role, or the proposal is over.
        FrozenError, GateError, RolloutInProgressError: it cannot be released now; the approval is not taken.
    """
    with acting(connection, person, comment):
        found = proposal(connection, proposal_id)
        connection.execute("SELECT 1 FROM environment WHERE name = %s FOR UPDATE", (found.environment,))
        asked = policy_of(connection, found.environment).approvals
        if role not in asked:
            raise ApprovalRefusedError(f"{found.environment} asks for {people(asked)}, not for {role}")
        try:
            with connection.transaction():
                connection.execute(
                    "INSERT INTO approval (proposal, person, role, approves, comment)"
                    " VALUES (%s, %s, %s, %s, %s)",
                    (proposal_id, person, role, approves, comment),
                )
        except psycopg.errors.RaiseException as error:
            raise ApprovalRefusedError(error.diag.message_primary or str(error)) from error
        except psycopg.errors.UniqueViolation as error:
            raise ApprovalRefusedError(f"{person} has given their word on {proposal_id} before") from error
        if not approves:
            _close(connection, proposal_id, "rejected", None)
        elif not any(proposal(connection, proposal_id).needed.values()):
            _, wanted = _pass_gates(connection, _Wanted.of(found))
            opened = _release(connection, wanted)
            _close(connection, proposal_id, "released", opened.release.number)
        return proposal(connection, proposal_id)


def _planned(policy: Policy, canary: Canary | None) -> Canary | None:
    """Return a canary with the schedule of the policy, where that has one."""
    asked = policy.canary
    if canary is None or asked is None or not asked.schedule:
        return canary
    step_s = asked.step_minutes * 60
    if canary.schedule and (canary.schedule, canary.step_s) != (asked.schedule, step_s):
        told = ", ".join(f"{percent:g}" for percent in asked.schedule)
        raise PromotionRefusedError(
            f"the policy has a schedule: {told} %, {asked.step_minutes:g} minutes each; promote without one"
        )
    return replace(canary, schedule=asked.schedule, step_s=step_s)


def _pass_gates(connection: Connection, wanted: _Wanted) -> tuple[Policy, _Wanted]:
    """Hold the environment, and see that it takes the promotion now.

    Whoever promotes holds it, so that releases count up without a gap or a fork.

    Returns:
        the policy, and what is wanted with the canary as the policy has it and the evidence that was found.
    """
    environment = wanted.environment
    connection.execute("SELECT 1 FROM environment WHERE name = %s FOR UPDATE", (environment,))
    refuse_frozen(connection, environment)
    _refuse_a_second(connection, environment)
    refuse_retired(connection, wanted.stages)
    change = change_of(connection, environment, wanted.slot, wanted.stages)
    policy = policy_of(connection, environment)
    report = None
    if policy.shadow is not None or wanted.evidence is not None:
        report = find_report(connection, environment, change.held, change.changed, wanted.evidence)
    verdicts = judge(connection, policy, change, report=report, canary=wanted.canary is not None)
    failed = [f"{one.gate}: {one.detail}" for one in verdicts if not one.passed]
    if failed:
        raise GateError(f"{environment} does not take it: {'; '.join(failed)}")
    evidence = report.id if report else None
    return policy, replace(wanted, canary=_planned(policy, wanted.canary), evidence=evidence)


def _release(connection: Connection, wanted: _Wanted) -> Rollout:
    environment = wanted.environment
    if wanted.canary and current_release(connection, environment) is None:
        raise PromotionRefusedError(f"{environment} has no release yet: a canary is beside a current one")
    slots = slots_of(connection, change_of(connection, environment, wanted.slot, wanted.stages))
    try:
        number = write_release(connection, environment, slots, wanted.by, wanted.comment, wanted.evidence)
    except psycopg.errors.RaiseException as error:
        raise PromotionRefusedError(error.diag.message_primary or str(error)) from error
    return open_rollout(
        connection,
        environment,
        number,
        wanted.prepare_s,
        by=wanted.by,
        comment=wanted.comment,
        canary=wanted.canary,
    )


def _refuse_a_second(connection: Connection, environment: str) -> None:
    row = connection.execute(
        "SELECT id, number, deadline FROM rollout WHERE environment = %s AND state = 'preparing'",
        (environment,),
    ).fetchone()
    if row:
        raise RolloutInProgressError(
            f"{environment} is being taken to release {row['number']} (rollout {row['id']}), "
            f"which ends by {row['deadline']:%H:%M:%S}: wait for it",
        )


def _close(connection: Connection, proposal_id: int, state: str, number: int | None) -> None:
    connection.execute(
        "UPDATE proposal SET state = %s, number = %s, closed_at = clock_timestamp() WHERE id = %s",
        (state, number, proposal_id),
    )
