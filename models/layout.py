"""The memory layout of a packed forest: 64-byte lines of up to eight splits.

A line is one cache line, so a row pays one memory access for up to eight levels of a tree. It holds the
likeliest splits of one large subtree's top, or up to four small subtrees whole. A step compares all eight
splits at once into a mask of those where the row goes right. Exits are numbered from left to right, a bit for
each. Going right at a split rules out all exits to its left: a table that depends only on the subtree's shape
and its place in the line holds, for each split, the exits that are left then, and last those of the subtree;
the lowest bit that all of them keep is the exit that the row takes.

The leaf mask says which exits are leaves. The leaves' values follow each other from `leaf` on, and the lines
below from `child` on, so that a position is a base plus a count of bits. Neighbours among the exits that are
no leaves may lead into one line, each to a subtree of its own there: `starts` marks, among those exits in
their order, the ones with which a line begins. Where the leaves of a forest have at most four distinct
values, as they do where a classifier's trees grew until their leaves were pure, `leaf` says itself which: two
bits an exit.

    offset  field      type      meaning
    0       threshold  f32 x 8   go right where x > threshold; +inf on unused splits;
                                 on categorical splits its bits are an offset into `categories`
    32      feature    u16 x 8   feature of each split
    48      leaf       u32       first leaf below this one; or bits 2e, 2e+1: the value of exit e
    52      shape      u16       the subtree's shape, a row of `shapes`
    54      starts     u16       bit j: with the j-th exit that is no leaf another line begins
    56      child      u32       first line below this one
    60      leaf_mask  u16       bit e: exit e is a leaf
    62      missing    u8        bit i: at split i a missing value goes right
    63      category   u8        bit i: split i is categorical

A line of several subtrees has nothing below it but leaves, and so room for their shapes, u16 x 4 from 52 on.

Sources: super nodes follow "Forest Packing" (Browne et al., 2019) in storing likely subtrees together, and
QuickScorer (Lucchese et al., 2015) in finding the exit by masks of those that are left.
"""

from __future__ import annotations

import numpy as np

#: Splits in a line.
SPLITS = 8
#: Words of a shape: the exits that are left where a row goes right at each split, and all of the subtree.
SHAPE_WORDS = SPLITS + 1
#: Bytes in a line.
LINE_BYTES = 64
#: Most features that a line can name.
MAX_FEATURES = 1 << 16
#: Most subtrees in a line.
SUBTREES = 4
#: Most exits of a line: each subtree has one more than splits.
EXITS = SPLITS + SUBTREES
#: Most distinct leaves that lines can name themselves, and the bits that it takes.
INLINE_LEAVES, INLINE_BITS = 4, 2

LINE = np.dtype(
    [
        ("threshold", "<f4", SPLITS),
        ("feature", "<u2", SPLITS),
        ("leaf", "<u4"),
        ("shape", "<u2"),
        ("starts", "<u2"),
        ("child", "<u4"),
        ("leaf_mask", "<u2"),
        ("missing", "u1"),
        ("category", "u1"),
    ],
)
assert LINE.itemsize == LINE_BYTES  # noqa: S101 - the kernel reads by these offsets

# What to do with a feature's value before the trees see it: one byte a feature, of three parts.
# The first, what is missing:
#: NaN is missing.
KEEP = 0
#: NaN is the number zero, and so is a tiny number (LightGBM, missing type None).
NAN_IS_ZERO = 1
#: NaN and tiny numbers are missing (LightGBM, missing type Zero).
ZERO_IS_MISSING = 2
#: NaN is missing, a tiny number is zero (LightGBM, missing type NaN, and categorical features).
TINY_IS_ZERO = 3
MISSING_BITS = 3
# The second, what the value is:
#: A number.
NUMBER = 0 << 2
#: A category; its fraction is cut off (LightGBM).
TRUNCATED = 1 << 2
#: A category; it is rounded down (XGBoost: nothing below zero is a category).
FLOORED = 2 << 2
#: A category: it must equal a level of its feature, and becomes that level's code; else it is missing.
LEVEL = 3 << 2
KIND_BITS = 3 << 2
# The third:
#: Every value is coded by the levels of its feature, even where float32 holds it: two float64 thresholds of
#: the feature are the same in float32.
CODED = 1 << 4
LAST_RULE = CODED | KIND_BITS | MISSING_BITS

#: A number up to this far from zero is tiny (LightGBM's kZeroThreshold, a float32).
TINY = np.float32(1e-35)
#: Categories from here on are in no set: float32 does not tell them apart.
MAX_CATEGORY = 1 << 24
