"""What the machine allows: the cache lines that a row touches, and how fast independent random ones come.

A probe is easily wrong: a loop whose loads nobody uses is optimised away; an index by division costs more
than the load; a chain of loads measures latency, and a tree walk of 64 trees at once does not wait for one.
Here the lines are those of the very bundle, the next index comes from a shift and a multiplication, every
load is added to a sum that is returned, and no load depends on another.
"""

from __future__ import annotations

import time

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.cases import Case, unseen_rows
from benchmarks.peers import open_case
from models.bundle import Bundle
from models.layout import LINE_BYTES

_ROWS = 200
_LOADS = 2_000_000
_TURNS = 9


@njit(nogil=True)
def _random_lines(words, loads, seed):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Read one word of random lines; return their sum."""
    state, total = np.uint64(seed), np.uint64(0)
    lines = np.uint64(words.shape[0])
    for _ in range(loads):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        line = ((state >> np.uint64(32)) * lines) >> np.uint64(32)
        total += words[line, 0]
    return total


@njit(nogil=True)
def _touched(words, roots, shapes, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Count the lines on the ways of rows through all trees, one step at a time."""
    as_f32, as_u16, as_u32 = words.view(np.float32), words.view(np.uint16), words.view(np.uint32)
    count = 0
    for row in range(x.shape[0]):
        for root in roots:
            line, subtree = np.int64(root), np.int64(0)
            while True:
                count += 1
                shape = as_u16[line, 26 + subtree]
                left, exit_ = np.int64(shapes[shape, 8]), np.int64(0)
                for split in range(8):
                    if x[row, as_u16[line, 16 + split]] > as_f32[line, split]:
                        left &= np.int64(shapes[shape, split])
                while not (left >> exit_) & 1:
                    exit_ += 1
                leaf_mask, starts = np.int64(as_u16[line, 30]), np.int64(as_u16[line, 27])
                if (leaf_mask >> exit_) & 1:
                    break
                below = np.int64(as_u32[line, 14]) - 1
                ordinal = 0
                for other in range(exit_ + 1):
                    if not (leaf_mask >> other) & 1:
                        if (starts >> ordinal) & 1:
                            below += 1
                            subtree = np.int64(0)
                        else:
                            subtree += 1
                        ordinal += 1
                line = below
    return count


def lines_touched(bundle: Bundle) -> dict[str, float]:
    """Return the lines that a mean row touches: of trees, and of the codes of the leaves that it reaches."""
    words = bundle.forest.lines.view(np.uint8).reshape(-1, LINE_BYTES)
    trees = float(_touched(words, bundle.forest.roots, bundle.forest.shapes, unseen_rows(_ROWS))) / _ROWS
    codes = float(bundle.meta.n_trees) if bundle.forest.codes.size else 0.0
    return {"of_trees": round(trees, 1), "of_leaves": codes}


def random_line_ns(bundle: Bundle) -> float:
    """Return nanoseconds of an independent random line over the bundle's own: the median of some turns."""
    words: NDArray[np.uint64] = bundle.forest.lines.view(np.uint64).reshape(-1, LINE_BYTES // 8)
    _random_lines(words, 1000, 1)
    found = []
    for turn in range(_TURNS):
        began = time.perf_counter_ns()
        _random_lines(words, _LOADS, turn + 2)
        found.append((time.perf_counter_ns() - began) / _LOADS)
    return round(float(np.median(found)), 2)


def limit(case: Case, pages: str) -> dict[str, float]:
    """Return the lines of a row, what a random one costs, and their product in microseconds."""
    bundle = open_case(case, pages)
    touched = lines_touched(bundle)
    ns = random_line_ns(bundle)
    lines = touched["of_trees"] + touched["of_leaves"]
    return {
        "lines_of_trees": touched["of_trees"],
        "lines_of_leaves": touched["of_leaves"],
        "random_line_ns": ns,
        "limit_us": round(lines * ns / 1e3, 2),
        "huge_mb": round(bundle.huge / 1e6, 1),
    }
