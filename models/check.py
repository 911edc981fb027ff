"""The checks between a file and the kernel: after them no walk can leave the file, or fail to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numba import njit

from models.errors import BundleError
from models.layout import EXITS, INLINE_BITS, INLINE_LEAVES, LAST_RULE, LINE_BYTES, SPLITS, SUBTREES
from models.links import OUTPUTS

if TYPE_CHECKING:
    from models.bundle import Bundle

OK, CHILD, LEAF, FEATURE, SHAPE, THRESHOLD, CATEGORY, MASK = range(8)
_REASONS: Final = {
    CHILD: "a line below lies outside its tree, or not further on",
    LEAF: "a leaf lies outside the leaves",
    FEATURE: "a feature lies outside the vector",
    SHAPE: "a shape lies outside the table of shapes",
    THRESHOLD: "a threshold is NaN",
    CATEGORY: "a set of categories lies outside the categories",
    MASK: "a mask names exits that the line does not have, or misses some",
}


def check_forest(bundle: Bundle) -> None:
    """Check every line, leaf, level and set of categories.

    Raises:
        BundleError: names the line and the rule.
    """
    forest, meta = bundle.forest, bundle.meta
    if not all(array.size for array in (forest.lines, forest.table, forest.shapes)):
        raise BundleError("it holds no trees")
    if forest.codes.size == 0 and len(forest.table) > INLINE_LEAVES:
        raise BundleError("it holds no codes of its leaves")
    left = np.bitwise_and.reduce(forest.shapes, axis=1)
    if not left.all() or int(forest.shapes[:, SPLITS].max()) >> EXITS:
        raise BundleError("a shape leaves a row no exit, or too many")
    if max(forest.lines.size, forest.codes.size) >= 2**32 - 2 * SPLITS:
        raise BundleError("it has more lines or leaves than 32 bits can number")
    roots = forest.roots.astype(np.int64)
    ends = np.append(roots[1:], forest.lines.size)
    if roots[0] != 0 or np.any(ends <= roots):
        raise BundleError("its trees do not follow each other")
    if forest.codes.size and int(forest.codes.max()) >= len(forest.table):
        raise BundleError("a leaf's value lies outside the table")
    if len(meta.outputs) != OUTPUTS.get(meta.link, meta.n_raw) or not np.isfinite(meta.link_scale):
        raise BundleError("its outputs, raw scores and link do not fit each other")
    if bundle.groups.size and int(bundle.groups.max()) >= meta.n_raw:
        raise BundleError("the raw score of a tree's group is not there")
    if np.any(bundle.rules > LAST_RULE):
        raise BundleError("a feature's rule is unknown")
    _check_levels(bundle)
    line, reason = _check_lines(
        forest.lines.view(np.uint8).reshape(-1, LINE_BYTES),
        ends,
        forest.shapes[:, SPLITS].astype(np.int64),
        forest.codes.size,
        len(forest.table),
        len(meta.feature_names),
        bundle.categories,
    )
    if reason != OK:
        raise BundleError(f"line {line}: {_REASONS[reason]}")


def _check_levels(bundle: Bundle) -> None:
    starts, levels = bundle.level_starts.astype(np.int64), bundle.levels
    if starts[0] != 0 or starts[-1] != levels.size or np.any(np.diff(starts) < 0):
        raise BundleError("the levels of its features do not follow each other")
    with np.errstate(invalid="ignore"):  # infinities may stand beside each other
        rising = np.diff(levels) > 0
    rising[starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < levels.size)] - 1] = True
    if not rising.all() or np.isnan(levels).any() or np.isnan(bundle.level_codes).any():
        raise BundleError("the levels of a feature do not rise")


@njit(nogil=True, cache=True)
def _check_lines(words, ends, shapes, n_leaves, n_values, n_features, categories):
    """Return the first line that breaks a rule, and which; all arithmetic is in int64 on 32-bit values."""
    as_f32, as_u16, as_u32 = words.view(np.float32), words.view(np.uint16), words.view(np.uint32)
    subtrees = np.ones(words.shape[0], np.uint8)  # of each line: as many as the lines above it lead into
    tree = 0
    for line in range(words.shape[0]):
        while line >= ends[tree]:
            tree += 1
        exits = 0
        for subtree in range(subtrees[line]):
            shape = np.int64(as_u16[line, 26 + subtree])
            if shape >= shapes.size:
                return line, SHAPE
            while shapes[shape] >> exits:
                exits += 1
        leaf_mask = np.int64(as_u16[line, 30])
        if leaf_mask >> exits:
            return line, MASK
        leaves, leaf = 0, np.int64(as_u32[line, 12])
        for exit_ in range(exits):
            is_leaf = (leaf_mask >> exit_) & 1
            leaves += is_leaf
            if not n_leaves and is_leaf and (leaf >> (INLINE_BITS * exit_)) & (INLINE_LEAVES - 1) >= n_values:
                return line, LEAF
        if n_leaves and leaves and leaf + leaves > n_leaves:
            return line, LEAF
        if leaves < exits:
            if subtrees[line] > 1:
                return line, MASK
            reason = _check_below(line, as_u16, as_u32, exits - leaves, ends[tree], subtrees)
            if reason != OK:
                return line, reason
        reason = _check_splits(line, words, as_f32, as_u16, as_u32, n_features, categories)
        if reason != OK:
            return line, reason
    return -1, OK


@njit(nogil=True, inline="always")
def _check_below(line, as_u16, as_u32, count, end, subtrees):
    """Check the lines that a line's exits lead into; note how many subtrees they must have."""
    starts, below = np.int64(as_u16[line, 27]), np.int64(as_u32[line, 14]) - 1
    if not starts & 1 or starts >> count:
        return MASK
    subtree = 0
    for ordinal in range(count):
        if (starts >> ordinal) & 1:
            below += 1
            subtree = 0
        if below <= line or below >= end:
            return CHILD
        subtree += 1
        if subtree > SUBTREES:
            return MASK
        subtrees[below] = max(subtrees[below], subtree)
    return OK


@njit(nogil=True, inline="always")
def _check_splits(line, words, as_f32, as_u16, as_u32, n_features, categories):
    for split in range(SPLITS):
        if as_u16[line, 16 + split] >= n_features:
            return FEATURE
        if (words[line, 63] >> split) & 1:
            start = np.int64(as_u32[line, split])
            if start >= categories.size or start + 1 + np.int64(categories[start]) > categories.size:
                return CATEGORY
        elif np.isnan(as_f32[line, split]):
            return THRESHOLD
    return OK
