"""`--set KEY=VALUE` on every command that reads the configuration, and how commands read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from actors.config import Configuration, Settings, read_configuration
from actors.errors import ConfigError

#: What --set says on the command line that is carried out.
_OPTIONS: ContextVar[tuple[str, ...]] = ContextVar("options", default=())


class FrontDoor(TyperGroup):
    """Gives --set to every command that has --config, so that no command can forget it."""

    def __init__(self, **declared: Any) -> None:
        super().__init__(**declared)
        for command in _commands(self):
            if any(parameter.name == "config" for parameter in command.params):
                command.params.append(_set_option())


def configuration_or_exit(config: Path | None) -> Configuration:
    """Read the configuration, with what --set says, or end the command with what is wrong in it."""
    try:
        return read_configuration(config, _OPTIONS.get())
    except ConfigError as error:
        console = Console(stderr=True)
        for problem in error.problems:
            console.print(f"[red]error:[/] {escape(str(problem))}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


def settings_or_exit(config: Path | None) -> Settings:
    """Read the configuration, and return its values; as configuration_or_exit."""
    return configuration_or_exit(config).settings


def options() -> tuple[str, ...]:
    """Return what --set says."""
    return _OPTIONS.get()


def _commands(group: TyperGroup) -> Iterator[Any]:
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from _commands(command)
        else:
            yield command


def _set_option() -> Any:
    """Return the option as Typer makes it of a command that has it."""
    probe = typer.Typer(add_completion=False)
    probe.command()(_with_set)
    return next(one for one in typer.main.get_command(probe).params if one.name == "options")


def _take(given: list[str] | None) -> None:
    _OPTIONS.set(tuple(given or ()))


def _with_set(
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            callback=_take,
            expose_value=False,
            help="A key of the configuration, over file and variables: scorer.nodes=4. May be repeated.",
        ),
    ] = None,
) -> None:
    del options
