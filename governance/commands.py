"""The sub-commands of this room: those that look, and those that the other `*_commands` hold."""

from __future__ import annotations

import getpass
import signal
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from governance import artifacts
from governance.audit_commands import audit_app
from governance.canary import canary
from governance.canary_commands import canary_app
from governance.change_commands import PANEL, register_change_commands, rollout_facts
from governance.database import migrate as apply_migrations
from governance.drift_commands import register_drift_command
from governance.embedded import EmbeddedPostgres
from governance.freezes import frozen
from governance.history import Tenure, release_at
from governance.history import diff as differences
from governance.history import history as served
from governance.label_commands import register_label_commands
from governance.membership import Member, with_silence
from governance.proposals import proposals
from governance.releases import Release, current_release
from governance.releases import releases as all_releases
from governance.rollouts import Rollout, rollouts
from governance.rule_commands import register_rule_commands
from governance.streams import StreamNode, stream_nodes
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

_LOOK = "Look"


def register_commands(
    app: typer.Typer,
    locate: Locate,
    locate_direct: Callable[[Path | None], str],
    processes: Callable[[Path | None], list[dict[str, Any]]] = lambda _: [],
) -> None:
    """Add this room's sub-commands to the front door.

    Args:
        app: the front door.
        locate: finds the database and the environment of a configuration.
        locate_direct: finds the database without a pool in between.
        processes: tells of the node processes of this host.
    """
    commands = _Commands(locate, locate_direct, processes)
    for command in (commands.postgres, commands.migrate, commands.register):
        app.command(rich_help_panel="Set up")(command)
    for look in (commands.status, commands.releases, commands.history, commands.diff):
        app.command(rich_help_panel=_LOOK)(look)
    register_change_commands(app, locate)
    register_rule_commands(app, locate)
    register_label_commands(app, locate)
    register_drift_command(app, locate, _LOOK)
    app.add_typer(canary_app(locate), name="canary", rich_help_panel=PANEL)
    app.add_typer(audit_app(locate), name="audit", rich_help_panel=_LOOK)


class _Commands:
    def __init__(
        self,
        locate: Locate,
        locate_direct: Callable[[Path | None], str],
        processes: Callable[[Path | None], list[dict[str, Any]]],
    ) -> None:
        self._locate = locate
        self._locate_direct = locate_direct
        self._processes = processes

    def postgres(
        self,
        directory: Annotated[Path, typer.Argument(help="Where its data live; made if it is missing.")],
    ) -> None:
        """Run a PostgreSQL of its own in the foreground, to try things where no server is at hand.

        Prints the line that scorewire.toml needs. Ctrl-C or SIGTERM stops it; its data stay.
        """
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        with failing_plainly(), EmbeddedPostgres(directory) as server:
            typer.echo(f'dsn = "{server.dsn}"')
            sys.stdout.flush()
            while not stop.wait(1.0):  # with a limit, so that Python runs its signal handlers
                pass

    def migrate(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Bring the database's schema up to date. Safe to run at any time, and from anywhere at once."""
        dsn = self._locate_direct(config)
        with failing_plainly():
            applied = apply_migrations(dsn)
        say(
            {"applied": applied},
            f"applied: {', '.join(applied) or 'nothing, it is up to date'}",
            as_json=as_json,
        )

    def register(
        self,
        file: Annotated[
            Path,
            typer.Argument(
                help="A bundle, a feature spec (.toml, .json), decision rules (.toml), a code package (.whl)."
            ),
        ],
        name: Annotated[
            str | None, typer.Option(help="What people call it.", show_default="the file's")
        ] = None,
        by: ByOption = "",
        note: Annotated[
            list[str] | None, typer.Option(help="Provenance, key=value; may be repeated.")
        ] = None,
        metric: Annotated[
            list[str] | None, typer.Option(help="How good it is, key=number; may be repeated.")
        ] = None,
        provenance: Annotated[
            Path | None,
            typer.Option(help="A TOML file of where it comes from: docs/governance.md has one."),
        ] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Check a file and store it in the database, named by its sha256. Doing it twice changes nothing."""
        notes = dict(pair.partition("=")[::2] for pair in note or [])
        if not file.is_file():
            fail(f"there is no file {file}")
        facts = _provenance(provenance, metric or [])
        with connected(self._locate, config) as (connection, _):
            found = artifacts.register(
                connection,
                file,
                kind=artifacts.kind_of(file),
                name=name or file.stem,
                by=by or getpass.getuser(),
                notes=notes,
                facts=facts,
            )
        say(asdict(found), f"{found.kind} {found.name}: {found.digest}", as_json=as_json)

    def releases(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """List the releases of the environment, the newest first."""
        with connected(self._locate, config) as (connection, environment):
            found = all_releases(connection, environment)
        if as_json:
            typer.echo(to_json({"releases": [asdict(release) for release in found]}))
            return
        columns = ("release", "slot", "pipeline", "by", "at", "comment")
        table("Releases", columns, [row for release in found for row in _release_rows(release)])

    def status(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Show the environment: its release, its nodes and what each acts on, the latest rollouts."""
        with connected(self._locate, config) as (connection, environment):
            current = current_release(connection, environment)
            nodes = with_silence(connection, environment)
            latest = rollouts(connection, environment, 5)
            freeze = frozen(connection, environment)
            beside = canary(connection, environment)
            waiting = proposals(connection, environment, only_open=True)
            streaming = stream_nodes(connection, environment)
        local = self._processes(config)
        if as_json:
            facts = {
                "environment": environment,
                "release": asdict(current) if current else None,
                "members": [{**asdict(node), "silent_s": silent_s} for node, silent_s in nodes],
                "rollouts": [rollout_facts(rollout) for rollout in latest],
                "frozen": asdict(freeze) if freeze else None,
                "canary": beside,
                "proposals": [asdict(proposal) for proposal in waiting],
                "streams": [asdict(node) for node in streaming],
                "processes": local,
            }
            typer.echo(to_json(facts))
            return
        serving = f"release {current.number}" if current else "no release yet"
        Console().print(f"[bold]{environment}[/]: {serving}")
        if beside:
            share = f"{beside['percent']:g} % of keys ({beside['key'] or 'the id'})"
            Console().print(f"canary: release {beside['release']}, for {share}")
        if freeze:
            since = f"{local_time(freeze.since)} by {freeze.by}: {freeze.reason}"
            Console().print(f"[bold red]frozen[/] since {escape(since)}", soft_wrap=True)
        if waiting:
            Console().print(f"{len(waiting)} proposals wait for people: `run.py proposals`")
        table(
            "Nodes",
            ("node", "state", "release", "endpoints", "beat"),
            [_node_row(node, silent_s, current) for node, silent_s in nodes],
        )
        if local:
            named = ("process", "pid", "ready", "up s", "restarts", "last exit", "starts in s")
            table("On this host", named, [_process_row(one) for one in local])
        columns = ("rollout", "release", "state", "started", "reason")
        table("Latest rollouts", columns, [_rollout_row(rollout) for rollout in latest])
        if streaming:
            table("Tees and sinks", ("node", "counted", "beat"), [_stream_row(node) for node in streaming])

    def history(
        self,
        at: Annotated[
            datetime | None, typer.Option(help="Show the release of that moment instead, in UTC.")
        ] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show which release the environment served when, how it came, and who approved it."""
        with connected(self._locate, config) as (connection, environment):
            if at is not None:
                found = release_at(connection, environment, at.replace(tzinfo=at.tzinfo or UTC))
                if as_json:
                    typer.echo(to_json({"release": asdict(found)}))
                    return
                columns = ("release", "slot", "pipeline", "by", "at", "comment")
                table(f"Served at {at}", columns, list(_release_rows(found)))
                return
            tenures = served(connection, environment)
        if as_json:
            typer.echo(to_json({"history": [asdict(tenure) for tenure in tenures]}))
            return
        heads = ("release", "since", "until", "came by", "by", "approved by", "comment")
        table("History", heads, [_tenure_row(tenure) for tenure in tenures])

    def diff(
        self,
        before: Annotated[int, typer.Argument(help="A release.")],
        after: Annotated[int, typer.Argument(help="Another one.")],
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show in what two releases differ: slot, stage, and both artifacts with their provenance."""
        with connected(self._locate, config) as (connection, environment):
            found = differences(connection, environment, before, after)
        if as_json:
            typer.echo(to_json({"differences": [asdict(one) for one in found]}))
            return
        columns = ("slot", "stage", f"release {before}", f"release {after}")
        rows = [(one.slot, one.stage, _artifact(one.before), _artifact(one.after)) for one in found]
        table(f"{len(found)} differences", columns, rows)


def _provenance(file: Path | None, metrics: Sequence[str]) -> dict[str, Any]:
    """Read where an artifact comes from; metrics that are given one by one come before those of the file."""
    try:
        facts = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError) as error:
        fail(f"{file} cannot be read: {error}")
    given = dict(pair.partition("=")[::2] for pair in metrics)
    return {**facts, "metrics": {**facts.get("metrics", {}), **given}}


def _release_rows(release: Release) -> Iterator[tuple[str, ...]]:
    for slot, pipeline in release.slots.items():
        stages = "\n".join(f"{stage} {digest[:12]}" for stage, digest in pipeline.stages.items())
        proof = f" (evidence: report {release.evidence})" if release.evidence else ""
        made = (release.created_by, local_time(release.created_at), release.comment + proof)
        yield (str(release.number), slot, stages, *made)


def _process_row(one: dict[str, Any]) -> tuple[str, ...]:
    keys = ("id", "pid", "ready", "up_s", "restarts", "last_exit", "pause_s")
    return tuple("" if one[key] is None else str(one[key]) for key in keys)


def _node_row(node: Member, silent_s: float | None, current: Release | None) -> tuple[str, ...]:
    behind = " (behind)" if current and node.release != current.number else ""
    state = node.state if silent_s is None else f"silent for {silent_s:.0f} s"
    place = " ".join(node.endpoints)
    return (node.node_id, state, f"{node.release or '-'}{behind}", place, local_time(node.beat_at))


def _rollout_row(rollout: Rollout) -> tuple[str, ...]:
    number = str(rollout.release.number)
    return (str(rollout.id), number, rollout.state, local_time(rollout.started_at), rollout.reason)


def _stream_row(node: StreamNode) -> tuple[str, ...]:
    counted = ", ".join(f"{name} {value:g}" for name, value in sorted(node.counters.items()) if value)
    return (node.node_id, counted, local_time(node.beat_at))


def _tenure_row(tenure: Tenure) -> tuple[str, ...]:
    until = local_time(tenure.until) if tenure.until else "now"
    people = (tenure.started_by, ", ".join(tenure.approved_by))
    return (str(tenure.number), local_time(tenure.since), until, tenure.kind, *people, tenure.comment)


def _artifact(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "nothing"
    lines = [f"{facts['name']} {facts['digest'][:12]}"]
    lines.append(f"registered {local_time(facts['registered_at'])} by {facts['registered_by']}")
    provenance = facts["provenance"]
    told = {key: provenance.get(key) for key in ("version", "trained_at", "training_run", "source_revision")}
    told |= provenance.get("metrics", {})
    return "\n".join([*lines, *(f"{key}: {value}" for key, value in told.items() if value)])
