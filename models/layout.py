"""The memory layout of a packed forest: 64-byte lines, each a subtree of up to eight splits.

A line is one cache line, so a row pays one memory access for up to eight levels of a tree. A step compares
all eight splits at once into a mask of those where the row goes right; a table that depends only on the
subtree's shape turns the mask into the exit that the row takes. Exits are numbered from left to right; the
leaf mask says which of them are leaves. The other exits' lines follow each other from `child` on, and the
leaves' values from `leaf` on, so that a position is a base plus a count of bits.

    offset  field      type      meaning
    0       threshold  f32 x 8   go right where x > threshold; +inf on unused splits;
                                 on categorical splits its bits are an offset into `categories`
    32      feature    u16 x 8   feature of each split
    48      child      u32       first line below this one
    52      leaf       u32       first leaf below this one
    56      shape      u32       offset of the shape's exits in `exits`
    60      leaf_mask  u16       bit e: exit e is a leaf
    62      missing    u8        bit i: at split i a missing value goes right
    63      category   u8        bit i: split i is categorical

Sources: super nodes follow "Forest Packing" (Browne et al., 2019) in storing likely subtrees together, and
QuickScorer (Lucchese et al., 2015) in turning comparisons into exits by masks.
"""

from __future__ import annotations

import numpy as np

#: Splits in a line.
SPLITS = 8
#: Bytes in a line.
LINE_BYTES = 64
#: Most features that a line can name.
MAX_FEATURES = 1 << 16

LINE = np.dtype(
    [
        ("threshold", "<f4", SPLITS),
        ("feature", "<u2", SPLITS),
        ("child", "<u4"),
        ("leaf", "<u4"),
        ("shape", "<u4"),
        ("leaf_mask", "<u2"),
        ("missing", "u1"),
        ("category", "u1"),
    ],
)
assert LINE.itemsize == LINE_BYTES  # noqa: S101 - the kernel reads by these offsets

# What to do with a feature's value before the trees see it.
#: Leave it: NaN is missing.
KEEP = 0
#: NaN is the number zero, and so is a tiny number (LightGBM, missing type None).
NAN_IS_ZERO = 1
#: NaN and tiny numbers are missing (LightGBM, missing type Zero).
ZERO_IS_MISSING = 2
#: NaN is missing, a tiny number is zero (LightGBM, missing type NaN, and categorical features).
TINY_IS_ZERO = 3
#: A number up to this far from zero is tiny (LightGBM's kZeroThreshold).
TINY = np.float32(1e-35)
