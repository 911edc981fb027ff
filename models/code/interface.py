"""What a code package says of itself: the `scorewire.toml` beside its module.

A package of features:

    id = "id"                              # the field that holds a transaction's id (optional)
    features = ["log_amount", "at_night"]  # the vector that it makes, in this order
    undeclared = "keep"                    # what is stored of fields that are not named below: keep or drop

    [fields.email]
    store = "hash"                         # keep, hash or drop

    [[golden]]                             # at least one: computed again by each node before it serves
    transaction = { id = "1", amount = 12.5, hour = 3 }
    vector = [2.6026897, 1]

A decision has golden `transaction`, `scores` (name to value), `outcome` and `reasons`, and declares the
`reasons` that it may give. A model declares `features` and `outputs`, and has golden `vector` and `scores`
(in the order of the outputs). `ulps` says how many units in the last place of float32 a golden value may
differ by (0), since functions of the standard library are not the same to the last bit on all machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from models.decision import Outcome
from models.spec import Storage

Stage = Literal["features", "model", "decision"]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(min_length=1, max_length=65536)]
Reason = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Ulps = Annotated[int, Field(ge=0, le=1024)]
_GOLDEN = Field(min_length=1, max_length=1000)
#: msgpack carries integers of 64 bits.
_INT_BITS = 63


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FieldStorage(_Strict):
    """What is stored of a field of a transaction."""

    store: Storage = "keep"


class GoldenFeatures(_Strict):
    """A transaction and the vector that it must give."""

    transaction: dict[str, Any]
    vector: tuple[float, ...]

    @model_validator(mode="after")
    def _is_carried(self) -> Self:
        _refuse_uncarried(self.transaction)
        return self


class GoldenDecision(_Strict):
    """A transaction with its scores, and what must be decided."""

    transaction: dict[str, Any]
    scores: Annotated[dict[str, FiniteFloat], Field(min_length=1)]
    outcome: Outcome
    reasons: tuple[Reason, ...] = ()

    @model_validator(mode="after")
    def _is_carried(self) -> Self:
        _refuse_uncarried(self.transaction)
        return self


class GoldenScores(_Strict):
    """A vector and the scores that it must give."""

    vector: tuple[float, ...]
    scores: tuple[float, ...]


class FeaturesInterface(_Strict):
    """A package of features."""

    stage: ClassVar[Stage] = "features"
    id: Name | None = None
    features: Names
    undeclared: Literal["keep", "drop"] = "keep"
    fields: dict[Name, FieldStorage] = Field(default_factory=dict)
    ulps: Ulps = 0
    golden: Annotated[tuple[GoldenFeatures, ...], _GOLDEN]

    @property
    def storage(self) -> Mapping[str, Storage]:
        """The fields that are not kept as they are."""
        return {name: field.store for name, field in self.fields.items() if field.store != "keep"}

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        _refuse_twice("feature", self.features)
        for number, golden in enumerate(self.golden):
            _refuse_width(number, "vector", len(golden.vector), len(self.features))
        return self


class DecisionInterface(_Strict):
    """A package that decides."""

    stage: ClassVar[Stage] = "decision"
    reasons: tuple[Reason, ...] = ()
    golden: Annotated[tuple[GoldenDecision, ...], _GOLDEN]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        for number, golden in enumerate(self.golden):
            for reason in golden.reasons:
                if reason not in self.reasons:
                    raise ValueError(
                        f"golden {number} has the reason {reason!r}, which `reasons` does not name"
                    )
        return self


class ModelInterface(_Strict):
    """A package that scores."""

    stage: ClassVar[Stage] = "model"
    features: Names
    outputs: Names
    ulps: Ulps = 0
    trained_at: str = ""
    golden: Annotated[tuple[GoldenScores, ...], _GOLDEN]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        _refuse_twice("feature", self.features)
        _refuse_twice("output", self.outputs)
        for number, golden in enumerate(self.golden):
            _refuse_width(number, "vector", len(golden.vector), len(self.features))
            _refuse_width(number, "scores", len(golden.scores), len(self.outputs))
        return self


Interface = FeaturesInterface | DecisionInterface | ModelInterface
#: Which interface an entry point's group asks for.
GROUPS: Mapping[str, type[Interface]] = {
    "scorewire.features": FeaturesInterface,
    "scorewire.decision": DecisionInterface,
    "scorewire.model": ModelInterface,
}


def _refuse_twice(what: str, names: tuple[str, ...]) -> None:
    if len(set(names)) != len(names):
        raise ValueError(f"a {what} is named twice")


def _refuse_width(number: int, what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise ValueError(f"golden {number} has {found} values in `{what}`, declared are {wanted}")


def _refuse_uncarried(value: Any) -> None:
    """Refuse what TOML has and a transaction cannot: dates, and integers beyond 64 bits."""
    if isinstance(value, dict):
        for one in value.values():
            _refuse_uncarried(one)
    elif isinstance(value, list):
        for one in value:
            _refuse_uncarried(one)
    elif isinstance(value, int):
        if value.bit_length() > _INT_BITS:
            raise ValueError(f"{value} is beyond the integers of a transaction")
    elif not isinstance(value, str | float):
        what = type(value).__name__
        raise ValueError(f"{value!r} is a {what}: write it as text or as a number")  # noqa: TRY004 - pydantic's
    elif isinstance(value, float) and math.isinf(value):
        raise ValueError("a transaction holds no infinity")
