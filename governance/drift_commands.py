"""The sub-command `drift`: how live transactions differ from training."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from governance.drift import StageDrift, drift_of
from governance.terminal import ConfigOption, JsonOption, Locate, connected, table, to_json

#: Above this a distribution is said to have moved: the usual rule of thumb of credit scoring.
_MOVED_PSI = 0.25


def register_drift_command(app: typer.Typer, locate: Locate, panel: str) -> None:
    """Add the sub-command to the front door."""

    def drift(
        release: Annotated[
            int | None, typer.Option(help="Its number.", show_default="the current one")
        ] = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Show how the fields of live transactions differ from the training profile in the feature spec.

        For each field: how often it is missing, now and in training; the share of categories that training
        had not, or of numbers outside its range; and the population stability index (PSI; above 0.25 is a
        move). `run.py model profile` puts a profile into a spec. Counts come from all preprocessors, and are
        a few seconds old.
        """
        with connected(locate, config) as (connection, environment):
            found = drift_of(connection, environment, release)
        if as_json:
            typer.echo(to_json({"environment": environment, "stages": [asdict(one) for one in found]}))
            return
        for one in found:
            _show(one)

    app.command(rich_help_panel=panel)(drift)


def _show(one: StageDrift) -> None:
    console = Console()
    if not one.trained_rows:
        console.print(f"{escape(one.stage)} has no training profile: `run.py model profile` makes one")
        return
    rows = [
        (
            name,
            f"{drift.missing:.2%}",
            f"{drift.missing_trained:.2%}",
            "" if drift.unseen is None else f"{drift.unseen:.2%}",
            "" if drift.outside is None else f"{drift.outside:.2%}",
            "" if drift.psi is None else f"{drift.psi:.3f}{' !' * (drift.psi > _MOVED_PSI)}",
        )
        for name, drift in sorted(one.fields.items(), key=lambda item: -(item[1].psi or 0.0))
    ]
    title = f"{one.stage}: {one.counted} of {one.seen} transactions counted, {one.trained_rows} in training"
    table(title, ("field", "missing", "in training", "unseen", "outside", "PSI"), rows)
    for what, count in sorted(one.refused.items(), key=lambda item: -item[1]):
        console.print(f"refused {count} times by {escape(what)}", soft_wrap=True)
