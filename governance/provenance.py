"""Provenance: where an artifact comes from, as whoever registers it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from governance.errors import InvalidArtifactError
from models.problems import problems

_STRICT = ConfigDict(frozen=True, extra="forbid")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DataFingerprint(BaseModel):
    """What a model was trained on.

    Attributes:
        columns: names of the columns.
        rows: how many rows.
        digest: sha256 of the data, in hex, as the training run computed it.
    """

    model_config = _STRICT
    columns: tuple[str, ...] = ()
    rows: Annotated[int, Field(ge=0)] | None = None
    digest: Digest | None = None


class Provenance(BaseModel):
    """Where an artifact comes from.

    Attributes:
        training_run: the run that made it.
        data: what it was trained on.
        parameters: with which parameters.
        metrics: how good it was; a policy may ask for bounds.
        library_versions: with which libraries.
        source_revision: from which source.
        parent: the digest of the artifact that it was made from.
        model_card: what people should know, in Markdown.
    """

    model_config = _STRICT
    training_run: str = ""
    data: DataFingerprint | None = None
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    metrics: Mapping[str, float] = Field(default_factory=dict)
    library_versions: Mapping[str, str] = Field(default_factory=dict)
    source_revision: str = ""
    parent: Digest | None = None
    model_card: str = ""


def read_provenance(facts: Mapping[str, Any]) -> Provenance:
    """Check provenance.

    Raises:
        InvalidArtifactError: names every key at fault.
    """
    try:
        return Provenance.model_validate(facts)
    except ValidationError as error:
        raise InvalidArtifactError(f"the provenance is not valid: {problems(error)}") from error
