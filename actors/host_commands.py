"""The sub-commands for a host that runs: `restart`, `upgrade` and `scale`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from actors.config import Settings
from actors.control import ask
from actors.errors import ControlError

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file.", show_default="./scorewire.toml"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_PANEL = "Run"


def register_host_commands(app: typer.Typer, settings_of: Callable[[Path | None], Settings]) -> None:
    """Add these sub-commands to the front door.

    Args:
        app: the front door.
        settings_of: reads a configuration, or ends the command.
    """

    def restart(
        rolling: Annotated[bool, typer.Option("--rolling", help="One node at a time.")] = False,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Replace every node of this host, one at a time, while the others serve.

        Each is told to leave, finishes what it has, and its successor must be able to serve before the next
        one is told. Exit code 1: one could not, and the rest were left alone.
        """
        if not rolling:
            raise typer.BadParameter("say --rolling: all at once is what stopping and starting `up` does")
        _carry_out(settings_of(config), as_json, "restart")

    def upgrade(
        to: Annotated[
            Path, typer.Option(help="The directory whose code the nodes run from now on.")
        ] = Path(),
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Replace every node of this host by one that runs the code of a directory, one at a time.

        Code that does not start is refused before a node is touched; a node whose successor cannot serve is
        put back. `up` itself stays as it is until it is started again.
        """
        _carry_out(settings_of(config), as_json, "upgrade", to=str(to.resolve()))

    def scale(
        counts: Annotated[
            list[str], typer.Argument(help="scorer=4, preprocessor=3: how many there shall be.")
        ],
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make it more or fewer scorers, preprocessors or gateways on this host, while they serve.

        Callers and nodes find each other by themselves. It lasts until `up` ends; from then on
        scorewire.toml says how many there are.
        """
        _carry_out(settings_of(config), as_json, "scale", counts=dict(_count(one) for one in counts))

    for command in (restart, upgrade, scale):
        app.command(rich_help_panel=_PANEL)(command)


def here(settings: Settings) -> list[dict[str, Any]]:
    """Return what is known of the processes on this host; empty where no `up` runs."""
    try:
        *_, (_, states) = ask(settings.logs.expanduser(), "state")
    except ControlError:
        return []
    found: list[dict[str, Any]] = states
    return found


def _count(text: str) -> tuple[str, int]:
    role, _, count = text.partition("=")
    if not count.isdecimal():
        raise typer.BadParameter(f"{text!r}: say ROLE=NUMBER, as in scorer=4")
    return role, int(count)


def _carry_out(settings: Settings, as_json: bool, command: str, **more: Any) -> None:
    console = Console(stderr=True)
    try:
        for word, what in ask(settings.logs.expanduser(), command, **more):
            if word == "step":
                console.print(escape(str(what)), highlight=False)
            elif as_json:
                typer.echo(json.dumps(what))
    except ControlError as error:
        console.print(f"[red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
