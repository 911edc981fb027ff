"""The sub-commands of `shadow`; `report` and `diff` stand in report_commands.py."""

from __future__ import annotations

import getpass
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Annotated

import typer

from actors.config import Settings
from actors.config_option import settings_or_exit
from actors.errors import ActorError
from governance import shadows
from governance.canary import Canary
from governance.change_commands import (
    CanaryKeyOption,
    CanaryOption,
    DeadlineOption,
    DecisionOption,
    FeaturesOption,
    ModelOption,
    ReasonOption,
    follow,
    named_stages,
)
from governance.database import Connection
from governance.errors import ApprovalNeededError, GovernanceError, UnknownShadowError
from governance.promotion import PREPARE_S
from governance.releases import CHAMPION, current_release
from governance.terminal import (
    ByOption,
    ConfigOption,
    JsonOption,
    Locate,
    connected,
    fail,
    local_time,
    say,
    table,
    to_json,
)
from models.errors import ModelError
from shadow.errors import ShadowError
from shadow.replay_commands import archive_command, replay_command
from shadow.report_commands import diff_command, failing_plainly, report_command

NameArgument = Annotated[str, typer.Argument(help="The shadow.")]


def shadow_app(locate: Locate) -> typer.Typer:
    """Return the sub-commands, which find their database by `locate`."""
    commands = _ShadowCommands(locate)
    app = typer.Typer(
        help="Candidates that evaluate copies of live transactions beside the champion.", no_args_is_help=True
    )
    app.command()(commands.start)
    app.command(name="list")(commands.list_)
    app.command()(commands.stop)
    app.command()(commands.retire)
    app.command()(commands.promote)
    app.command(name="report")(report_command(locate))
    app.command(name="diff")(diff_command(locate))
    app.command(name="replay")(replay_command(locate))
    app.command(name="archive")(archive_command())
    return app


class _ShadowCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def start(
        self,
        name: Annotated[str, typer.Argument(help="What to call it.")],
        model: ModelOption = None,
        features: FeaturesOption = None,
        decision: DecisionOption = None,
        sample: Annotated[
            float, typer.Option(help="The share of transactions to evaluate, by a hash of their ids.")
        ] = 1.0,
        amount_field: Annotated[
            str, typer.Option(help="The field of a transaction that says what is at stake.")
        ] = "amount",
        comment: Annotated[str, typer.Option(help="Why.")] = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Start a shadow of the environment's champion, with these stages of its own.

        What it does not name is taken from the live record. Without any, one that was stopped or suspended
        runs again. Before it starts, it is made ready here as its nodes will make it.
        """
        stages = named_stages(model or [], features or [], decision, [])
        overrides = {stage: wanted for stage, wanted in stages.items() if wanted is not None}
        settings = settings_or_exit(config)
        with connected(self._locate, config) as (connection, environment):
            by = by or getpass.getuser()
            if not overrides:
                found = _resumed(connection, environment, name, by, comment)
            else:
                digests = shadows.resolve(connection, overrides)
                _check(connection, settings, environment, digests)
                found = shadows.start(
                    connection,
                    environment,
                    name,
                    digests,
                    by=by,
                    sample=sample,
                    amount_field=amount_field,
                    comment=comment,
                )
        sentence = f"shadow {found.name} of {environment} runs: {_stages_text(found.overrides)}"
        say(asdict(found), sentence, as_json=as_json)

    def list_(
        self,
        everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """List the environment's shadows, what each has found so far, and the nodes that run them."""
        with connected(self._locate, config) as (connection, environment):
            found = shadows.shadows(connection, environment, () if everything else shadows.OPEN)
            results = _results(connection, [shadow.id for shadow in found])
            nodes = connection.execute(
                "SELECT node_id, host, pid, joined_at, counters, shadows FROM shadow_node"
                " WHERE environment = %s AND beat_at > clock_timestamp() - interval '15 seconds'"
                " ORDER BY node_id",
                (environment,),
            ).fetchall()
            progress = connection.execute(
                "SELECT partition, node_id, position, high, behind_s, at FROM shadow_progress"
                " WHERE environment = %s ORDER BY partition",
                (environment,),
            ).fetchall()
        if as_json:
            facts = [{**asdict(shadow), "results": results.get(shadow.id, 0)} for shadow in found]
            typer.echo(to_json({"shadows": facts, "nodes": nodes, "progress": progress}))
            return
        rows = [_row(shadow, results.get(shadow.id, 0)) for shadow in found]
        table("Shadows", ("shadow", "overrides", "sample", "state", "since", "by", "results"), rows)
        behind = max((row["behind_s"] for row in progress), default=0.0)
        typer.echo(f"{len(nodes)} shadow nodes; {behind:.1f} s behind the live stream")

    def stop(
        self,
        name: NameArgument,
        reason: ReasonOption = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Let a shadow run no more. What it found stays; `shadow start NAME` lets it run again."""
        with connected(self._locate, config) as (connection, environment):
            found = shadows.stop(connection, environment, name, by=by or getpass.getuser(), reason=reason)
        say(asdict(found), f"shadow {name} of {environment} is stopped", as_json=as_json)

    def retire(
        self,
        name: NameArgument,
        reason: ReasonOption,
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """End a shadow for good. What it found stays, and its name can be used again."""
        with connected(self._locate, config) as (connection, environment):
            found = shadows.retire(connection, environment, name, by=by or getpass.getuser(), reason=reason)
        say(asdict(found), f"shadow {name} of {environment} is retired", as_json=as_json)

    def promote(
        self,
        name: NameArgument,
        comment: Annotated[str, typer.Option(help="Why.")] = "",
        deadline: DeadlineOption = PREPARE_S,
        canary: CanaryOption = None,
        canary_key: CanaryKeyOption = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Promote what a shadow overrides, with its figures as evidence.

        The figures are stored and stay; the gates of the environment's policy read them. The exit code is 2
        if the promotion is refused, 1 if a node refuses the release.
        """
        with failing_plainly():
            from shadow.promoting import promote_shadow  # noqa: PLC0415 - it loads scipy

        with failing_plainly(), connected(self._locate, config) as (connection, environment):
            try:
                report, rollout = promote_shadow(
                    connection,
                    environment,
                    name,
                    by=by or getpass.getuser(),
                    comment=comment,
                    prepare_s=deadline,
                    canary=None if canary is None else Canary(canary, canary_key),
                )
            except ApprovalNeededError as waiting:
                say({"proposal": waiting.proposal, "state": "open"}, str(waiting), as_json=as_json)
                return
            if not as_json:
                typer.echo(f"report {report} is stored")
            follow(connection, rollout, as_json=as_json, timeout_s=deadline)


def _resumed(connection: Connection, environment: str, name: str, by: str, comment: str) -> shadows.Shadow:
    try:
        return shadows.resume(connection, environment, name, by=by, reason=comment)
    except UnknownShadowError:
        fail(f"there is no shadow {name} to run again: a new one names --model, --features or --decision")


def _check(
    connection: Connection, settings: Settings, environment: str, overrides: Mapping[str, str]
) -> None:
    """Refuse what no node could run, before it is started."""
    # They load the kernel, which no other command of this file needs.
    from actors.evaluation import Evaluator  # noqa: PLC0415
    from actors.loading import PipelineLoader  # noqa: PLC0415
    from shadow.candidate import check_candidate  # noqa: PLC0415

    release = current_release(connection, environment)
    if release is None:
        return  # whoever starts it says so
    loader = PipelineLoader(settings.cache.expanduser(), settings)

    def load(stages: Mapping[str, str], only: Collection[str], run: Collection[str]) -> Evaluator:
        return loader.load(connection, stages, only=only, run=run)

    try:
        check_candidate(release.slots[CHAMPION].stages, overrides, load)
    except (GovernanceError, ModelError, ActorError, ShadowError) as error:
        fail(f"no node could run it: {error}")


def _results(connection: Connection, ids: list[int]) -> dict[int, int]:
    rows = connection.execute(
        "SELECT shadow, sum((document ->> 'n')::bigint)::bigint AS n FROM shadow_summary"
        " WHERE shadow = ANY (%s) GROUP BY shadow",
        (ids,),
    ).fetchall()
    return {row["shadow"]: row["n"] for row in rows}


def _stages_text(stages: Mapping[str, str]) -> str:
    return ", ".join(f"{stage} {digest[:12]}" for stage, digest in sorted(stages.items()))


def _row(shadow: shadows.Shadow, results: int) -> tuple[str, ...]:
    state = f"{shadow.state}: {shadow.state_reason}" if shadow.state_reason else shadow.state
    stages = _stages_text(shadow.overrides).replace(", ", "\n")
    since = local_time(shadow.state_at)
    return (shadow.name, stages, f"{shadow.sample:g}", state, since, shadow.started_by, str(results))
