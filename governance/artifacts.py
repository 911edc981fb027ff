"""Artifacts: files that are governed by their sha256, stored in PostgreSQL in chunks."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from psycopg.types.json import Jsonb

from governance.audit import acting
from governance.database import Connection
from governance.errors import InvalidArtifactError, UnknownArtifactError, UnknownStageError
from governance.provenance import read_provenance
from models.errors import ModelError

Kind = Literal["bundle", "feature_spec", "decision_rules", "code_package"]

#: Which kinds of artifacts a stage takes, with or without the name of a score.
_KINDS: Mapping[str, tuple[Kind, ...]] = {
    "features": ("feature_spec", "code_package"),
    "model": ("bundle", "code_package"),
    "decision": ("decision_rules", "code_package"),
}
#: A stage, with the name of its score where that is not the one without a name.
_STAGE = re.compile(r"(decision|features|model)|(features|model):([a-z][a-z0-9_]{0,30})")
#: The stages that no pipeline can do without.
NEEDED_STAGES = ("features", "model")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A registered artifact.

    Attributes:
        digest: the sha256 of its bytes, in hex.
        kind: what it is.
        name: what people call it; the same name may have many versions.
        size: bytes.
        provenance: what it says of itself, and what whoever registered it added.
        registered_at: when.
        registered_by: who.
    """

    digest: str
    kind: Kind
    name: str
    size: int
    provenance: dict[str, Any]
    registered_at: datetime
    registered_by: str


def register(
    connection: Connection,
    path: Path,
    *,
    kind: Kind,
    name: str,
    by: str,
    notes: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Artifact:
    """Check a file and store it; one that is there already is left as it is.

    Args:
        connection: to the database.
        path: the file.
        kind: what it is.
        name: what people call it.
        by: who registers it.
        notes: provenance in words.
        facts: provenance that a machine reads, as governance.provenance.Provenance has it.

    Raises:
        InvalidArtifactError: it is not a valid artifact of its kind, or changed while it was read.
    """
    own = read_provenance(facts or {}).model_dump(mode="json", exclude_defaults=True)
    provenance = {**describe(path, kind), **own, "notes": dict(notes or {})}
    digest, size = _digest(path)
    with acting(connection, by):
        fresh = connection.execute(
            "INSERT INTO artifact (digest, kind, name, size, provenance, registered_by)"
            " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (digest) DO NOTHING RETURNING digest",
            (digest, kind, name, size, Jsonb(provenance), by),
        ).fetchone()
        if fresh:
            _store(connection, path, digest)
    return find(connection, digest, kind)


def kind_of(path: Path) -> Kind:
    """Guess what a file is: a wheel is a code package, text a feature spec or rules, all else a bundle."""
    if path.suffix == ".whl":
        return "code_package"
    if path.suffix not in (".toml", ".json"):
        return "bundle"
    try:
        rules = path.suffix == ".toml" and "rules" in tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        rules = False  # whoever reads it as a feature spec will say what is wrong
    return "decision_rules" if rules else "feature_spec"


def describe(path: Path, kind: Kind) -> dict[str, Any]:
    """Check a file of a kind and return what it says of itself.

    Raises:
        InvalidArtifactError: with the reason.
    """
    from models.bundle import open_bundle  # noqa: PLC0415 - numba is heavy, and few commands register
    from models.code.package import open_package  # noqa: PLC0415
    from models.decision import load_decision  # noqa: PLC0415
    from models.spec import load_spec  # noqa: PLC0415

    try:
        if kind == "bundle":
            return open_bundle(path).meta.model_dump(mode="json")
        if kind == "decision_rules":
            rules = load_decision(path).file
            return {"rules": rules.name, "version": rules.version, "reasons": [r.reason for r in rules.rules]}
        if kind == "code_package":
            return open_package(path).describe()
        spec = load_spec(path)
        spec.check_golden()
    except ModelError as error:
        raise InvalidArtifactError(str(error)) from error
    return {"spec": spec.name, "version": spec.version, "feature_names": list(spec.feature_names)}


def find_any(connection: Connection, wanted: str, kinds: tuple[Kind, ...] = get_args(Kind)) -> Artifact:
    """Return an artifact of one of some kinds, as find does.

    Raises:
        UnknownArtifactError: nothing fits, or artifacts of several kinds do.
    """
    if len(kinds) == 1:
        return find(connection, wanted, kinds[0])
    found = []
    for kind in kinds:
        with contextlib.suppress(UnknownArtifactError):
            found.append(find(connection, wanted, kind))
    if len(found) != 1:
        what = "nothing" if not found else "more than one kind of artifact"
        raise UnknownArtifactError(f"{what} is registered as {wanted!r}: give its digest")
    return found[0]


def find_for_stage(connection: Connection, wanted: str, stage: str) -> Artifact:
    """Return an artifact that can stand for a stage, as find does; code stands for the stage that it is for.

    Raises:
        UnknownArtifactError: nothing fits, or artifacts of several kinds do.
        UnknownStageError: there is no such stage.
    """
    found, why = [], ""
    for kind in kind_of_stage(stage):
        try:
            one = find(connection, wanted, kind)
        except UnknownArtifactError as error:
            why = why or str(error)
            continue
        if kind != "code_package" or one.provenance.get("stage") == split_stage(stage)[0]:
            found.append(one)
        else:
            why = f"{one.name} {one.digest[:12]} is code for the stage {one.provenance.get('stage')}"
    if not found:
        raise UnknownArtifactError(why)
    if len(found) > 1:
        raise UnknownArtifactError(f"{wanted!r} is both data and code for {stage}: give its digest")
    return found[0]


def find(connection: Connection, wanted: str, kind: Kind) -> Artifact:
    """Return an artifact by its digest, by the beginning of it (8 or more), or by its newest name.

    Raises:
        UnknownArtifactError: nothing fits, or more than one digest does.
    """
    rows = connection.execute(
        "SELECT * FROM artifact WHERE kind = %(kind)s AND (digest = %(wanted)s OR name = %(wanted)s"
        "  OR (length(%(wanted)s) >= 8 AND starts_with(digest, %(wanted)s)))"
        " ORDER BY registered_at DESC, digest",
        {"kind": kind, "wanted": wanted},
    ).fetchall()
    named = [row for row in rows if row["name"] == wanted]
    found = named[:1] or rows
    if not found:
        raise UnknownArtifactError(f"no {kind} {wanted!r} is registered: `run.py register` does it")
    if len(found) > 1:
        raise UnknownArtifactError(f"{wanted!r} begins {len(found)} digests of a {kind}: give more of it")
    return Artifact(**found[0])


def code_among(connection: Connection, digests: Iterable[str]) -> frozenset[str]:
    """Return those of some artifacts that are code packages."""
    rows = connection.execute(
        "SELECT digest FROM artifact WHERE kind = 'code_package' AND digest = ANY (%s)", (list(digests),)
    ).fetchall()
    return frozenset(row["digest"] for row in rows)


def chunks(connection: Connection, digest: str) -> Iterator[bytes]:
    """Yield an artifact's bytes, chunk by chunk.

    Raises:
        UnknownArtifactError: it is not registered.
    """
    number = 0
    while row := connection.execute(
        "SELECT bytes FROM artifact_chunk WHERE digest = %s AND number = %s",
        (digest, number),
        binary=True,
    ).fetchone():
        yield row["bytes"]
        number += 1
    if not number:
        raise UnknownArtifactError(f"no artifact {digest} is registered")


def split_stage(stage: str) -> tuple[str, str]:
    """Split a stage into what it does and the name of its score; "" where it has none.

    Raises:
        UnknownStageError: it is none.
    """
    found = _STAGE.fullmatch(stage)
    if found is None:
        raise UnknownStageError(
            f"there is no stage {stage!r}: a pipeline has features, model, decision, and for each further "
            "score model:NAME and perhaps features:NAME"
        )
    plain, base, name = found.groups()
    return (base, name) if name else (plain, "")


def kind_of_stage(stage: str) -> tuple[Kind, ...]:
    """Return the kinds of artifacts that a stage takes.

    Raises:
        UnknownStageError: it is none.
    """
    return _KINDS[split_stage(stage)[0]]


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def _store(connection: Connection, path: Path, digest: str) -> None:
    seen = hashlib.sha256()
    with path.open("rb") as file, connection.cursor() as cursor:
        number = 0
        while chunk := file.read(CHUNK_BYTES):
            seen.update(chunk)
            cursor.execute("INSERT INTO artifact_chunk VALUES (%b, %b, %b)", (digest, number, chunk))
            number += 1
    if seen.hexdigest() != digest:
        raise InvalidArtifactError(f"{path} changed while it was registered: register it again")
