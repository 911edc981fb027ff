"""The sub-commands of feature specs: `model schema`, `model profile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from models.errors import ModelError, SourceFileError
from models.spec import load_spec

SpecArgument = Annotated[Path, typer.Argument(help="A feature spec (.toml, .json).")]


def register_commands(app: typer.Typer) -> None:
    """Add the commands to the others of this room."""
    app.command()(schema)
    app.command()(profile)


def schema(
    spec: SpecArgument,
    out: Annotated[
        Path | None, typer.Option(help="Where the schema goes.", show_default="standard output")
    ] = None,
) -> None:
    """Print the JSON Schema (draft 2020-12) of the transactions that a feature spec takes.

    Callers can check what they send with any library of JSON Schema. What the schema accepts, the spec
    accepts, but for what depends on two fields at once (a ratio too large for a float32, for instance).
    """
    try:
        text = json.dumps(load_spec(spec).schema(), indent=2, ensure_ascii=False) + "\n"
        if out is None:
            typer.echo(text, nl=False)
        else:
            out.write_text(text, encoding="utf-8")
    except (ModelError, OSError) as error:
        fail(str(error))


def profile(
    spec: SpecArgument,
    data: Annotated[Path, typer.Argument(help="The training data as transactions: JSON lines.")],
    out: Annotated[Path, typer.Option(help="Where the spec with its profile goes (JSON).")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a feature spec again with the profile of its training data in it.

    The profile says how often each field was missing, and how its values were spread; none of the data is
    kept but the categories' own names. Live traffic is counted against it: see `run.py drift`.
    """
    try:
        data_file = load_spec(spec).profiled(read_transactions(data))
        out.write_bytes(data_file)
        made = load_spec(data_file)
    except (ModelError, OSError, ValueError) as error:
        fail(str(error))
    assert made.profile is not None  # noqa: S101 - it was just put in
    facts = {
        "spec": made.name,
        "digest": made.digest,
        "rows": made.profile.rows,
        "fields": len(made.profile.fields),
    }
    said = f"{out} holds the profile of {facts['rows']} transactions, {facts['fields']} fields: {made.digest}"
    typer.echo(json.dumps(facts) if as_json else said)


def read_transactions(path: Path) -> list[dict[str, Any]]:
    """Read transactions from a file of JSON lines.

    Raises:
        SourceFileError: it cannot be read, or a line is no object of JSON; says which.
    """
    found = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                one = json.loads(line)
                if not isinstance(one, dict):
                    raise SourceFileError(f"{path}: line {number} is no object of JSON: one a line")
                found.append(one)
    except (OSError, ValueError) as error:
        raise SourceFileError(f"{path}: no transactions, one of JSON a line: {error}") from error
    return found


def fail(message: str) -> NoReturn:
    """End the command with an error."""
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False)
    raise typer.Exit(2)
