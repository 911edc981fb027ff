"""The sub-commands of this room: `model import`, `model inspect`, `model verify`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.bundle import Bundle, open_bundle
from models.errors import ModelError
from models.spec import load_spec

app = typer.Typer(help="Models as bundle files: import, inspect, verify.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
FileArgument = Annotated[Path, typer.Argument(help="A bundle file.")]


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="A LightGBM text model (.txt), or a .joblib or .pkl file.")],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    spec: Annotated[
        Path | None,
        typer.Option(help="The feature spec that names its features.", show_default="its own names"),
    ] = None,
    trained_at: Annotated[str, typer.Option(help="When it was trained, ISO 8601 in UTC.")] = "",
    note: Annotated[list[str] | None, typer.Option(help="Provenance, key=value; may be repeated.")] = None,
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
    from models.importers import import_model  # noqa: PLC0415 - the kernel is compiled when it is first loaded

    model = _load(source, trust_pickle=trust_pickle)
    notes = dict(pair.partition("=")[::2] for pair in note or [])
    try:
        names = load_spec(spec).feature_names if spec else None
        with Console(stderr=True).status(f"importing {source}, and comparing it with its source"):
            bundle = import_model(model, out, feature_names=names, trained_at=trained_at, notes=notes)
    except (ModelError, OSError) as error:
        _fail(str(error))
    _show(bundle, as_json=as_json)


@app.command()
def inspect(file: FileArgument, as_json: JsonOption = False) -> None:
    """Show what a bundle says of itself, and how large it is."""
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


def _load(source: Path, *, trust_pickle: bool) -> Any:
    if not source.is_file():
        _fail(f"there is no file {source}")
    if source.suffix == ".txt":
        import lightgbm  # noqa: PLC0415 - only importing a model needs its library

        try:
            return lightgbm.Booster(model_file=str(source))
        except lightgbm.basic.LightGBMError as error:
            _fail(f"{source} is no LightGBM model: {error}")
    if not trust_pickle:
        _fail(
            f"{source} is not loaded: a {source.suffix} file runs whatever code its maker put into it. "
            "If you trust its maker as you trust your own code, say --trust-pickle",
        )
    Console(stderr=True).print(f"[bold red]loading {escape(str(source))} runs the code that is in it[/]")
    import joblib  # noqa: PLC0415 - comes with scikit-learn

    try:
        return joblib.load(source)
    except Exception as error:  # noqa: BLE001 - it runs somebody's code, which may raise anything
        _fail(f"{source} cannot be loaded: {error!r}; was it made with other library versions?")


def _open(file: Path, digest: str | None) -> Bundle:
    try:
        return open_bundle(file, digest)
    except ModelError as error:
        _fail(str(error))


def _show(bundle: Bundle, *, as_json: bool) -> None:
    facts = {
        "digest": bundle.digest,
        "bytes": bundle.size,
        **bundle.meta.model_dump(mode="json"),
        "lines": int(bundle.forest.lines.size),
        "distinct_leaves": len(bundle.forest.table),
        "golden_vectors": len(bundle.golden.x),
    }
    _print(facts, str(bundle.path), as_json=as_json)


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
