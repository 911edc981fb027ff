"""The sub-commands of this room: `model import`, `model inspect`, `model verify`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.errors import ModelError
from models.feature_commands import fail, read_transactions
from models.feature_commands import register_commands as register_feature_commands
from models.spec import load_spec

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.importers.pipelines import ImportedPipeline

app = typer.Typer(
    help="Models as bundle files, and their features: import, inspect, verify.", no_args_is_help=True
)
register_feature_commands(app)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MissingOption = Annotated[
    float | None,
    typer.Option(
        help="XGBoost: the number that stood for a missing value, which its files forget.", show_default="NaN"
    ),
]
SparseOption = Annotated[
    bool,
    typer.Option(
        help="Its rows were sparse: it scores as its library scores these (a Pipeline says so itself)."
    ),
]
FileArgument = Annotated[Path, typer.Argument(help="A bundle file.")]


@app.command(name="import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(
            help="A model of LightGBM (.txt), XGBoost (.json, .ubj), ONNX (.onnx), or any of these or of "
            "scikit-learn, also at the end of a Pipeline, as a Python object (.skops; .joblib, .pkl)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where the bundle goes.")],
    spec: Annotated[
        Path | None,
        typer.Option(help="The feature spec that names its features.", show_default="its own names"),
    ] = None,
    spec_out: Annotated[
        Path | None,
        typer.Option(
            help="Where the feature spec of a Pipeline goes.",
            show_default="beside the bundle, .features.json",
        ),
    ] = None,
    sample: Annotated[
        Path | None,
        typer.Option(help="Transactions (JSON lines) to compare a Pipeline on, beside made-up ones."),
    ] = None,
    id_field: Annotated[str, typer.Option("--id", help="A Pipeline's field of a transaction's id.")] = "",
    trained_at: Annotated[str, typer.Option(help="When it was trained, ISO 8601 in UTC.")] = "",
    note: Annotated[list[str] | None, typer.Option(help="Provenance, key=value; may be repeated.")] = None,
    missing: MissingOption = None,
    sparse: SparseOption = False,
    trust_pickle: Annotated[
        bool,
        typer.Option(help="Load a .joblib or .pkl file, WHICH RUNS WHATEVER CODE ITS MAKER PUT INTO IT."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Turn a trained model into a bundle that needs no training library.

    The bundle is compared with the source on rows that lie on and beside the model's thresholds; what
    cannot be carried to the last bit is refused by name. A fitted Pipeline of scikit-learn becomes two
    files: its transformers a feature spec, with golden transactions, and its model a bundle.
    """
    # The kernel is compiled when it is first loaded.
    from models.importers import import_model  # noqa: PLC0415
    from models.importers.files import PICKLES, load_file  # noqa: PLC0415
    from models.importers.pipelines import import_pipeline, is_pipeline  # noqa: PLC0415

    if trust_pickle and source.suffix in PICKLES:
        Console(stderr=True).print(f"[bold red]loading {escape(str(source))} runs the code that is in it[/]")
    facts: dict[str, Any] = {
        "trained_at": trained_at,
        "notes": dict(pair.partition("=")[::2] for pair in note or []),
    }
    pipeline = None
    try:
        with _progress() as progress:
            task = progress.add_task(f"loading {source.name}", total=None)
            model = load_file(source, trust_pickle=trust_pickle)
            show = _shown_steps(progress, task)
            if is_pipeline(model):
                if spec or missing is not None or sparse:
                    fail("a Pipeline brings its own: --spec, --missing and --sparse are for a model alone")
                own: dict[str, Any] = {"name": source.stem, "id_field": id_field or None, **facts}
                rows = read_transactions(sample) if sample else []
                spec_out = spec_out or out.with_suffix(".features.json")
                pipeline = import_pipeline(model, out, spec_out, sample=rows, progress=show, **own)
                bundle = pipeline.bundle
            else:
                names = load_spec(spec).feature_names if spec else None
                own = {"feature_names": names, "missing": missing, "sparse": sparse, **facts}
                bundle = import_model(model, out, progress=show, **own)
    except (ModelError, OSError) as error:
        fail(str(error))
    _show(bundle, as_json=as_json, pipeline=pipeline)


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
        fail(str(error))
    facts: dict[str, Any] = {
        "verified": True,
        "digest": bundle.digest,
        "golden_vectors": len(bundle.golden.x),
        "seconds": round(time.perf_counter() - began, 3),
    }
    _print(facts, "Verified", as_json=as_json)


def _shown_steps(progress: Progress, task: TaskID) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        step = "packing trees" if done < total else "comparing with its source"
        progress.update(task, description=step, completed=done, total=total)

    return show


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _open(file: Path, digest: str | None) -> Bundle:
    from models.bundle import open_bundle  # noqa: PLC0415 - it loads the kernel's compiler, for half a second

    try:
        return open_bundle(file, digest)
    except ModelError as error:
        fail(str(error))


def _show(bundle: Bundle, *, as_json: bool, pipeline: ImportedPipeline | None = None) -> None:
    from models.describe import describe, render  # noqa: PLC0415 - as above

    facts = describe(bundle)
    more = _pipeline_facts(pipeline) if pipeline else {}
    if as_json:
        typer.echo(json.dumps({**facts, **more}))
        return
    Console().print(render(facts))
    if more:
        _print(more["feature_spec"], "Feature spec", as_json=False)


def _pipeline_facts(pipeline: ImportedPipeline) -> dict[str, Any]:
    spec = {
        "path": str(pipeline.spec_path),
        "digest": pipeline.spec.digest,
        "fields": len(pipeline.spec.recipe.fields),
        "features": pipeline.spec.n_features,
        "golden_transactions": len(pipeline.spec.recipe.golden),
        "rows_compared": pipeline.rows,
        "rows_both_refuse": pipeline.refused,
        "worst_float32_ulps": pipeline.worst_ulps,
        "scores_moved_by_float32": pipeline.rounded,
    }
    return {"feature_spec": spec}


def _print(facts: dict[str, Any], title: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts))
        return
    table = Table(title=title, show_header=False)
    for name, value in facts.items():
        table.add_row(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    Console().print(table)
