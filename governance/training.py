"""For training pipelines: a trained model becomes a registered bundle, with its provenance, in one call.

from governance.training import register_model

register_model(model, name="fraud", spec="payments.toml", data=(x, names), metrics={"auc": 0.93})
"""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from governance.artifacts import Artifact, register
from governance.database import connect
from governance.errors import InvalidArtifactError
from governance.provenance import DataFingerprint, Provenance
from governance.signing import read_key, sign
from models.errors import ModelError
from models.importers import import_model
from models.spec import load_spec

#: Libraries whose versions are noted where they are installed.
_LIBRARIES = ("scikit-learn", "lightgbm", "xgboost", "onnx", "numpy", "pandas")


def register_model(
    model: Any,
    *,
    name: str,
    spec: Path | str | None = None,
    data: tuple[ArrayLike, Sequence[str]] | None = None,
    metrics: Mapping[str, float] | None = None,
    parameters: Mapping[str, Any] | None = None,
    training_run: str = "",
    source_revision: str = "",
    parent: str | None = None,
    model_card: str = "",
    key: tuple[Path | str, str] | None = None,
    by: str = "",
    dsn: str = "",
) -> Artifact:
    """Import a trained model and register it.

    Args:
        model: as models.importers.import_model takes it.
        name: what people call it.
        spec: the feature spec that made its features; its names become the model's.
        data: what it was trained on: an array [rows, columns], of which only a fingerprint is kept, and the
            names of its columns.
        metrics: how good it is; policies may ask for bounds.
        parameters: with which parameters; by default those that an estimator of scikit-learn tells.
        training_run: the run that made it.
        source_revision: from which source.
        parent: the digest of the artifact that it was made from.
        model_card: what people should know, in Markdown.
        key: a private key's file and name, to sign it.
        by: who registers; by default the user of this system.
        dsn: the database; by default the variable SCOREWIRE_DSN.

    Returns:
        The artifact; the same model registers as the same artifact again.

    Raises:
        InvalidArtifactError: it cannot be carried exactly, or its provenance is not valid; says why.
        SignatureError: the key cannot be used.
        psycopg.OperationalError: the database cannot be reached.
    """
    by = by or getpass.getuser()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    facts = Provenance(
        training_run=training_run,
        data=fingerprint(*data) if data is not None else None,
        parameters=_parameters(model) if parameters is None else parameters,
        metrics=metrics or {},
        library_versions=_versions(),
        source_revision=source_revision,
        parent=parent,
        model_card=model_card,
    ).model_dump(mode="json", exclude_defaults=True)
    signer = (read_key(Path(key[0])), key[1]) if key else None
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "model.bundle"
        try:
            names = load_spec(Path(spec)).feature_names if spec else None
            import_model(model, path, feature_names=names, trained_at=now)
        except ModelError as error:
            raise InvalidArtifactError(str(error)) from error
        with connect(dsn or os.environ["SCOREWIRE_DSN"]) as connection:
            found = register(connection, path, kind="bundle", name=name, by=by, facts=facts)
            if signer:
                sign(connection, found, signer[0], name=signer[1], by=by)
    return found


def fingerprint(data: ArrayLike, columns: Sequence[str]) -> DataFingerprint:
    """Return the fingerprint of training data: sha256 of its rows as little-endian float64, in C order.

    Args:
        data: numbers [rows, columns].
        columns: their names.

    Raises:
        ValueError: there are not as many names as columns.
    """
    array = np.ascontiguousarray(data, "<f8")
    if array.ndim != 2 or array.shape[1] != len(columns):  # noqa: PLR2004 - rows and columns
        raise ValueError(f"{len(columns)} names for data of the shape {list(array.shape)}")
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return DataFingerprint(columns=tuple(map(str, columns)), rows=len(array), digest=digest)


def _parameters(model: Any) -> dict[str, Any]:
    if not hasattr(model, "get_params"):
        return {}
    found = model.get_params()
    plain = (str, int, float, bool, type(None))
    return {key: value if isinstance(value, plain) else repr(value) for key, value in found.items()}


def _versions() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found
