"""The sub-commands of this room: `model import`, `model inspect`, `model verify`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.bundle import Bundle, open_bundle
from models.describe import describe, render
from models.errors import ModelError
from models.spec import load_spec

app = typer.Typer(help="Models as bundle files: import, inspect, verify.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
FileArgument = Annotated[Path, typer.Argument(help="A bundle file.")]


@app.command(name="import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="A model of LightGBM (.txt), XGBoost (.json, .ubj), ONNX (.onnx), or any of these or of "
            "scikit-learn as a Python object (.joblib, .pkl)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    spec: Annotated[
        Path | None,
        typer.Option(help="The feature spec that names its features.", show_default="its own names"),
    ] = None,
    trained_at: Annotated[str, typer.Option(help="When it was trained, ISO 8601 in UTC.")] = "",
    note: Annotated[list[str] | None, typer.Option(help="Provenance, key=value; may be repeated.")] = None,
    missing: Annotated[
        float | None,
        typer.Option(
            help="XGBoost: the number that stood for a missing value, which its files forget.",
            show_default="NaN",
        ),
    ] = None,
    trust_pickle: Annotated[
        bool,
        typer.Option(help="Load a .joblib or .pkl file, WHICH RUNS WHATEVER CODE ITS MAKER PUT INTO IT."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a trained model into a bundle that needs no training library.

    The bundle is compared with the source on rows that lie on and beside the model's thresholds; what
    cannot be carried to the last bit is refused by name.
    """
    # The kernel is compiled when it is first loaded.
    from models.importers import import_model  # noqa: PLC0415
    from models.importers.files import PICKLES, load_file  # noqa: PLC0415

    if trust_pickle and source.suffix in PICKLES:
        Console(stderr=True).print(f"[bold red]loading {escape(str(source))} runs the code that is in it[/]")
    notes = dict(pair.partition("=")[::2] for pair in note or [])
    try:
        with _progress() as progress:
            task = progress.add_task(f"loading {source.name}", total=None)
            model = load_file(source, trust_pickle=trust_pickle)
            names = load_spec(spec).feature_names if spec else None

            def show(done: int, total: int) -> None:
                step = "packing trees" if done < total else "comparing with its source"
                progress.update(task, description=step, completed=done, total=total)

            bundle = import_model(
                model,
                out,
                feature_names=names,
                trained_at=trained_at,
                notes=notes,
                missing=missing,
                progress=show,
            )
    except (ModelError, OSError) as error:
        _fail(str(error))
    _show(bundle, as_json=as_json)


@app.command()
def inspect(file: FileArgument, as_json: JsonOption = False) -> None:
    """Show the model in a bundle: size, trees, depth, provenance, which features matter, how it is packed."""
    _show(_open(file, None), as_json=as_json)


@app.command()
def verify(
    file: FileArgument,
    digest: Annotated[str | None, typer.Option(help="The sha256 that it must have.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a bundle's structure and digest, and score its golden vectors again on this machine."""
    from models.forest import Forest  # noqa: PLC0415 - the kernel is compiled when it is first loaded

    began = time.perf_counter()
    bundle = _open(file, digest)
    try:
        Forest(bundle).check_golden()
    except ModelError as error:
        _fail(str(error))
    facts = {
        "verified": True,
        "digest": bundle.digest,
        "golden_vectors": len(bundle.golden.x),
        "seconds": round(time.perf_counter() - began, 3),
    }
    _print(facts, "Verified", as_json=as_json)


@app.command()
def schema(
    spec: Annotated[Path, typer.Argument(help="A feature spec (.toml, .json).")],
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
        _fail(str(error))


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _open(file: Path, digest: str | None) -> Bundle:
    try:
        return open_bundle(file, digest)
    except ModelError as error:
        _fail(str(error))


def _show(bundle: Bundle, *, as_json: bool) -> None:
    facts = describe(bundle)
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        Console().print(render(facts))


def _print(facts: dict[str, Any], title: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        table.add_row(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    Console().print(table)


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"[red]error:[/] {escape(message)}", highlight=False)
    raise typer.Exit(2)
