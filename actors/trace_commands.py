"""The sub-command `trace`: one answer, and everything that led to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from actors.config import Settings
from actors.errors import ActorError
from governance.database import Connection, connect
from governance.errors import GovernanceError
from governance.terminal import ConfigOption, JsonOption, fail, failing_plainly, local_time, table, to_json
from governance.trace import Trace, trace
from models.errors import ModelError
from transport.client.errors import ScorewireError


def register_trace(app: typer.Typer, settings_of: Any) -> None:
    """Add the sub-command to the front door.

    Args:
        app: the front door.
        settings_of: reads the configuration that an option names, or ends the command.
    """

    @app.command(name="trace", rich_help_panel="Traces and labels")
    def trace_(
        transaction: Annotated[str, typer.Argument(help="The transaction's id.")],
        rescore: Annotated[
            bool, typer.Option("--rescore", help="Compute it again from the stored artifacts, and compare.")
        ] = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show an answer and everything that led to it: decision, scores, features, artifacts, people.

        With --rescore, exit code 1 says that something computed again is not the same to the bit.
        """
        settings: Settings = settings_of(config)
        with failing_plainly(), connect(settings.dsn) as connection:
            found = trace(connection, settings.environment, transaction)
            checks = [_rescored(connection, settings, one) if rescore else None for one in found]
        if as_json:
            answers = [
                {**one.facts(), **({} if check is None else {"rescored": check})}
                for one, check in zip(found, checks, strict=True)
            ]
            typer.echo(to_json({"answers": answers}))
        else:
            for one, check in zip(found, checks, strict=True):
                _print(one, check)
        raise typer.Exit(1 if any(check is not None and not check["same"] for check in checks) else 0)


def _rescored(connection: Connection, settings: Settings, found: Trace) -> dict[str, Any]:
    from actors.rescore import load_pipeline, rescore  # noqa: PLC0415 - it loads the kernel

    try:
        again = rescore(load_pipeline(connection, settings, found), found.transaction)
    except (ActorError, ModelError, GovernanceError, ScorewireError, LookupError, ValueError) as error:
        fail(f"release {found.transaction.release} cannot be computed again here: {error}")
    return {
        "same": again.same,
        "scores": dict(again.scores),
        "checks": [asdict(check) for check in again.checks],
    }


def _print(found: Trace, check: Mapping[str, Any] | None) -> None:
    one, console = found.transaction, Console(highlight=False)
    release = found.release
    outcome = one.outcome or "no decision rules"
    console.print(f"[bold]{escape(one.id)}[/]: {outcome} {escape(' '.join(one.reasons))}", soft_wrap=True)
    console.print(
        f"answered at {local_time(one.at)} by release {one.release} of {one.environment}"
        f"{', a canary' if one.canary else ''}"
    )
    scores = ", ".join(f"{name} {value!r}" for name, value in one.scores.items())
    console.print(f"scores: {escape(scores)}", soft_wrap=True)
    console.print(f"nodes: {escape(_pairs(one.nodes))}", soft_wrap=True)
    console.print(f"microseconds: {escape(_pairs(one.us))}", soft_wrap=True)
    if found.label is not None:
        word = "positive" if found.label["positive"] else "negative"
        console.print(f"label: {word}, {escape(found.label['source'])} {_when(found.label['labelled_at'])}")
    for stage, values in found.features.items():
        table(stage, ("feature", "value"), [(name, repr(value)) for name, value in values.items()])
    table("Artifacts", ("stage", "artifact", "digest", "registered", "signed by"), _artifacts(found))
    people = [("promoted", release.get("created_by", ""), release.get("created_at"), release.get("comment"))]
    people += [
        (f"approved as {one['role']}", one["person"], one["at"], one["comment"]) for one in found.approvals
    ]
    people += [
        (f"{one['kind']}: {one['state']}", one["started_by"], one["started_at"], one["comment"])
        for one in found.rollouts
    ]
    rows = [(what, who, _when(moment), comment or "") for what, who, moment, comment in people]
    table(f"Release {one.release}", ("what", "who", "when", "why"), rows)
    for part in check["checks"] if check is not None else ():
        said = {True: "[green]the same to the bit[/]", False: "[red]not the same[/]", None: "not computed"}
        console.print(f"computed again, {part['what']}: {said[part['same']]} {escape(part['detail'])}")


def _artifacts(found: Trace) -> list[tuple[str, ...]]:
    return [
        (
            facts["stage"],
            f"{facts['kind']} {facts['name']}",
            facts["digest"][:12],
            f"{facts['registered_by']}, {_when(facts['registered_at'])}",
            ", ".join(signature["key"] for signature in facts["signatures"]),
        )
        for facts in found.artifacts
    ]


def _pairs(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _when(moment: datetime | None) -> str:
    return "" if moment is None else local_time(moment)
