"""The forest kernel: one row walks 64 trees at once, waiting for none of them.

A walk is a chain of memory accesses, each of which depends on the last; different trees' walks do not. So
64 of them are kept in flight: each step handles one line of one tree, asks for that tree's next line, and
moves on to the next tree while the memory answers. Trees that reached a leaf leave the list without a
branch. Leaf values are added in tree order afterwards, in float64, as the source libraries do.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from models.intrinsics import (
    load_f32,
    load_u8,
    load_u16,
    load_u32,
    missing_mask,
    popcount,
    prefetch,
    right_mask,
)
from models.layout import KEEP, NAN_IS_ZERO, TINY, ZERO_IS_MISSING

#: Trees in flight: more than the processor's line buffers, few enough for the list to stay in its L1.
IN_FLIGHT: Final = 64

# The plan: what the kernel must know of a forest, as one array, since each argument of a call costs time.
PLAN_LINES, PLAN_ROOTS, PLAN_EXITS, PLAN_CODES, PLAN_CODE_BYTES = range(5)
PLAN_TREES, PLAN_GENERAL, PLAN_CATEGORIES, PLAN_NAN, PLAN_INF, PLAN_CONVERT = range(5, 11)
PLAN_PER_CLASS, PLAN_DIVISOR, PLAN_RAW_DIVIDED, PLAN_LINK = range(11, 15)
PLAN_SIZE: Final = 15

# The links from raw scores to outputs.
IDENTITY, SIGMOID, SOFTMAX, SIGMOID_EACH, EXP, SIGNED_SQUARE = range(6)

#: Return codes of `predict`: all is well, or 1 + the position of a value that the model refuses.
ALL_WELL: Final = -1

_ONE = np.uint64(1)
_LINE = np.uint64(64)
_CHILD, _LEAF, _SHAPE = np.uint64(48), np.uint64(52), np.uint64(56)
_LEAF_MASK, _MISSING, _CATEGORY = np.uint64(60), np.uint64(62), np.uint64(63)
_THRESHOLD_BYTES, _FEATURE_OFFSET = np.uint64(4), np.uint64(32)


@njit(nogil=True, inline="always")
def _category_bit(line, lane, row, categories):
    """Return 1 where the row goes right at a categorical split: its category is not in the split's set."""
    value = load_f32(row + np.uint64(4) * load_u16(line + _FEATURE_OFFSET + np.uint64(2) * lane))
    # As LightGBM: truncated to int32; NaN, negative and overflowing values are in no set.
    if not (value > np.float32(-1.0) and value < np.float32(2147483648.0)):
        return _ONE
    category = np.uint64(np.int64(value))
    start = categories + np.uint64(4) * load_u32(line + _THRESHOLD_BYTES * lane)
    word = category >> np.uint64(5)
    if word >= load_u32(start):
        return _ONE
    bits = load_u32(start + np.uint64(4) * (word + _ONE))
    return _ONE ^ ((bits >> (category & np.uint64(31))) & _ONE)


@njit(nogil=True, inline="always")
def _general_mask(line, row, categories):
    """As right_mask, with missing values sent where each split sends them, and categorical splits."""
    mask = right_mask(line, row) | (missing_mask(line, row) & load_u8(line + _MISSING))
    left = load_u8(line + _CATEGORY)
    while left:
        lane = popcount((left & (~left + _ONE)) - _ONE)
        bit = _ONE << lane
        mask = (mask & ~bit) | (_category_bit(line, lane, row, categories) << lane)
        left &= left - _ONE
    return mask


@njit(nogil=True, inline="always")
def _walk(plan, row, general, leaves, lines, trees):
    """Write the leaf of each tree that the row reaches into `leaves`."""
    base, exits, categories = plan[PLAN_LINES], plan[PLAN_EXITS], plan[PLAN_CATEGORIES]
    codes, code_bytes = plan[PLAN_CODES], plan[PLAN_CODE_BYTES]
    n_trees = np.int64(plan[PLAN_TREES])
    for first in range(0, n_trees, IN_FLIGHT):
        live = min(IN_FLIGHT, n_trees - first)
        for slot in range(live):
            root = load_u32(plan[PLAN_ROOTS] + np.uint64(4) * np.uint64(first + slot))
            lines[slot] = base + _LINE * root
            trees[slot] = first + slot
            prefetch(lines[slot])
        while live > 0:
            still = 0
            for slot in range(live):
                line = lines[slot]
                tree = trees[slot]
                mask = _general_mask(line, row, categories) if general else right_mask(line, row)
                exit_ = load_u8(exits + load_u32(line + _SHAPE) + mask)
                leaf_mask = load_u16(line + _LEAF_MASK)
                leaves_before = popcount(leaf_mask & ((_ONE << exit_) - _ONE))
                leaf = load_u32(line + _LEAF) + leaves_before
                next_line = base + _LINE * (load_u32(line + _CHILD) + exit_ - leaves_before)
                at_leaf = (leaf_mask >> exit_) & _ONE
                # Without a branch: both outcomes are written, and the list grows only by those that go on.
                leaves[tree] = leaf
                lines[still] = next_line
                trees[still] = tree
                prefetch(codes + leaf * code_bytes if at_leaf else next_line)
                still += np.int64(_ONE - at_leaf)
            live = still


@njit(nogil=True, inline="always")
def _convert(row, missing, converted):
    """Write the row as the trees are to see it; return whether a value is missing in it."""
    any_missing = False
    for feature in range(row.size):
        value = row[feature]
        rule = missing[feature]
        if rule == ZERO_IS_MISSING:
            if abs(value) <= TINY:
                value = np.float32(np.nan)
        elif rule != KEEP and (abs(value) <= TINY or (rule == NAN_IS_ZERO and math.isnan(value))):
            value = np.float32(0.0)
        converted[feature] = value
        any_missing |= math.isnan(value)
    return any_missing


@njit(nogil=True, inline="always")
def _inspect(plan, row):
    """Return (position of a refused value or -1, whether the row has a NaN, whether it has a tiny value)."""
    nan = tiny = False
    for feature in range(row.size):
        value = row[feature]
        tiny |= abs(value) <= TINY
        # x - x is 0 for every finite x, and NaN for the others: one test for the common case.
        if value - value != np.float32(0.0):
            if math.isnan(value):
                nan = True
                if not plan[PLAN_NAN]:
                    return feature, nan, tiny
            elif not plan[PLAN_INF]:
                return feature, nan, tiny
    return -1, nan, tiny


@njit(nogil=True, inline="always")
def _code(plan, leaf):
    if plan[PLAN_CODE_BYTES] == np.uint64(1):
        return load_u8(plan[PLAN_CODES] + leaf)
    if plan[PLAN_CODE_BYTES] == np.uint64(2):
        return load_u16(plan[PLAN_CODES] + np.uint64(2) * leaf)
    return load_u32(plan[PLAN_CODES] + np.uint64(4) * leaf)


@njit(nogil=True, inline="always")
def _sum(plan, leaves, table, raw):
    """Add the leaves' values in tree order."""
    raw[:] = 0.0
    n_raw = raw.size
    for tree in range(leaves.size):
        code = np.int64(_code(plan, np.uint64(leaves[tree])))
        if plan[PLAN_PER_CLASS]:
            raw[tree % n_raw] += table[code, 0]
        else:
            for k in range(n_raw):
                raw[k] += table[code, k]


@njit(nogil=True, inline="always")
def _link(link, scale, raw, out):
    """Turn raw scores into outputs, operation by operation as LightGBM's objectives do."""
    if link == SOFTMAX:
        top = raw[0]
        for k in range(1, raw.size):
            top = max(raw[k], top)
        total = 0.0
        for k in range(raw.size):
            out[k] = math.exp(raw[k] - top)
            total += out[k]
        for k in range(raw.size):
            out[k] /= total
        return
    for k in range(raw.size):
        value = raw[k]
        if link in (SIGMOID, SIGMOID_EACH):
            value = 1.0 / (1.0 + math.exp(-scale * value))
        elif link == EXP:
            value = math.exp(value)
        elif link == SIGNED_SQUARE:
            value = math.copysign(value * value, value)
        out[k] = value


def _read_only(dtype: types.Type, dimensions: int) -> types.Array:
    """Name an array that the kernel only reads; so are mapped files, and they need no second code."""
    return types.Array(dtype, dimensions, "C", readonly=True)


#: Compiled for these types when this module is first loaded, and kept on disk: no request ever waits for it.
_SIGNATURE: Final = types.int64(
    types.uint64[::1],
    _read_only(types.uint8, 1),
    _read_only(types.float64, 2),
    types.float64,
    types.boolean,
    _read_only(types.float32, 2),
    types.float64[:, ::1],
)


@njit(_SIGNATURE, nogil=True, cache=True)
def predict(
    plan,
    missing,
    table,
    scale,
    linked,
    x,
    out,
):
    """Score the rows of x into out, each as if it were alone.

    Args:
        plan: uint64 [PLAN_SIZE], see above.
        missing: uint8 [features], what to do with each feature's value first.
        table: float64 [distinct leaves, values].
        scale: the link's parameter.
        linked: whether to apply the link; else raw scores are written.
        x: float32 [rows, features], C-contiguous.
        out: float64 [rows, raw scores], written.

    Returns:
        ALL_WELL, or row * features + feature of the first value that the model refuses.
    """
    n_trees = np.int64(plan[PLAN_TREES])
    leaves = np.empty(n_trees, np.uint32)
    lines = np.empty(IN_FLIGHT, np.uint64)
    trees = np.empty(IN_FLIGHT, np.int64)
    converted = np.empty(x.shape[1], np.float32)
    raw = np.empty(out.shape[1], np.float64)
    general = plan[PLAN_GENERAL] != np.uint64(0)
    divisor = np.float64(plan[PLAN_DIVISOR])
    for index in range(x.shape[0]):
        row = x[index]
        refused, nan, tiny = _inspect(plan, row)
        if refused >= 0:
            return index * x.shape[1] + refused
        address = np.uint64(row.ctypes.data)
        if plan[PLAN_CONVERT] and (nan or tiny):
            nan = _convert(row, missing, converted)
            address = np.uint64(converted.ctypes.data)
        if general or nan:
            _walk(plan, address, True, leaves, lines, trees)
        else:
            _walk(plan, address, False, leaves, lines, trees)
        _sum(plan, leaves, table, raw)
        if divisor != 1.0 and (linked or plan[PLAN_RAW_DIVIDED]):
            for k in range(raw.size):
                raw[k] /= divisor
        if linked:
            _link(plan[PLAN_LINK], scale, raw, out[index])
        else:
            out[index] = raw
    return ALL_WELL


def make_plan(values: dict[int, int]) -> NDArray[np.uint64]:
    """Write a plan from its named places."""
    plan = np.zeros(PLAN_SIZE, np.uint64)
    for place, value in values.items():
        plan[place] = value
    return plan
