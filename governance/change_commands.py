"""The sub-commands that change what an environment serves, or hold it up."""

from __future__ import annotations

import getpass
import re
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

from governance.artifacts import find_any
from governance.canary_steps import Canary
from governance.changes import retire, rollback
from governance.database import Connection
from governance.errors import ApprovalNeededError
from governance.freezes import freeze, thaw
from governance.promotion import PREPARE_S, decide, promote
from governance.proposals import Proposal, people, proposals
from governance.rollouts import Rollout, rollouts, wait_settled, wait_taken_up
from governance.terminal import (
    ByOption,
    ConfigOption,
    JsonOption,
    Locate,
    connected,
    fail,
    failing_plainly,
    local_time,
    say,
    table,
    to_json,
)

PANEL = "Change what is served"
#: How long a canary has each percentage of its schedule, if nobody says otherwise.
STEP_MINUTES = 30.0

ReasonOption = Annotated[str, typer.Option("--reason", help="Why; whoever looks back will read it.")]
ModelOption = Annotated[
    list[str] | None,
    typer.Option(help="A bundle: digest, its beginning, or name. SCORE=BUNDLE for a further score."),
]
FeaturesOption = Annotated[
    list[str] | None, typer.Option(help="A feature spec: the same. SCORE=SPEC where a score has its own.")
]
DecisionOption = Annotated[str | None, typer.Option(help="Decision rules: the same.")]
DeadlineOption = Annotated[float, typer.Option(help="Seconds that the nodes have to prepare it.")]
CanaryOption = Annotated[
    float | None, typer.Option(help="Give it to so many percent of keys, beside the current one.")
]
CanaryKeyOption = Annotated[
    str, typer.Option(help="The field whose value is the key.", show_default="the id")
]
RoleOption = Annotated[str, typer.Option(help="As what: a role that the policy asks for.")]
ProposalArgument = Annotated[int, typer.Argument(help="The proposal's number.")]


def register_change_commands(app: typer.Typer, locate: Locate) -> None:
    """Add these sub-commands to the front door."""
    commands = _ChangeCommands(locate)
    for command in (
        commands.promote,
        commands.approve,
        commands.reject,
        commands.proposals,
        commands.rollback,
        commands.freeze,
        commands.thaw,
        commands.retire,
    ):
        app.command(rich_help_panel=PANEL)(command)


def rollout_facts(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout for JSON, its release by number."""
    return {**asdict(rollout), "release": rollout.release.number}


class _ChangeCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def promote(
        self,
        model: ModelOption = None,
        features: FeaturesOption = None,
        decision: DecisionOption = None,
        drop: Annotated[
            list[str] | None, typer.Option(help="A stage to do without: decision, model:SCORE, ...")
        ] = None,
        slot: Annotated[str, typer.Option(help="Which slot of the environment.")] = "champion",
        comment: Annotated[str, typer.Option(help="Why.")] = "",
        deadline: DeadlineOption = PREPARE_S,
        canary: CanaryOption = None,
        canary_key: CanaryKeyOption = "",
        schedule: Annotated[
            str, typer.Option(help="Let the canary grow by itself, as in 1,5,25,100.", show_default="by hand")
        ] = "",
        step_minutes: Annotated[
            float, typer.Option(help="How long it has each percentage at least.", min=0)
        ] = STEP_MINUTES,
        stay: Annotated[bool, typer.Option(help="It stays a canary after the last.")] = False,
        evidence: Annotated[
            int | None,
            typer.Option(help="The report on a shadow run.", show_default="the newest, if one is asked for"),
        ] = None,
        by: ByOption = "",
        wait: Annotated[bool, typer.Option(help="Wait until all nodes act on it.")] = True,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Take the environment to a new release with this model, these features, these rules.

        Every node prepares it, and only when all are ready does any use it. If a node refuses, nothing
        changes, the exit code is 1, and the reason is printed and kept.
        """
        stages = named_stages(model or [], features or [], decision, drop or [])
        if not stages:
            fail("name what to promote: --model, --features, --decision, or more of them")
        plan = _plan(canary, canary_key, schedule, step_minutes, stay=stay)
        with connected(self._locate, config) as (connection, environment):
            try:
                rollout = promote(
                    connection,
                    environment=environment,
                    stages=stages,
                    by=by or getpass.getuser(),
                    slot=slot,
                    comment=comment,
                    prepare_s=deadline,
                    canary=plan,
                    evidence=evidence,
                )
            except ApprovalNeededError as waiting:
                say({"proposal": waiting.proposal, "state": "open"}, str(waiting), as_json=as_json)
                return
            if wait:
                follow(connection, rollout, as_json=as_json, timeout_s=deadline)
        _say_rollout(rollout, None, as_json=as_json)

    def approve(
        self,
        proposal: ProposalArgument,
        role: RoleOption,
        comment: Annotated[str, typer.Option(help="What you looked at.")] = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Approve a proposal. The last approval that its policy asks for releases it, if its gates hold."""
        with connected(self._locate, config) as (connection, environment):
            found = decide(
                connection,
                proposal,
                person=by or getpass.getuser(),
                role=role,
                approves=True,
                comment=comment,
            )
            rollout = _rollout_of(connection, environment, found.number)
            _say_proposal(found, rollout, as_json=as_json)

    def reject(
        self,
        proposal: ProposalArgument,
        role: RoleOption,
        reason: ReasonOption,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Reject a proposal, for good."""
        with connected(self._locate, config) as (connection, _):
            found = decide(
                connection,
                proposal,
                person=by or getpass.getuser(),
                role=role,
                approves=False,
                comment=reason,
            )
        _say_proposal(found, None, as_json=as_json)

    def proposals(
        self,
        everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """List the promotions that wait for people: what, by whom, and whose approval is missing."""
        with connected(self._locate, config) as (connection, environment):
            found = proposals(connection, environment, only_open=not everything)
        if as_json:
            typer.echo(to_json({"proposals": [asdict(one) for one in found]}))
            return
        columns = ("proposal", "state", "slot", "stages", "by", "at", "approvals", "missing", "comment")
        table("Proposals", columns, [_proposal_row(one) for one in found])

    def rollback(
        self,
        reason: ReasonOption,
        to: Annotated[
            int | None, typer.Option(help="The release.", show_default="the one before this")
        ] = None,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Lead the environment back to a release that was active before. Asks for no approval.

        Nodes still hold the release that was active before this one, so that they need no time to prepare.
        The exit code is 1 if a node refuses.
        """
        with connected(self._locate, config) as (connection, environment):
            rollout = rollback(connection, environment, by=by or getpass.getuser(), reason=reason, to=to)
            follow(connection, rollout, as_json=as_json)

    def freeze(
        self,
        reason: ReasonOption,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let the environment take no promotion until `thaw`. It can still be led back."""
        with connected(self._locate, config) as (connection, environment):
            freeze(connection, environment, by=by or getpass.getuser(), reason=reason)
        say({"environment": environment, "frozen": True}, f"{environment} is frozen", as_json=as_json)

    def thaw(
        self,
        reason: ReasonOption = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let the environment take promotions again, after a `freeze`."""
        with connected(self._locate, config) as (connection, environment):
            thaw(connection, environment, by=by or getpass.getuser(), reason=reason)
        say({"environment": environment, "frozen": False}, f"{environment} is thawed", as_json=as_json)

    def retire(
        self,
        artifact: Annotated[str, typer.Argument(help="A digest, its beginning, or a name's newest.")],
        reason: ReasonOption,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let an artifact be promoted no more, for good. Where it serves, it serves on."""
        with connected(self._locate, config) as (connection, _):
            found = find_any(connection, artifact)
            serving = retire(connection, found, by=by or getpass.getuser(), reason=reason)
        still = f"; it still serves in {', '.join(serving)}" if serving else ""
        sentence = f"{found.kind} {found.name} {found.digest[:12]} is retired{still}"
        say({"digest": found.digest, "serves_in": serving}, sentence, as_json=as_json)


def named_stages(
    model: list[str], features: list[str], decision: str | None, drop: list[str]
) -> dict[str, str | None]:
    """Return stage to what was named for it; `SCORE=X` names X for a score."""
    pairs: list[tuple[str, str | None]] = [(stage, None) for stage in drop]
    for base, given in (("model", model), ("features", features)):
        for one in given:
            score = _SCORE.match(one)
            pairs.append((f"{base}:{score[1]}", one[score.end() :]) if score else (base, one))
    if decision:
        pairs.append(("decision", decision))
    stages = dict(pairs)
    if len(stages) < len(pairs):
        fail("each stage can be named once: --model NAME is one, and --model SCORE=NAME one for each score")
    return stages


def _plan(
    percent: float | None, key: str, schedule: str, step_minutes: float, *, stay: bool
) -> Canary | None:
    """Return the canary that was asked for; None for all keys at once."""
    try:
        steps = tuple(float(part) for part in schedule.split(",")) if schedule else ()
    except ValueError:
        fail(f"{schedule!r} is no schedule: name percentages, as in 1,5,25,100")
    with failing_plainly():
        if steps:
            return Canary(steps[0] if percent is None else percent, key, steps, step_minutes * 60, stay)
        return None if percent is None else Canary(percent, key, stays=stay)


#: The score that an artifact is named for.
_SCORE = re.compile(r"([a-z][a-z0-9_]{0,30})=")


def follow(connection: Connection, rollout: Rollout, *, as_json: bool, timeout_s: float = PREPARE_S) -> None:
    """Wait until a rollout is over, say how it ended, and end the command with 1 if nothing changed."""
    with Console(stderr=True).status(f"release {rollout.release.number}: nodes prepare it"):
        rollout = wait_settled(connection, rollout.id, timeout_s=timeout_s + 10)
        taken_up_ms = wait_taken_up(connection, rollout) if rollout.kind != "canary" else None
    _say_rollout(rollout, taken_up_ms, as_json=as_json)


def _say_rollout(rollout: Rollout, taken_up_ms: float | None, *, as_json: bool) -> None:
    how = f" by all nodes after {taken_up_ms:.0f} ms" if taken_up_ms is not None else ""
    sentence = f"release {rollout.release.number} is {rollout.state}{how} {rollout.reason}"
    say({**rollout_facts(rollout), "taken_up_ms": taken_up_ms}, sentence, as_json=as_json)
    raise typer.Exit(1 if rollout.state == "abandoned" else 0)


def _rollout_of(connection: Connection, environment: str, number: int | None) -> Rollout | None:
    if number is None:
        return None
    (found,) = (one for one in rollouts(connection, environment, 100) if one.release.number == number)
    return wait_settled(connection, found.id, timeout_s=PREPARE_S + 10)


def _say_proposal(proposal: Proposal, rollout: Rollout | None, *, as_json: bool) -> None:
    missing = _missing(proposal)
    sentence = f"proposal {proposal.id} is {proposal.state}" + (f", missing {missing}" if missing else "")
    facts = asdict(proposal)
    if rollout is not None:
        facts["rollout"] = rollout_facts(rollout)
        sentence += f": release {rollout.release.number} is {rollout.state} {rollout.reason}"
    say(facts, sentence, as_json=as_json)
    raise typer.Exit(1 if rollout is not None and rollout.state == "abandoned" else 0)


def _missing(proposal: Proposal) -> str:
    return people(proposal.needed) if any(proposal.needed.values()) else ""


def _proposal_row(proposal: Proposal) -> tuple[str, ...]:
    stages = "\n".join(
        f"{stage} {digest[:12] if digest else 'dropped'}" for stage, digest in proposal.stages.items()
    )
    given = "\n".join(
        f"{person} ({word['role']}) {'approves' if word['approves'] else 'rejects'} {word['comment']}"
        for person, word in proposal.approvals.items()
    )
    missing = _missing(proposal)
    head = (str(proposal.id), proposal.state, proposal.slot, stages, proposal.proposed_by)
    return (*head, local_time(proposal.proposed_at), given, missing, proposal.comment)
