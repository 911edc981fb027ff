"""Random and hostile rows for a pipeline: as transactions, and as the frame that scikit-learn takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.importers.pipelines.draft import Draft

Transaction = dict[str, Any]

_NUMBERS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    3.0,
    -7.25,
    1e-30,
    5e-324,
    100.0,
    12345.678,
    2.0**24 + 1,
    1e10,
    -1e12,
)
_TEXTS = ("", " ", "unseen", "UNSEEN", "\u00e9\u00df\u4e2d", "nan", "None", "0", "1", "a" * 300)


def random_rows(draft: Draft, count: int, seed: int = 0) -> list[Transaction]:
    """Return transactions: values that matter for some step, their neighbours, and others; some missing.

    Args:
        draft: what is known of each field.
        count: how many.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    pools = {name: _pools(draft, name, random) for name in draft.fields}
    rows: list[Transaction] = []
    for number in range(count):
        row: Transaction = {}
        for name, (plain, hostile) in pools.items():
            # The first half is plain and whole, so that steps which refuse much are asked as well.
            wild = number >= count // 2
            pool = hostile if wild and random.random() < _HOSTILE else plain
            value = pool[int(random.integers(len(pool)))]
            optional = wild and draft.fields[name].get("missing") == "nan"
            row[name] = None if optional and random.random() < _MISSING else value
        rows.append(row)
    return rows


_MISSING, _HOSTILE = 0.15, 0.5


def _pools(draft: Draft, name: str, random: np.random.Generator) -> tuple[list[Any], list[Any]]:
    """Return values of a field that training may have seen, and others."""
    kind, known = draft.fields[name]["type"], draft.categories.get(name, [])
    if kind == "flag":
        return [True, False], [True, False]
    if kind == "text":
        others = [*_TEXTS, *(str(one).swapcase() for one in known)]
        return list(known) or others, others
    marks = [mark for mark in draft.numbers.get(name, []) if math.isfinite(mark)]
    near = [math.nextafter(mark, to) for mark in marks for to in (-math.inf, math.inf)]
    middle, spread = (float(np.mean(marks)), float(np.ptp(marks)) or 1.0) if marks else (0.0, 10.0)
    drawn = (middle + spread * random.standard_normal(64)).tolist()
    return [float(one) for one in known] or [*marks, *drawn], [*near, *drawn, *_NUMBERS]


def frame(draft: Draft, rows: Sequence[Mapping[str, Any]], *, named: bool) -> Any:
    """Return rows as scikit-learn takes them: a data frame, or an array where the pipeline knows no names."""
    columns = {name: _column(draft, name, rows) for name in draft.names}
    if named:
        import pandas as pd  # noqa: PLC0415 - only importing a pipeline needs it

        # Not left to pandas: of objects it makes its own texts, in which None is NaN.
        return pd.DataFrame({name: pd.Series(column, dtype=column.dtype) for name, column in columns.items()})
    dtype = np.result_type(*(column.dtype for column in columns.values()))
    return np.stack([column.astype(dtype) for column in columns.values()], axis=1)


def _column(draft: Draft, name: str, rows: Sequence[Mapping[str, Any]]) -> np.ndarray[Any, Any]:
    kind = draft.fields.get(name, {}).get("type")
    values = [row.get(name) for row in rows]
    if kind is None:  # no feature is computed from it
        return np.array([0.0 if value is None else value for value in values])
    if kind == "flag":
        return np.array(values, bool)
    if kind == "text":
        gone = None if name in draft.none else math.nan
        found = np.empty(len(values), object)
        found[:] = [gone if value is None else value for value in values]
        return found
    return np.array(values, np.float64)
