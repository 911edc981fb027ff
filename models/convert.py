"""Compiled: what is done to a row before the trees see it, as each source library does it.

The trees compare float32. A source that compares float64 has all distinct thresholds of a feature as its
levels, each with a float32 code in the same order: a value that float32 does not hold is replaced by the
smallest float32 above the code of the highest level below it, and so falls on the same side of each
threshold. (Rank coding. Where it can be, the codes are the thresholds themselves, rounded down, so that all
values which float32 does hold need no search.)
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit

from models import plan as p
from models.intrinsics import as_f64, load_f32, load_f64, load_u8, load_u32
from models.layout import (
    CODED,
    KEEP,
    KIND_BITS,
    LEVEL,
    MAX_CATEGORY,
    MISSING_BITS,
    NAN_IS_ZERO,
    NUMBER,
    TINY,
    TRUNCATED,
    ZERO_IS_MISSING,
)

_FOUR, _EIGHT = np.uint64(4), np.uint64(8)
_NAN32: Final = np.float32(np.nan)


@njit(nogil=True, inline="always")
def inspect_row(plan, row):
    """Return (position of a refused value or -1, whether the row has a NaN, whether it has a tiny value)."""
    nan = tiny = False
    for feature in range(row.size):
        value = row[feature]
        tiny |= abs(value) <= TINY
        # x - x is 0 for every finite x, and NaN for the others: one test for the common case.
        if value - value != np.float32(0.0):
            if math.isnan(value):
                nan = True
                if not plan[p.NAN]:
                    return feature, nan, tiny
            elif not plan[p.INF]:
                return feature, nan, tiny
    return -1, nan, tiny


@njit(nogil=True, inline="always")
def _levels_below(plan, first, count, value):
    """Count the levels below a value, by binary search."""
    low, high = first, first + count
    while low < high:
        middle = (low + high) >> np.uint64(1)
        if load_f64(plan[p.LEVELS] + _EIGHT * middle) < value:
            low = middle + np.uint64(1)
        else:
            high = middle
    return low - first


@njit(nogil=True, inline="always")
def _coded(plan, feature, value, exact):
    """Return a value's float32 code by the levels of its feature."""
    first = load_u32(plan[p.LEVEL_STARTS] + _FOUR * np.uint64(feature))
    count = load_u32(plan[p.LEVEL_STARTS] + _FOUR * np.uint64(feature + 1)) - first
    below = _levels_below(plan, first, count, value)
    if exact:
        if below == count or load_f64(plan[p.LEVELS] + _EIGHT * (first + below)) != value:
            return _NAN32
        return load_f32(plan[p.LEVEL_CODES] + _FOUR * (first + below))
    if below == np.uint64(0):
        return np.float32(-np.inf)
    return load_f32(plan[p.LEVEL_CODES] + _FOUR * (first + below - np.uint64(1)))


@njit(nogil=True, inline="always")
def _category(value, kind):
    """Return a category as float32; one that can be in no set is -1."""
    whole = math.trunc(value) if kind == TRUNCATED else math.floor(value)
    return np.float32(whole) if -1.0 < whole < MAX_CATEGORY else np.float32(-1.0)


@njit(nogil=True, inline="always")
def convert_row(plan, row, converted):
    """Write the row as the trees are to see it; return whether a value is missing in it."""
    any_missing = False
    sentinel, has_sentinel = as_f64(plan[p.SENTINEL]), plan[p.HAS_SENTINEL] != np.uint64(0)
    for feature in range(row.size):
        value = np.float64(row[feature])
        rule = np.int64(load_u8(plan[p.RULES] + np.uint64(feature)))
        missing, kind = rule & MISSING_BITS, rule & KIND_BITS
        if has_sentinel and value == sentinel:
            value = np.nan
        if missing == ZERO_IS_MISSING:
            if abs(value) <= TINY:
                value = np.nan
        elif missing != KEEP and (abs(value) <= TINY or (missing == NAN_IS_ZERO and math.isnan(value))):
            value = 0.0
        narrow = np.float32(value)
        if math.isnan(value):
            any_missing = True
        elif kind == LEVEL:
            narrow = _coded(plan, feature, value, True)
            any_missing |= math.isnan(narrow)
        elif kind != NUMBER:
            narrow = _category(value, kind)
        elif rule & CODED or np.float64(narrow) != value:
            narrow = _coded(plan, feature, value, False)
        converted[feature] = narrow
    return any_missing
