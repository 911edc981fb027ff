"""What a feature spec's file may say."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, field_validator, model_validator

from models.features.fields import FieldRecipe
from models.features.kind import Name, Strict
from models.features.moments import check_zone
from models.features.profile import Profile
from models.features.vocabulary import AnyKind

_PLACES = ("name", "field", "by", "fields", "names")


class FeatureRecipe(Strict):
    """How a feature is computed: from which inputs, by which steps.

    Attributes:
        name: its name; the columns of a kind that makes several are `name=suffix`.
        field: the input: a field, or a value or feature that stands above.
        by: the second input of the first step.
        fields: all inputs of the first step, where it takes more.
        names: the columns' own names, where it makes several.
        steps: kinds, each computed from the one before; a file has a single one's keys right beside `name`.
    """

    name: Name
    field: Name | None = None
    by: Name | None = None
    fields: tuple[Name, ...] = ()
    names: tuple[Name, ...] | None = None
    steps: Annotated[tuple[AnyKind, ...], Field(min_length=1, max_length=100)]

    @model_validator(mode="before")
    @classmethod
    def _with_steps(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "steps" in data:
            return data
        step = {key: value for key, value in data.items() if key not in _PLACES}
        return {**{key: data[key] for key in _PLACES if key in data}, "steps": [step]}

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it is computed from."""
        return self.fields or tuple(name for name in (self.field, self.by) if name is not None)

    @model_validator(mode="after")
    def _has_its_inputs(self) -> Self:
        if self.fields and (self.field is not None or self.by is not None):
            raise ValueError("the inputs are `field` (and `by`), or `fields`")
        first, given = self.steps[0], len(self.inputs)
        if first.variadic and given < 2:  # noqa: PLR2004 - more than one
            raise ValueError(f"{first.kind} takes two or more inputs as `fields`")
        if not first.variadic and given != len(first.takes):
            raise ValueError(f"{first.kind} takes {_INPUTS[len(first.takes)]}, and {given} are given")
        for step in self.steps[1:]:
            if step.variadic or len(step.takes) != 1:
                raise ValueError(f"{step.kind} takes several inputs, and can only be a first step")
        return self


_INPUTS = {
    1: "one field as `field`",
    2: "a field, and a second field as `by`",
    4: "four inputs as `fields`",
}


class GoldenTransaction(Strict):
    """A transaction and the features that the spec's maker computed from it.

    Attributes:
        transaction: the fields.
        vector: the features' float32, little-endian, in hex.
    """

    transaction: dict[str, Any]
    vector: Annotated[str, Field(pattern=r"^([0-9a-f]{8})+$")]


class Recipe(Strict):
    """A whole feature spec."""

    name: Name
    version: Annotated[int, Field(ge=1)]
    id: Name | None = None
    timezone: str = "UTC"
    undeclared: Literal["keep", "drop"] = "keep"
    fields: Annotated[dict[Name, FieldRecipe], Field(min_length=1, max_length=65536)]
    tables: dict[Name, dict[str, FiniteFloat]] = Field(default_factory=dict)
    values: Annotated[tuple[FeatureRecipe, ...], Field(max_length=65536)] = ()
    features: Annotated[tuple[FeatureRecipe, ...], Field(min_length=1, max_length=65536)]
    profile: Profile | None = None
    golden: Annotated[tuple[GoldenTransaction, ...], Field(max_length=10_000)] = ()

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        return check_zone(name)
