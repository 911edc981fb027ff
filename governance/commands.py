"""The sub-commands of this room: `migrate`, `register`, `promote`, `releases` and `status`."""

from __future__ import annotations

import getpass
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from governance import artifacts
from governance.audit_commands import audit_app
from governance.database import migrate as apply_migrations
from governance.embedded import EmbeddedPostgres
from governance.membership import Member, members
from governance.promotion import PREPARE_S
from governance.promotion import promote as start_promotion
from governance.releases import Release, current_release
from governance.releases import releases as all_releases
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


def register_commands(app: typer.Typer, locate: Locate) -> None:
    """Add this room's sub-commands to the front door."""
    commands = _Commands(locate)
    for command in (
        commands.postgres,
        commands.migrate,
        commands.register,
        commands.promote,
        commands.releases,
        commands.status,
    ):
        app.command()(command)
    app.add_typer(audit_app(locate), name="audit")


class _Commands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

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
        dsn, _ = self._locate(config)
        with failing_plainly():
            applied = apply_migrations(dsn)
        say(
            {"applied": applied},
            f"applied: {', '.join(applied) or 'nothing, it is up to date'}",
            as_json=as_json,
        )

    def register(
        self,
        file: Annotated[Path, typer.Argument(help="A bundle, or a feature spec (.toml, .json).")],
        name: Annotated[
            str | None, typer.Option(help="What people call it.", show_default="the file's")
        ] = None,
        by: ByOption = "",
        note: Annotated[
            list[str] | None, typer.Option(help="Provenance, key=value; may be repeated.")
        ] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Check a file and store it in the database, named by its sha256. Doing it twice changes nothing."""
        kind: artifacts.Kind = "feature_spec" if file.suffix in (".toml", ".json") else "bundle"
        notes = dict(pair.partition("=")[::2] for pair in note or [])
        if not file.is_file():
            fail(f"there is no file {file}")
        with connected(self._locate, config) as (connection, _):
            found = artifacts.register(
                connection, file, kind=kind, name=name or file.stem, by=by or getpass.getuser(), notes=notes
            )
        say(asdict(found), f"{found.kind} {found.name}: {found.digest}", as_json=as_json)

    def promote(
        self,
        model: Annotated[str | None, typer.Option(help="A bundle: digest, its beginning, or name.")] = None,
        features: Annotated[str | None, typer.Option(help="A feature spec: the same.")] = None,
        slot: Annotated[str, typer.Option(help="Which slot of the environment.")] = "champion",
        comment: Annotated[str, typer.Option(help="Why.")] = "",
        deadline: Annotated[
            float, typer.Option(help="Seconds that the nodes have to prepare it.")
        ] = PREPARE_S,
        by: ByOption = "",
        wait: Annotated[bool, typer.Option(help="Wait until all nodes act on it.")] = True,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Take the environment to a new release with this model, these features, or both.

        Every node prepares it, and only when all are ready does any use it. If a node refuses, nothing
        changes, the exit code is 1, and the reason is printed and kept.
        """
        stages = {stage: wanted for stage, wanted in (("model", model), ("features", features)) if wanted}
        if not stages:
            fail("name what to promote: --model, --features, or both")
        with connected(self._locate, config) as (connection, environment):
            rollout = start_promotion(
                connection,
                environment=environment,
                stages=stages,
                by=by or getpass.getuser(),
                slot=slot,
                comment=comment,
                prepare_s=deadline,
            )
            taken_up_ms = None
            if wait:
                with Console(stderr=True).status(f"release {rollout.release.number}: nodes prepare it"):
                    rollout = wait_settled(connection, rollout.id, timeout_s=deadline + 10)
                    taken_up_ms = wait_taken_up(connection, rollout)
        facts = {**_rollout_facts(rollout), "taken_up_ms": taken_up_ms}
        how = f" by all nodes after {taken_up_ms:.0f} ms" if taken_up_ms is not None else ""
        say(
            facts,
            f"release {rollout.release.number} is {rollout.state}{how} {rollout.reason}",
            as_json=as_json,
        )
        raise typer.Exit(1 if rollout.state == "abandoned" else 0)

    def releases(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """List the releases of the environment, the newest first."""
        with connected(self._locate, config) as (connection, environment):
            found = all_releases(connection, environment)
        if as_json:
            typer.echo(to_json({"releases": [asdict(release) for release in found]}))
            return
        columns = ("release", "slot", "features", "model", "by", "at", "comment")
        table("Releases", columns, [row for release in found for row in _release_rows(release)])

    def status(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Show the environment: its release, its nodes and what each acts on, the latest rollouts."""
        with connected(self._locate, config) as (connection, environment):
            current = current_release(connection, environment)
            nodes = members(connection, environment)
            latest = rollouts(connection, environment, 5)
        if as_json:
            facts = {
                "environment": environment,
                "release": asdict(current) if current else None,
                "members": [asdict(node) for node in nodes],
                "rollouts": [_rollout_facts(rollout) for rollout in latest],
            }
            typer.echo(to_json(facts))
            return
        serving = f"release {current.number}" if current else "no release yet"
        Console().print(f"[bold]{environment}[/]: {serving}")
        table("Nodes", ("node", "state", "release", "endpoints", "beat"), [_node_row(node) for node in nodes])
        columns = ("rollout", "release", "state", "started", "reason")
        table("Latest rollouts", columns, [_rollout_row(rollout) for rollout in latest])


def _rollout_facts(rollout: Rollout) -> dict[str, Any]:
    facts = asdict(rollout)
    return {**facts, "release": rollout.release.number}


def _release_rows(release: Release) -> Iterator[tuple[str, ...]]:
    for slot, pipeline in release.slots.items():
        stages = (pipeline.stages.get("features", "")[:12], pipeline.stages.get("model", "")[:12])
        made = (release.created_by, local_time(release.created_at), release.comment)
        yield (str(release.number), slot, *stages, *made)


def _node_row(node: Member) -> tuple[str, ...]:
    place = " ".join(node.endpoints)
    return (node.node_id, node.state, str(node.release or "-"), place, local_time(node.beat_at))


def _rollout_row(rollout: Rollout) -> tuple[str, ...]:
    number = str(rollout.release.number)
    return (str(rollout.id), number, rollout.state, local_time(rollout.started_at), rollout.reason)
