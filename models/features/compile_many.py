"""Compiles a plan into a chain of numpy calls over many transactions, to the bits of the one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features.fields import Read, read_column
from models.features.kind import Column, OddError
from models.features.plan import Plan

#: From raw values by field to float32 [rows, features].
ComputeMany = Callable[[Mapping[str, Sequence[Any]], int], NDArray[np.float32]]


def compile_many(plan: Plan, reads: Sequence[Read]) -> ComputeMany:
    """Return what computes many; it raises OddError where one of them has to be looked at alone."""
    fields = list(zip(plan.fields.items(), reads, strict=True))
    width = len(plan.names)

    def compute(columns: Mapping[str, Sequence[Any]], rows: int) -> NDArray[np.float32]:
        slots: list[Column] = []
        for (name, recipe), read in fields:
            raw = columns.get(name)
            slots.append(read_column(recipe, read, [None] * rows if raw is None else raw))
        found = np.empty((rows, width), np.float32)
        with np.errstate(all="ignore"):
            for node in plan.nodes:
                slots.append(node.kind.batch([slots[arg] for arg in node.args]))
            place = 0
            for slot in plan.outputs:
                column = slots[slot]
                size = 1 if column.ndim == 1 else column.shape[1]
                found[:, place : place + size] = column.reshape(rows, size)
                place += size
        plain(found)
        return found

    return compute


def plain(found: NDArray[np.float32]) -> None:
    """Write every NaN with the same bits, in place; which ones arithmetic gives differs by processor.

    Raises:
        OddError: a number is infinite.
    """
    if not np.isfinite(found).all():
        if np.isinf(found).any():
            raise OddError
        found[np.isnan(found)] = np.nan
