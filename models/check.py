"""The checks between a file and the kernel: after them no walk can leave the file, or fail to end."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.errors import BundleError
from models.layout import LINE_BYTES, SPLITS, TINY_IS_ZERO
from models.meta import BundleMeta
from models.pack import Packed

OK, CHILD, LEAF, FEATURE, SHAPE, THRESHOLD, CATEGORY, MASK = range(8)
_REASONS: Final = {
    CHILD: "a child lies outside its tree, or not further on",
    LEAF: "a leaf lies outside the leaves",
    FEATURE: "a feature lies outside the vector",
    SHAPE: "a shape lies outside the table of exits, or leads to an exit that no line has",
    THRESHOLD: "a threshold is NaN, or an unused one is not infinite",
    CATEGORY: "a set of categories lies outside the categories",
    MASK: "a mask names splits or exits that no line has",
}


def check_forest(
    meta: BundleMeta,
    forest: Packed,
    categories: NDArray[np.uint32],
    missing: NDArray[np.uint8],
) -> None:
    """Check every line, leaf and set of categories.

    Raises:
        BundleError: names the line and the rule.
    """
    if not forest.lines.size or not forest.codes.size or not forest.table.size or not forest.exits.size:
        raise BundleError("it holds no trees")
    if max(forest.lines.size, forest.codes.size) >= 2**32:
        raise BundleError("it has more lines or leaves than 32 bits can number")
    roots = forest.roots.astype(np.int64)
    ends = np.append(roots[1:], forest.lines.size)
    if roots[0] != 0 or np.any(ends <= roots):
        raise BundleError("its trees do not follow each other")
    if int(forest.codes.max()) >= len(forest.table):
        raise BundleError("a leaf's value lies outside the table")
    if np.any(missing > TINY_IS_ZERO):
        raise BundleError("a feature's missing rule is unknown")
    if not _links_fit(meta):
        raise BundleError("its outputs, raw scores and link do not fit each other")
    line, reason = _check_lines(
        forest.lines.view(np.uint8).reshape(-1, LINE_BYTES),
        ends,
        forest.exits,
        forest.codes.size,
        len(meta.feature_names),
        categories,
    )
    if reason != OK:
        raise BundleError(f"line {line}: {_REASONS[reason]}")


def _links_fit(meta: BundleMeta) -> bool:
    if not np.isfinite(meta.link_scale) or (meta.per_class and meta.n_trees % meta.n_raw):
        return False
    return len(meta.outputs) == meta.n_raw


@njit(nogil=True, cache=True)
def _check_lines(
    words,
    ends,
    exits,
    n_leaves,
    n_features,
    categories,
):
    """Return the first line that breaks a rule, and which; all arithmetic is in int64 on 32-bit values."""
    as_f32, as_u16, as_u32 = words.view(np.float32), words.view(np.uint16), words.view(np.uint32)
    known = np.zeros(exits.size, np.uint8)
    tree = 0
    for line in range(words.shape[0]):
        while line >= ends[tree]:
            tree += 1
        shape = np.int64(as_u32[line, 14])
        splits = _splits_of(exits, shape, known)
        if splits < 0:
            return line, SHAPE
        leaf_mask = np.int64(as_u16[line, 30])
        if leaf_mask >> (splits + 1):
            return line, MASK
        if (np.int64(words[line, 62]) | np.int64(words[line, 63])) >> splits:
            return line, MASK
        leaves = 0
        for exit_ in range(splits + 1):
            leaves += (leaf_mask >> exit_) & 1
        below = splits + 1 - leaves
        child, leaf = np.int64(as_u32[line, 12]), np.int64(as_u32[line, 13])
        if below and (child <= line or child + below > ends[tree]):
            return line, CHILD
        if leaves and leaf + leaves > n_leaves:
            return line, LEAF
        for split in range(SPLITS):
            if as_u16[line, 16 + split] >= n_features:
                return line, FEATURE
            categorical = (words[line, 63] >> split) & 1
            if categorical:
                start = np.int64(as_u32[line, split])
                if start >= categories.size or start + 1 + np.int64(categories[start]) > categories.size:
                    return line, CATEGORY
            elif np.isnan(as_f32[line, split]) or (split >= splits and as_f32[line, split] != np.inf):
                return line, THRESHOLD
    return -1, OK


@njit(nogil=True, cache=True)
def _splits_of(exits, shape, known):
    """Return how many splits the shape at an offset has, or -1 if it is no shape.

    The byte before a shape's exits says how many splits it has, and so how many masks.
    """
    if shape < 1 or shape >= exits.size or exits[shape - 1] > SPLITS:
        return -1
    splits = np.int64(exits[shape - 1])
    if known[shape]:
        return splits
    if shape + (1 << splits) > exits.size:
        return -1
    for position in range(shape, shape + (1 << splits)):
        if exits[position] > splits:
            return -1
    known[shape] = 1
    return splits
