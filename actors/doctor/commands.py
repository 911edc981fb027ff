"""The sub-command `doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actors.config import Settings, read_configuration
from actors.config_option import options
from actors.doctor.balancer import check_haproxy
from actors.doctor.database import check_database
from actors.doctor.finding import Check, Finding, failure, ok, warning
from actors.doctor.host import check_directories, check_limits, check_pages, check_ports, check_processes
from actors.errors import ConfigError
from governance.terminal import ConfigOption, JsonOption, to_json

#: What this room looks at.
CHECKS: Final[Sequence[Check]] = (
    check_directories,
    check_limits,
    check_pages,
    check_ports,
    check_processes,
    check_database,
    check_haproxy,
)
_SHOWN: Final = {
    "ok": ("[green]ok[/]", "green"),
    "warning": ("[yellow]warning[/]", "yellow"),
    "failure": ("[red]failure[/]", "red"),
}


def doctor_command(checks: Sequence[Check]) -> Callable[..., None]:
    """Return the sub-command.

    Args:
        checks: what is looked at, of all rooms.
    """

    def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
        """Look at all that this host needs, and say what to do about each finding.

        The configuration, directories and their room, limits of files, huge pages, ports, the processes of
        `up`; the database with its schema, rights, notifications and clock; HAProxy; Kafka. Changes
        nothing. Exit code 1 if anything will not work.
        """
        found = list(_examine(config, checks))
        counts: Counter[str] = Counter(one.level for one in found)
        if as_json:
            summary = {"failures": counts["failure"], "warnings": counts["warning"]}
            typer.echo(to_json({**summary, "findings": [asdict(one) for one in found]}))
        else:
            _show(found, counts)
        raise typer.Exit(1 if counts["failure"] else 0)

    return doctor


def _examine(config: Path | None, checks: Sequence[Check]) -> Iterator[Finding]:
    try:
        read = read_configuration(config, options())
    except ConfigError as error:
        for problem in error.problems:
            yield failure("configuration", str(problem), "docs/configuration.md has every key")
        return
    yield ok("configuration", f"{read.file or 'variables and defaults alone'}: every key is right")
    if not read.settings.trusted_keys:
        yield warning(
            "configuration",
            "no key is trusted, so that signatures are not looked at",
            "make one with `run.py keys new`, and name it under [trusted_keys]",
        )
    for check in checks:
        yield from _safely(check, read.settings)


def _safely(check: Check, settings: Settings) -> Iterator[Finding]:
    """Yield what a check finds; that it fails itself is a finding too."""
    try:
        yield from check(settings)
    except Exception as error:  # noqa: BLE001 - the other checks are worth their answers
        name = check.__name__.removeprefix("check_")
        yield failure(name, f"could not be looked at: {type(error).__name__}: {error}", "please report this")


def _show(found: Sequence[Finding], counts: Counter[str]) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in found:
        word, colour = _SHOWN[one.level]
        advice = f"\n[{colour}]→ {escape(one.advice)}[/]" if one.advice else ""
        table.add_row(word, one.check, escape(one.found) + advice)
    console = Console()
    console.print(table)
    if counts["failure"] or counts["warning"]:
        console.print(f"\n{counts['failure']} failures, {counts['warning']} warnings")
    else:
        console.print("\n[green]all is well[/]")
