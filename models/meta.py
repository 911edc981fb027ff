"""What a bundle says of itself: provenance, features, outputs, and how raw scores become them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.layout import MAX_FEATURES
from models.links import Link

#: Version of the bundle's layout.
FORMAT = 2

Name = Annotated[str, Field(max_length=1024)]


class BundleMeta(BaseModel):
    """What a bundle says of itself.

    Attributes:
        format: version of this layout.
        task: what the model does; an anomaly score is lower the stranger a row is, as scikit-learn has it.
        library: the source library: `scikit-learn`, `lightgbm`, `xgboost` or `onnx`.
        library_version: the version that was loaded when the model was imported.
        model_class: the class of the source model.
        trained_at: when it was trained, ISO 8601 in UTC; "" if nobody said.
        imported_at: when this file was made, ISO 8601 in UTC.
        feature_names: names of the features, in the order of the vector.
        outputs: names of the outputs: class labels (the positive one alone where the source gives one
            number for two classes), or `value`.
        input_dtype: the type in which the source compares.
        sum_dtype: the type in which the source adds, and to which it rounds the sum at last.
        link: from raw scores to outputs, as the source's objective does.
        link_scale: the link's parameter.
        divisor: sums are divided by this before the link.
        raw_divided: and already where raw scores are asked for.
        allows_missing: NaN is a missing value; else a row with NaN is refused, as the source does.
        allows_infinite: infinity is a number; else a row with one is refused.
        missing_value: a number that is a missing value too; None if there is none.
        n_raw: raw scores of a row.
        n_trees: trees.
        n_nodes: nodes of the source's trees, leaves included.
        depth: splits on the longest way through a tree.
        mean_depth: splits on the way of the mean training row through the mean tree.
        importance_kind: what `importance` counts.
        importance: each feature's share in the model, summing to 1 (0 where nobody splits).
        notes: whatever provenance the importer was given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: int = FORMAT
    task: Literal["classifier", "regressor", "anomaly"]
    library: Name
    library_version: Name
    model_class: Name
    trained_at: Name = ""
    imported_at: Name = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    feature_names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_FEATURES, strict=False)]
    outputs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=65536, strict=False)]
    input_dtype: Literal["float32", "float64"]
    sum_dtype: Literal["float32", "float64", "float64_to_float32"] = "float64"
    link: Link = "identity"
    link_scale: float = 1.0
    divisor: Annotated[int, Field(ge=1, le=2**32)] = 1
    raw_divided: bool = False
    allows_missing: bool = False
    allows_infinite: bool = False
    missing_value: Annotated[float, Field(allow_inf_nan=False)] | None = None
    n_raw: Annotated[int, Field(ge=1, le=65536)]
    n_trees: Annotated[int, Field(ge=1, le=2**31)]
    n_nodes: Annotated[int, Field(ge=1, le=2**40)]
    depth: Annotated[int, Field(ge=0)] = 0
    mean_depth: Annotated[float, Field(ge=0)] = 0.0
    importance_kind: Name = ""
    importance: Annotated[tuple[float, ...], Field(max_length=MAX_FEATURES, strict=False)] = ()
    notes: dict[str, str] = Field(default_factory=dict)
