"""What the sub-commands of this room share: options, connections, tables, and failing with a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import psycopg
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from governance.database import Connection, connect
from governance.errors import GovernanceError

#: Finds (dsn, environment) for a --config option; given by the front door, which knows the configuration.
Locate = Callable[[Path | None], tuple[str, str]]

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration file.", show_default="./scorewire.toml"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ByOption = Annotated[str, typer.Option(help="Who does it.", show_default="the user of this system")]


@contextmanager
def connected(locate: Locate, config: Path | None) -> Iterator[tuple[Connection, str]]:
    """Give a connection and the environment, and end the command with a sentence where something fails."""
    dsn, environment = locate(config)
    with failing_plainly(), connect(dsn) as connection:
        yield connection, environment


@contextmanager
def failing_plainly() -> Iterator[None]:
    """End the command with a sentence instead of a traceback."""
    try:
        yield
    except GovernanceError as error:
        fail(str(error))
    except psycopg.OperationalError as error:
        fail(f"the database cannot be reached: {str(error).strip()}: is dsn right, and is it up?")
    except psycopg.errors.UndefinedTable:
        fail("the database has no schema yet: `run.py migrate` makes it")


def local_time(moment: datetime) -> str:
    """Write a moment in the time zone of whoever reads it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    found = Table(*columns, title=title, title_justify="left")
    for row in rows:
        found.add_row(*map(escape, row))
    Console().print(found)


def to_json(facts: dict[str, Any]) -> str:
    """Write facts as one JSON object, moments in ISO 8601."""
    return json.dumps(facts, default=lambda value: value.isoformat())


def say(facts: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    """Print facts for a machine, or the sentence for a person."""
    typer.echo(to_json(facts) if as_json else sentence)


def fail(message: str) -> NoReturn:
    """End the command with exit code 2 and a sentence."""
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False)
    raise typer.Exit(2)
