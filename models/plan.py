"""The plan: what the kernel must know of a forest, as one array, since each argument of a call costs time."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

# Addresses of the bundle's arrays.
LINES, ROOTS, SHAPES, CODES, TABLE, CATEGORIES, GROUPS, RULES = range(8)
LEVELS, LEVEL_CODES, LEVEL_STARTS, START, OFFSET = range(8, 13)
# Facts.
(
    TREES,
    RAW,
    CODE_BYTES,  # 0 where lines name their leaves themselves
    GENERAL,
    NAN,
    INF,
    CONVERT,
    DIVISOR,
    RAW_DIVIDED,
    SUMS,
    LINK,
    SCALE,
    HAS_SENTINEL,
    SENTINEL,
) = range(13, 27)
SIZE: Final = 27

# How sums are rounded: not at all, each to float32, the last to float32.
SUM64, SUM32, SUM64_TO_32 = range(3)
# When rows are converted first: never, where a value is missing or tiny, always.
NEVER, WHERE_ODD, ALWAYS = range(3)


def make_plan(values: dict[int, int | float]) -> NDArray[np.uint64]:
    """Write a plan from its named places; floats as their bits."""
    plan = np.zeros(SIZE, np.uint64)
    for place, value in values.items():
        plan[place] = np.float64(value).view(np.uint64) if isinstance(value, float) else value
    return plan
