"""Encoders of categories: one-hot, ordinal, target; and bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.errors import ImportRefusedError
from models.importers.pipelines.draft import Column, Draft, Group, Step


@dataclass(frozen=True)
class _Known:
    """The categories of one column, as fitted.

    Attributes:
        column: the column, of the type of its categories.
        keys: category to its index, without what is missing.
        missing: the index of what is missing; None where training had nothing missing.
    """

    column: Column
    keys: dict[Any, int]
    missing: int | None


def _known(column: Column, categories: Any, draft: Draft) -> _Known:
    values = categories.tolist()
    gone = [index for index, value in enumerate(values) if value is None or value != value]  # noqa: PLR0124
    keys = {value: index for index, value in enumerate(values) if index not in gone}
    name = column.inputs[0]
    if len(gone) > 1:
        raise ImportRefusedError(
            f"the categories of {name!r} have both None and NaN: a transaction has null alone"
        )
    if any(isinstance(key, bool) for key in keys):
        typed = draft.flag(column)
    elif all(isinstance(key, str) for key in keys) and (keys or column.type == "text"):
        typed = draft.text(column)
    elif all(isinstance(key, int | float) for key in keys):
        typed = draft.number(column)
    else:
        raise ImportRefusedError(
            f"the categories of {name!r} are of several types: texts or numbers are carried"
        )
    if gone and values[gone[0]] is None:
        draft.none.add(name)
    draft.note(typed, categories=list(keys))
    plain = {float(key) if isinstance(key, bool | int) else key: index for key, index in keys.items()}
    return _Known(typed, plain, gone[0] if gone else None)


def one_hot(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """OneHotEncoder, with dropped and with infrequent categories."""
    found: list[Column] = []
    grouped = getattr(model, "_default_to_infrequent_mappings", None) or [None] * len(columns)
    infrequent = getattr(model, "_infrequent_indices", None) or [None] * len(columns)
    dropped = model._drop_idx_after_grouping  # noqa: SLF001 - nothing public says where columns end up
    widths = model._n_features_outs  # noqa: SLF001
    for number, (column, categories) in enumerate(zip(columns, model.categories_, strict=True)):
        known = _known(column, categories, draft)
        drop = None if dropped is None else dropped[number]
        mapping = grouped[number]

        def place(index: int, mapping: Any = mapping, drop: int | None = drop) -> int:
            at = int(index if mapping is None else mapping[index])
            if drop is None or at < drop:
                return at
            return -1 if at == drop else at - 1

        unknown: int | str = "zeros"
        if model.handle_unknown == "error":
            unknown = "error"
        elif model.handle_unknown in {"infrequent_if_exist", "warn"} and infrequent[number] is not None:
            unknown = place(int(infrequent[number][0]))
        missing = unknown if known.missing is None else place(known.missing)
        found += _hot(
            known.column, {key: place(at) for key, at in known.keys.items()}, unknown, missing, widths[number]
        )
    return found


def _hot(
    column: Column, places: dict[Any, int], unknown: int | str, missing: int | str, width: int
) -> list[Column]:
    """Return the columns of a one-hot encoding."""
    if not width:
        return []
    unknown, missing = ("zeros" if one == -1 else one for one in (unknown, missing))
    step: Step = {
        "kind": "onehot",
        "categories": list(places),
        "columns": list(places.values()),
        "unknown": unknown,
        "missing": missing,
    }
    single = tuple(
        {
            "kind": "map",
            "keys": list(places),
            "values": [float(at == number) for at in places.values()],
            "unknown": "error" if unknown == "error" else float(unknown == number),
            "missing": "error" if missing == "error" else float(missing == number),
        }
        for number in range(width)
    )
    group = Group(column, step, single)
    return [Column(column.inputs, (), "number", True, group, number) for number in range(width)]


def ordinal(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """OrdinalEncoder: the code of each category."""
    found = []
    grouped = getattr(model, "_default_to_infrequent_mappings", None) or [None] * len(columns)
    for column, categories, mapping in zip(columns, model.categories_, grouped, strict=True):
        known = _known(column, categories, draft)
        codes = [float(at if mapping is None else mapping[at]) for at in known.keys.values()]
        unknown = "error" if model.handle_unknown == "error" else _plain(model.unknown_value)
        missing = unknown if known.missing is None else _plain(model.encoded_missing_value)
        step = {
            "kind": "map",
            "keys": list(known.keys),
            "values": codes,
            "unknown": unknown,
            "missing": missing,
        }
        found.append(_mapped(known.column, step))
    return found


def target(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """TargetEncoder: the mean target of each category, as fitted."""
    found = []
    classes = len(model.classes_) if model.target_type_ == "multiclass" else 1
    means = np.atleast_1d(model.target_mean_).astype(float).tolist()
    for number, (column, categories) in enumerate(zip(columns, model.categories_, strict=True)):
        known = _known(column, categories, draft)
        for one in range(classes):
            encoding = model.encodings_[number * classes + one].tolist()
            missing = means[one] if known.missing is None else encoding[known.missing]
            step = {
                "kind": "target",
                "keys": list(known.keys),
                "values": [float(encoding[at]) for at in known.keys.values()],
                "unknown": means[one],
                "missing": missing,
            }
            found.append(_mapped(known.column, step))
    return found


def _mapped(column: Column, step: Step) -> Column:
    # A table of nothing at all: training had missing values alone.
    if not step["keys"]:
        step = {**step, "keys": ["" if column.type == "text" else 0.0], "values": [step["unknown"]]}
        if not isinstance(step["unknown"], float):
            raise ImportRefusedError(
                f"column {column.inputs[0]!r} had nothing but missing values in training"
            )
    present = "nan" not in {step["unknown"], step["missing"]}
    return Column(column.inputs, (*column.steps, step), "number", present)


def _plain(value: float) -> float | str:
    return "nan" if math.isnan(value) else float(value)


def bins(model: Any, columns: Sequence[Column], draft: Draft) -> list[Column]:
    """KBinsDiscretizer, as numbers or one-hot."""
    if model.dtype is not None and np.dtype(model.dtype) != np.float64:
        raise ImportRefusedError(f"a KBinsDiscretizer of {model.dtype} (dtype) is not carried: float64 is")
    found: list[Column] = []
    for column, edges in zip(columns, model.bin_edges_, strict=True):
        inner = [float(edge) for edge in edges[1:-1]]
        draft.note(column, numbers=[float(edge) for edge in edges])
        step: Step = {"kind": "bin", "edges": inner} if inner else {"kind": "clip", "low": 0.0, "high": 0.0}
        one = draft.then(draft.required(column), step, present=True)
        if model.encode == "ordinal":
            found.append(one)
        else:
            codes = {float(number): number for number in range(len(inner) + 1)}
            found += _hot(one, codes, "error", "error", len(codes))
    return found
