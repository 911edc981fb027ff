"""The sub-commands `labels import` and `labels report`, and `retention`."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from governance.labels import BAD_SHOWN, LabelFile, Performance, import_labels, performance
from governance.terminal import (
    ByOption,
    ConfigOption,
    JsonOption,
    Locate,
    connected,
    fail,
    say,
    table,
    to_json,
)
from governance.transactions import keep, kept_days

_PANEL = "Traces and labels"


def register_label_commands(app: typer.Typer, locate: Locate) -> None:
    """Add these sub-commands to the front door."""
    commands = _LabelCommands(locate)
    labels = typer.Typer(help="What transactions turned out to be.", no_args_is_help=True)
    labels.command(name="import")(commands.import_)
    labels.command()(commands.report)
    app.add_typer(labels, name="labels", rich_help_panel=_PANEL)
    retention = typer.Typer(help="How long answers are kept.", no_args_is_help=True)
    retention.command(name="show")(commands.show_retention)
    retention.command(name="set")(commands.set_retention)
    app.add_typer(retention, name="retention", rich_help_panel=_PANEL)


class _LabelCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def import_(
        self,
        file: Annotated[
            Path, typer.Argument(help="CSV with a header, or .jsonl: id, label [, source, when].")
        ],
        source: Annotated[str, typer.Option(help="Who says so, where a line does not tell.")] = "",
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Import labels, keyed by transaction id; of two words on one transaction the later counts.

        A label is 1, true, positive, fraud or chargeback, or 0, false, negative, genuine or legitimate;
        `when` is ISO 8601 or Unix seconds. Doing it again changes nothing. Exit code 1: some lines could
        not be read.
        """
        if not file.is_file():
            fail(f"there is no file {file}")
        with connected(self._locate, config) as (connection, environment):
            found = import_labels(
                connection, environment, LabelFile(file, source), by=by or getpass.getuser()
            )
        say(
            {"environment": environment, "file": str(file), **asdict(found)},
            f"{found.added} added, {found.changed} changed, {found.unchanged} known already,"
            f" {found.older} older than what is known, {found.bad} bad lines",
            as_json=as_json,
        )
        errors = Console(stderr=True)
        for problem in found.problems:
            errors.print(f"[red]{escape(str(file))}[/], {escape(problem)}", highlight=False)
        if found.bad > BAD_SHOWN:
            errors.print(f"and {found.bad - BAD_SHOWN} more")
        raise typer.Exit(1 if found.bad else 0)

    def report(
        self,
        since: Annotated[datetime | None, typer.Option(help="Only answers from then on.")] = None,
        until: Annotated[datetime | None, typer.Option(help="Only answers before then.")] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show precision and recall of each release, from decisions and labels.

        Flagged is what was not approved; precision is the share of the flagged that were positive, recall the
        share of the positive that were flagged, both among transactions with a label.
        """
        with connected(self._locate, config) as (connection, environment):
            found = performance(connection, environment, since=_aware(since), until=_aware(until))
        if as_json:
            typer.echo(to_json({"environment": environment, "releases": [one.facts() for one in found]}))
            return
        columns = ("release", "labels", "positive", "flagged", "precision", "recall", "declined", "precision")
        table(f"Decisions and labels in {environment}", columns, [_cells(one) for one in found])

    def show_retention(self, config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Show how many days the environment keeps what it answered."""
        with connected(self._locate, config) as (connection, environment):
            days = kept_days(connection, environment)
        facts = {"environment": environment, "days": days}
        say(facts, f"{environment} keeps what it answered for {days} days", as_json=as_json)

    def set_retention(
        self,
        days: Annotated[
            int, typer.Argument(help="Older answers are dropped within an hour, for good.", min=1)
        ],
        reason: Annotated[str, typer.Option("--reason", help="Why; it is kept in the audit log.")],
        by: ByOption = "",
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Set how many days the environment keeps what it answered."""
        with connected(self._locate, config) as (connection, environment):
            keep(connection, environment, days, by=by or getpass.getuser(), reason=reason)
        facts = {"environment": environment, "days": days}
        say(facts, f"{environment} now keeps what it answered for {days} days", as_json=as_json)


def _aware(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone()


def _cells(one: Performance) -> tuple[str, ...]:
    declined = one.declined_hits / one.declined if one.declined else None
    return (
        *(str(one.release), str(one.labels), str(one.positives), str(one.flagged)),
        *(_share(one.precision), _share(one.recall), str(one.declined), _share(declined)),
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
