"""What a feature spec's file may say."""

from __future__ import annotations

from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, field_validator, model_validator

Name = Annotated[str, Field(min_length=1, max_length=200)]

#: Kinds of features, and the type of field that each is computed from.
KINDS = {
    "numeric": "number",
    "log1p": "number",
    "ratio": "number",
    "difference": "number",
    "category": "category",
    "flag": "flag",
    **dict.fromkeys(("hour", "weekday", "day", "month", "is_weekend", "is_night"), "timestamp"),
}
_OF_TWO = ("ratio", "difference")


#: What becomes of a field's value where transactions are stored or sent on.
Storage = Literal["keep", "hash", "drop"]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldRecipe(_Strict):
    """What a field of a transaction must look like.

    A field of type `any` is checked by nobody and computed from by nothing: it stands there for its `store`.
    """

    type: Literal["number", "category", "flag", "timestamp", "any"]
    store: Storage = "keep"
    min: FiniteFloat | None = None
    max: FiniteFloat | None = None
    missing: FiniteFloat | Literal["error", "nan"] = "error"
    categories: tuple[Name, ...] = ()
    unknown: FiniteFloat | Literal["error"] = "error"

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.type != "number" and (self.min is not None or self.max is not None):
            raise ValueError("only a number has min and max")
        if (self.type == "category") != bool(self.categories):
            raise ValueError("a category, and nothing else, names its categories")
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("a category is named twice")
        if self.type == "timestamp" and self.missing != "error":
            raise ValueError("a timestamp cannot be missing")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is above max")
        return self


class FeatureRecipe(_Strict):
    """How a feature is computed."""

    name: Name
    kind: str
    field: Name
    by: Name | None = None
    zero: FiniteFloat | Literal["nan"] = 0.0

    @property
    def inputs(self) -> tuple[str, ...]:
        """The fields that it is computed from."""
        return (self.field,) if self.by is None else (self.field, self.by)

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> Self:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        if (self.kind in _OF_TWO) != (self.by is not None):
            raise ValueError(f"{' and '.join(_OF_TWO)} take a second field as `by`, no other kind does")
        return self


class Recipe(_Strict):
    """A whole feature spec."""

    name: Name
    version: Annotated[int, Field(ge=1)]
    id: Name | None = None
    timezone: str = "UTC"
    undeclared: Literal["keep", "drop"] = "keep"
    fields: Annotated[dict[Name, FieldRecipe], Field(min_length=1, max_length=65536)]
    features: Annotated[tuple[FeatureRecipe, ...], Field(min_length=1, max_length=65536)]

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{name!r} is no time zone, such as UTC or Europe/Paris") from error
        return name

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("a feature is named twice")
        for feature in self.features:
            for name in feature.inputs:
                if name not in self.fields:
                    raise ValueError(f"feature {feature.name!r} is of field {name!r}, which is not declared")
                if self.fields[name].type != KINDS[feature.kind]:
                    raise ValueError(
                        f"feature {feature.name!r} is a {feature.kind}, which is of a {KINDS[feature.kind]}, "
                        f"and field {name!r} is a {self.fields[name].type}",
                    )
        return self
