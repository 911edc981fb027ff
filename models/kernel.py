"""The forest kernel: one row walks 64 trees at once, waiting for none of them.

A walk is a chain of memory accesses, each of which depends on the last; different trees' walks do not. So
64 of them are kept in flight: each step handles one line of one tree, asks for that tree's next line, and
moves on to the next tree while the memory answers. Trees that reached a leaf leave the list without a
branch. Leaf values are added in tree order afterwards, in the precision of the source library.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit, types

from models import plan as p
from models.convert import convert_row, inspect_row
from models.intrinsics import (
    as_f64,
    exits_left,
    leading_zeros,
    load_f32,
    load_f64,
    load_u8,
    load_u16,
    load_u32,
    missing_mask,
    popcount,
    prefetch,
    right_mask,
    store_u32,
    trailing_zeros,
)
from models.layout import INLINE_BITS, SHAPE_WORDS
from models.links import apply_link

#: Trees in flight: more than the processor's line buffers, few enough for the list to stay in its L1.
IN_FLIGHT: Final = 64
#: What `predict` returns when all is well; else row * features + feature of the first value it refuses.
ALL_WELL: Final = -1

_ONE, _TWO, _FOUR, _EIGHT = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(8)
_LEAF, _SHAPE, _STARTS, _CHILD = np.uint64(48), np.uint64(52), np.uint64(54), np.uint64(56)
_LEAF_MASK, _MISSING, _CATEGORY = np.uint64(60), np.uint64(62), np.uint64(63)
_FEATURE = np.uint64(32)
_LINE_SHIFT, _SHAPE_BYTES = np.uint64(6), np.uint64(2 * SHAPE_WORDS)
_INLINE_BITS, _INLINE_MASK = np.uint64(INLINE_BITS), np.uint64((1 << INLINE_BITS) - 1)
# Lines lie at multiples of 64: the low bits of a line's address hold twice the number of a subtree in it.
_SUBTREE, _HIGHEST = np.uint64(63), np.uint64(63)


@njit(nogil=True, inline="always")
def _category_bit(line, lane, value, categories):
    """Return 1 where the row goes right at a categorical split: its category is not in the split's set."""
    if not (value > np.float32(-1.0) and value < np.float32(2147483648.0)):
        return _ONE
    category = np.uint64(np.int64(value))
    start = categories + _FOUR * load_u32(line + _FOUR * lane)
    word = category >> np.uint64(5)
    if word >= load_u32(start):
        return _ONE
    bits = load_u32(start + _FOUR * (word + _ONE))
    return _ONE ^ ((bits >> (category & np.uint64(31))) & _ONE)


@njit(nogil=True, inline="always")
def _general_mask(line, row, categories):
    """As right_mask, with missing values sent where each split sends them, and categorical splits."""
    missing = missing_mask(line, row)
    sent_right = missing & load_u8(line + _MISSING)
    mask = right_mask(line, row) | sent_right
    category = load_u8(line + _CATEGORY)
    mask = (mask & ~category) | (sent_right & category)
    left = category & ~missing
    while left:
        lane = trailing_zeros(left)
        value = load_f32(row + _FOUR * load_u16(line + _FEATURE + _TWO * lane))
        mask |= _category_bit(line, lane, value, categories) << lane
        left &= left - _ONE
    return mask


@njit(nogil=True, inline="always")
def _walk(plan, row, general, inline, leaves, lines, trees):
    """Write the leaf of each tree that the row reaches into `leaves`; its row in the table, where inline."""
    base, shapes, categories = plan[p.LINES], plan[p.SHAPES], plan[p.CATEGORIES]
    codes, code_bytes = plan[p.CODES], plan[p.CODE_BYTES]
    before_base = base - (_ONE << _LINE_SHIFT)  # of the lines that begin, the last is the one
    n_trees = np.int64(plan[p.TREES])
    found = np.uint64(leaves.ctypes.data)
    for first in range(0, n_trees, IN_FLIGHT):
        live = min(IN_FLIGHT, n_trees - first)
        for slot in range(live):
            root = load_u32(plan[p.ROOTS] + _FOUR * np.uint64(first + slot))
            lines[slot] = base + (root << _LINE_SHIFT)
            trees[slot] = found + _FOUR * np.uint64(first + slot)
            prefetch(lines[slot])
        while live > 0:
            still = np.uint64(0)
            for slot in range(np.uint64(live)):
                subtree = lines[slot]
                line = subtree & ~_SUBTREE
                tree = trees[slot]
                mask = _general_mask(line, row, categories) if general else right_mask(line, row)
                shape = shapes + _SHAPE_BYTES * load_u16(subtree + _SHAPE)
                exit_ = trailing_zeros(exits_left(shape, mask))
                leaf_mask = load_u16(line + _LEAF_MASK)
                # Bases and counts of bits: the leaves and the lines that begin before this exit.
                leaves_before = popcount(leaf_mask & ((_ONE << exit_) - _ONE))
                leaf = load_u32(line + _LEAF)
                if inline:
                    leaf = (leaf >> (_INLINE_BITS * exit_)) & _INLINE_MASK
                else:
                    leaf += leaves_before
                begun = load_u16(line + _STARTS) << ((exit_ - leaves_before) ^ _HIGHEST)
                below = before_base + ((load_u32(line + _CHILD) + popcount(begun)) << _LINE_SHIFT)
                at_leaf = (leaf_mask >> exit_) & _ONE
                # Without a branch: both outcomes are written, and the list grows only by those that go on.
                store_u32(tree, leaf)
                lines[still] = below + _TWO * leading_zeros(begun)
                trees[still] = tree
                if inline:
                    prefetch(line if at_leaf else below)
                else:
                    prefetch(codes + leaf * code_bytes if at_leaf else below)
                still += _ONE - at_leaf
            live = np.int64(still)


@njit(nogil=True, inline="always")
def _code(plan, leaf):
    if plan[p.CODE_BYTES] == np.uint64(0):
        return leaf
    if plan[p.CODE_BYTES] == _ONE:
        return load_u8(plan[p.CODES] + leaf)
    if plan[p.CODE_BYTES] == _TWO:
        return load_u16(plan[p.CODES] + _TWO * leaf)
    return load_u32(plan[p.CODES] + _FOUR * leaf)


@njit(nogil=True, inline="always")
def _sum(plan, leaves, raw):
    """Add the leaves' values in tree order.

    Where the source adds float32, each sum is rounded to it: the sum of two float32 in float64, rounded,
    is their float32 sum.
    """
    table, groups, single = plan[p.TABLE], plan[p.GROUPS], plan[p.SUMS] == np.uint64(p.SUM32)
    n_raw = raw.size
    for k in range(n_raw):
        raw[k] = load_f64(plan[p.START] + _EIGHT * np.uint64(k))
    if n_raw <= 2 and not single and groups == np.uint64(0):  # noqa: PLR2004 - what most models have
        # In registers: a sum in memory waits for the last one to be written.
        last = np.uint64(n_raw - 1)
        one, two = raw[0], raw[last]
        for tree in range(leaves.size):
            row = table + _EIGHT * _code(plan, np.uint64(leaves[tree])) * (last + _ONE)
            one += load_f64(row)
            two += load_f64(row + _EIGHT * last)
        raw[0], raw[last] = one, two
        return
    for tree in range(leaves.size):
        code = _code(plan, np.uint64(leaves[tree]))
        if groups != np.uint64(0):
            k = np.int64(load_u32(groups + _FOUR * np.uint64(tree)))
            raw[k] += load_f64(table + _EIGHT * code)
            if single:
                raw[k] = np.float64(np.float32(raw[k]))
            continue
        row = table + _EIGHT * code * np.uint64(n_raw)
        for k in range(n_raw):
            raw[k] += load_f64(row + _EIGHT * np.uint64(k))
            if single:
                raw[k] = np.float64(np.float32(raw[k]))


@njit(nogil=True, inline="always")
def _finish(plan, linked, raw, out):
    """Divide, add what comes last, link, and round to float32 where the source answers so."""
    divisor, sums = np.float64(plan[p.DIVISOR]), np.int64(plan[p.SUMS])
    for k in range(raw.size):
        if divisor != 1.0 and (linked or plan[p.RAW_DIVIDED]):
            raw[k] /= divisor
            if sums == p.SUM32:
                raw[k] = np.float64(np.float32(raw[k]))
        raw[k] += load_f64(plan[p.OFFSET] + _EIGHT * np.uint64(k))
        if sums == p.SUM32:
            raw[k] = np.float64(np.float32(raw[k]))
    if linked:
        apply_link(np.int64(plan[p.LINK]), as_f64(plan[p.SCALE]), raw, out)
    else:
        out[:] = raw
    if sums != p.SUM64:
        for k in range(out.size):
            out[k] = np.float64(np.float32(out[k]))


def _signature(floating: types.Type) -> types.Type:
    x = types.Array(floating, 2, "C", readonly=True)
    return types.int64(types.uint64[::1], types.boolean, x, types.float64[:, ::1])


#: Compiled for these types when this module is first loaded, and kept on disk: no request ever waits for it.
_SIGNATURES: Final = [_signature(types.float32), _signature(types.float64)]


@njit(_SIGNATURES, nogil=True, cache=True)
def predict(plan, linked, x, out):
    """Score the rows of x into out, each as if it were alone.

    Args:
        plan: uint64 [models.plan.SIZE].
        linked: whether to apply the link; else raw scores are written.
        x: float32 or float64 [rows, features], C-contiguous.
        out: float64 [rows, outputs, or raw scores], written.

    Returns:
        ALL_WELL, or row * features + feature of the first value that the model refuses.
    """
    n_trees, n_raw, n_features = np.int64(plan[p.TREES]), np.int64(plan[p.RAW]), x.shape[1]
    # One piece of memory for all, in words of 64 bits: each costs time that small models notice.
    ends = 2 * IN_FLIGHT + n_raw, 2 * IN_FLIGHT + n_raw + (n_trees + 1) // 2
    scratch = np.empty(ends[1] + (n_features + 1) // 2, np.uint64)
    lines, trees = scratch[:IN_FLIGHT], scratch[IN_FLIGHT : 2 * IN_FLIGHT]
    raw = scratch[2 * IN_FLIGHT : ends[0]].view(np.float64)
    leaves = scratch[ends[0] : ends[1]].view(np.uint32)[:n_trees]
    converted = scratch[ends[1] :].view(np.float32)[:n_features]
    general, convert = plan[p.GENERAL] != np.uint64(0), plan[p.CONVERT]
    inline = plan[p.CODE_BYTES] == np.uint64(0)
    for index in range(x.shape[0]):
        row = x[index]
        refused, nan, tiny = inspect_row(plan, row)
        if refused >= 0:
            return index * x.shape[1] + refused
        address = np.uint64(row.ctypes.data)
        if x.itemsize == 8 or convert == p.ALWAYS or (convert == p.WHERE_ODD and (nan or tiny)):  # noqa: PLR2004 - float64
            nan = convert_row(plan, row, converted)
            address = np.uint64(converted.ctypes.data)
        if general or nan:
            if inline:
                _walk(plan, address, True, True, leaves, lines, trees)
            else:
                _walk(plan, address, True, False, leaves, lines, trees)
        elif inline:
            _walk(plan, address, False, True, leaves, lines, trees)
        else:
            _walk(plan, address, False, False, leaves, lines, trees)
        _sum(plan, leaves, raw)
        _finish(plan, linked, raw, out[index])
    return ALL_WELL
