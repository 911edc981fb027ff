"""The sub-commands for code packages: `code new` and `code check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actors.code.scaffold import scaffold
from actors.config import CodeSettings
from actors.errors import ActorError
from models.code.interface import Stage
from models.errors import ModelError

app = typer.Typer(help="Stages of the evaluation that are code: begin one, check one.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_DEFAULTS = CodeSettings()


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the package and its module: small letters, digits and _.")],
    stage: Annotated[str, typer.Option(help="What it stands for: features, decision or model.")] = "features",
    directory: Annotated[Path, typer.Option(help="Where its folder goes.")] = Path(),
    as_json: JsonOption = False,
) -> None:
    """Write a code package to begin with: a project that builds, with golden values that hold.

    Build it with `pip wheel --no-deps NAME`, look at it with `code check`, then register, sign and promote it
    as any artifact.
    """
    stages: dict[str, Stage] = {"features": "features", "decision": "decision", "model": "model"}
    if stage not in stages:
        _fail(f"there is no stage {stage!r}: a code package stands for {', '.join(stages)}")
    try:
        files = scaffold(directory, name, stages[stage])
    except ActorError as error:
        _fail(str(error))
    if as_json:
        typer.echo(json.dumps({"files": [str(file) for file in files]}))
        return
    for file in files:
        typer.echo(file)
    typer.echo(f"next: pip wheel --no-deps {directory / name}, then run.py code check {name}-*.whl")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A wheel.")],
    budget_ms: Annotated[
        float, typer.Option(help="Milliseconds that a call may take.", min=0.001)
    ] = _DEFAULTS.budget_ms,
    memory_mb: Annotated[
        float, typer.Option(help="Megabytes of address space that it may have.", min=64)
    ] = _DEFAULTS.memory_mb,
    start_s: Annotated[
        float, typer.Option(help="Seconds that it may take to load.", min=0.001)
    ] = _DEFAULTS.start_s,
    as_json: JsonOption = False,
) -> None:
    """Say what a node would say of a wheel: files, libraries, start, golden values. THIS RUNS ITS CODE.

    It runs in a process of its own with the limits that nodes have. What a node asks beside that is a
    signature by a key that it trusts. The exit code is 2 for a package that would be refused.
    """
    from actors.code.checking import check as ask  # noqa: PLC0415 - numpy, for this command alone

    settings = CodeSettings(budget_ms=budget_ms, memory_mb=memory_mb, start_s=start_s)
    try:
        facts = ask(file, settings.limits)
    except (ModelError, ActorError) as error:
        _fail(f"{file} would be refused: {type(error).__name__}: {error}")
    except OSError as error:
        _fail(f"{file} cannot be read: {error}")
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table(title=f"{facts['package']} {facts['version']} would be taken", show_header=False)
    for name, value in facts.items():
        table.add_row(name, escape(", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    Console().print(table)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False)
    raise typer.Exit(2)
