"""Turns a fitted pipeline into a feature spec and a bundle, and compares both with scikit-learn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from models.errors import ImportRefusedError, ModelError
from models.importers.importer import import_model
from models.importers.pipelines.compare import Checked, Row, compare, compare_scores
from models.importers.pipelines.draft import Draft, features
from models.importers.pipelines.rows import random_rows
from models.importers.pipelines.walk import walk
from models.spec import FeatureSpec, load_spec

#: Rows that are compared with scikit-learn before a spec is believed.
CHECKED_ROWS = 256
#: Of those, the transactions that the spec keeps as golden ones.
GOLDEN_ROWS = 32


@dataclass(frozen=True)
class ImportedPipeline:
    """What came of a pipeline.

    Attributes:
        spec: its transformers.
        spec_path: the file.
        bundle: its model.
        rows: how many rows were compared.
        refused: how many of them both sides refuse.
        worst_ulps: the largest difference of a feature, in units of the last place of float32.
        rounded: rows whose score differs because the model compares float64, and vectors are float32.
    """

    spec: FeatureSpec
    spec_path: Path
    bundle: Bundle
    rows: int
    refused: int
    worst_ulps: int
    rounded: int


def is_pipeline(model: Any) -> bool:
    """Say whether a loaded object is a pipeline of scikit-learn."""
    return type(model).__name__ == "Pipeline" and type(model).__module__.startswith("sklearn.")


def import_pipeline(
    pipeline: Any,
    path: Path | str,
    spec_path: Path | str,
    *,
    name: str = "pipeline",
    version: int = 1,
    id_field: str | None = None,
    sample: Sequence[Row] = (),
    trained_at: str = "",
    notes: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ImportedPipeline:
    """Turn a fitted Pipeline, whose last step is a tree model, into a feature spec and a bundle.

    Args:
        pipeline: the pipeline.
        path: where the bundle goes.
        spec_path: where the feature spec goes (JSON).
        name: the spec's name.
        version: its version.
        id_field: the field that will hold a transaction's id.
        sample: transactions to be compared as well, and to be golden first: real ones find what made-up ones
            do not.
        trained_at: as import_model has it.
        notes: as import_model has them.
        progress: as import_model has it.

    Returns:
        What was written; all features and scores were compared with scikit-learn's own.

    Raises:
        ImportRefusedError: a step cannot be carried, or computes something else; names it.
    """
    carried = carry(pipeline, name=name, version=version, id_field=id_field, sample=sample)
    bundle = import_model(
        pipeline.steps[-1][1],
        path,
        feature_names=carried.spec.feature_names,
        trained_at=trained_at,
        notes=notes,
        sparse=carried.checked.sparse,
        progress=progress,
    )
    try:
        rounded = compare_scores(pipeline, carried.draft, carried.spec, bundle, carried.checked.rows)
    except ImportRefusedError:
        Path(path).unlink()
        raise
    Path(spec_path).write_bytes(carried.file)
    checked = carried.checked
    return ImportedPipeline(
        load_spec(Path(spec_path)),
        Path(spec_path),
        bundle,
        checked.asked,
        checked.refused,
        checked.worst_ulps,
        rounded,
    )


@dataclass(frozen=True)
class Carried:
    """The transformers of a pipeline as a feature spec.

    Attributes:
        draft: what was found out about its columns.
        file: the spec's file, golden transactions included.
        spec: the same, compiled.
        checked: the comparison with scikit-learn.
    """

    draft: Draft
    file: bytes
    spec: FeatureSpec
    checked: Checked


def carry(
    pipeline: Any,
    *,
    name: str = "pipeline",
    version: int = 1,
    id_field: str | None = None,
    sample: Sequence[Row] = (),
) -> Carried:
    """Turn the transformers of a fitted Pipeline into a feature spec; see import_pipeline."""
    draft, columns = _follow(pipeline)
    recipe: dict[str, Any] = {
        "name": name,
        "version": version,
        **({"id": id_field} if id_field else {}),
        "fields": {field: draft.fields[field] for field in draft.names if field in draft.fields},
        "values": draft.values,
        "features": features(draft, columns, _names(pipeline, len(columns))),
    }
    spec = _compiled(recipe)
    checked = compare(pipeline, draft, spec, [*sample, *random_rows(draft, CHECKED_ROWS)])
    kept = [{field: row.get(field) for field in recipe["fields"]} for row in checked.rows[:GOLDEN_ROWS]]
    recipe["golden"] = [{"transaction": row, "vector": spec.packed(row).hex()} for row in kept]
    file = json.dumps(recipe, allow_nan=False, indent=1).encode()
    return Carried(draft, file, load_spec(file), checked)


def _follow(pipeline: Any) -> tuple[Draft, list[Any]]:
    if not is_pipeline(pipeline) or not pipeline.steps:
        raise ImportRefusedError(f"a {type(pipeline).__name__} is no Pipeline of scikit-learn")
    known = getattr(pipeline, "feature_names_in_", None)
    try:
        count = pipeline.n_features_in_
    except AttributeError as error:
        raise ImportRefusedError("the pipeline is not fitted") from error
    draft = Draft(tuple(map(str, known)) if known is not None else tuple(f"x{n}" for n in range(count)))
    columns = draft.raw()
    for _, step in pipeline.steps[:-1]:
        columns = walk(step, columns, draft)
    if not columns:
        raise ImportRefusedError("nothing comes out of its transformers")
    # What nobody used before is taken as numbers, as the model takes it.
    return draft, [column if column.group else draft.number(column) for column in columns]


def _names(pipeline: Any, count: int) -> list[str]:
    """Return the names of the model's features: its own, those that the transformers give, or numbers."""
    model = pipeline.steps[-1][1]
    found = getattr(model, "feature_names_in_", None)
    if found is None and len(pipeline.steps) > 1:
        try:
            found = pipeline[:-1].get_feature_names_out()
        except Exception:  # noqa: BLE001 - a FunctionTransformer knows none, and each version says so its way
            found = None
    elif found is None:
        found = getattr(pipeline, "feature_names_in_", None)
    names = [f"f{number}" for number in range(count)] if found is None else [str(one)[:190] for one in found]
    if len(names) != count:
        raise ImportRefusedError(f"{count} columns come to the model, and it has {len(names)} names for them")
    # scikit-learn gives the category "nan" and what is missing one name.
    first = {name: at for at, name in reversed(list(enumerate(names)))}
    return [name if first[name] == at else f"{name}#{at}" for at, name in enumerate(names)]


def _compiled(recipe: Mapping[str, Any]) -> FeatureSpec:
    try:
        return load_spec(json.dumps(recipe, allow_nan=False).encode())
    except (ModelError, ValueError) as error:
        raise ImportRefusedError(f"the pipeline cannot be written as a feature spec: {error}") from error
