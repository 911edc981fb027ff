"""Packs trees into lines: likely splits together, each tree's lines from its root outwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.fill import PLACE_BITS, fill, name_leaves
from models.layout import EXITS, INLINE_LEAVES, LINE, SHAPE_WORDS, SPLITS, SUBTREES

#: Where a line's shapes begin, in two bytes.
_SHAPE = 52 // 2


@dataclass(frozen=True)
class Tree:
    """One tree as importers give it: arrays over its nodes, node 0 the root.

    Attributes:
        left: int32 [nodes], the left child; -1 at a leaf.
        right: int32 [nodes], the right child; -1 at a leaf.
        feature: int32 [nodes].
        threshold: float32 [nodes], a row goes left where x <= threshold; for a categorical split its bits
            are the offset of its set in the forest's categories.
        weight: float64 [nodes], how many training rows came by, to put likely splits together.
        missing_right: bool [nodes], where a missing value goes.
        category: bool [nodes], whether the split is categorical.
        value: float64 [nodes, values], read at leaves.
    """

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    weight: NDArray[np.float64]
    missing_right: NDArray[np.bool_]
    category: NDArray[np.bool_]
    value: NDArray[np.float64]


@dataclass(frozen=True)
class Packed:
    """A packed forest.

    Attributes:
        lines: LINE [lines].
        roots: uint32 [trees], each tree's first line; its lines end where the next tree's begin.
        shapes: uint16 [shapes, 9], one for each shape and place in a line: the exits that are left where a
            row goes right at each split, and all exits of the subtree.
        codes: uint8, uint16 or uint32 [leaves], each leaf's row in the table; empty where the lines name
            the rows themselves.
        table: float64 [distinct leaves, values].
    """

    lines: NDArray[np.void]
    roots: NDArray[np.uint32]
    shapes: NDArray[np.uint16]
    codes: NDArray[Any]
    table: NDArray[np.float64]


class _Shapes:
    """The shapes that were needed so far; there can be fewer than 2^16."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self.rows: list[list[int]] = []

    def number(self, key: int) -> int:
        """Return the row of a shape at a place, as models.fill writes them; 0 for none."""
        if not key:
            return 0
        if key not in self._known:
            self._known[key] = len(self.rows)
            self.rows.append(_exits_left(key >> PLACE_BITS, key >> 4 & 15, key & 15))
        return self._known[key]


def pack(trees: Iterable[Tree], progress: Callable[[], None] = lambda: None) -> Packed:
    """Pack trees, in their order.

    Args:
        trees: taken one by one, so that a generator's need not all be in memory.
        progress: called after each tree.

    Raises:
        OverflowError: there are more lines or leaves than 32 bits can number.
    """
    shapes = _Shapes()
    lines: list[NDArray[np.void]] = []
    values: list[tuple[NDArray[np.void], NDArray[np.intp]]] = []
    roots = []
    n_lines = n_leaves = 0
    for tree in trees:
        roots.append(n_lines)
        packed, leaves = _pack_one(tree, n_lines, n_leaves, shapes)
        lines.append(packed)
        values.append(_distinct(tree.value[leaves]))
        n_lines += packed.size
        n_leaves += leaves.size
        if max(n_lines, n_leaves) >= 2**32 - 2 * SPLITS:
            raise OverflowError("a forest has at most 2^32 lines and leaves")
        progress()
    table, codes = _merge(values)
    whole = np.concatenate(lines)
    if len(table) <= INLINE_LEAVES:
        name_leaves(whole["leaf"], whole["leaf_mask"], codes)
        codes = codes[:0]
    return Packed(whole, np.array(roots, np.uint32), np.array(shapes.rows, np.uint16), codes, table)


def _pack_one(
    tree: Tree, first_line: int, first_leaf: int, shapes: _Shapes
) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """Return the tree's lines, and its leaf nodes in their order; new shapes are added to `shapes`."""
    splits = int(np.count_nonzero(tree.left >= 0))
    lines = np.zeros(max(1, splits), LINE)
    words = lines.view(np.uint8).reshape(-1, LINE.itemsize)
    leaves = np.empty(splits + 1, np.int32)
    keys = np.zeros((lines.size, SUBTREES), np.int32)
    used = fill(
        tree.left,
        tree.right,
        tree.feature,
        tree.threshold,
        tree.weight,
        tree.missing_right,
        tree.category,
        first_line,
        first_leaf,
        words.view(np.float32),
        words.view(np.uint16),
        words.view(np.uint32),
        words,
        leaves,
        keys,
    )
    lines, words, keys = lines[:used], words[:used], keys[:used]
    found, back = np.unique(keys, return_inverse=True)
    numbers = np.array([shapes.number(int(key)) for key in found], np.uint16)[back.reshape(keys.shape)]
    lines["shape"] = numbers[:, 0]
    several = keys[:, 1] > 0
    words.view(np.uint16)[several, _SHAPE : _SHAPE + SUBTREES] = numbers[several]
    return lines.copy(), leaves


def _exits_left(shape: int, split: int, exit_: int) -> list[int]:
    """Return the row of `shapes` for a shape whose first split and exit are given."""
    bits = iter(bin(shape)[3:])
    every = (1 << EXITS) - 1
    row = [every] * SHAPE_WORDS

    def read() -> int:
        """Read a subtree; return its exits as bits."""
        nonlocal split, exit_
        if next(bits) == "0":
            exit_ += 1
            return 1 << (exit_ - 1)
        own, split = split, split + 1
        left = read()
        row[own] = every & ~left
        return left | read()

    row[SPLITS] = read()
    return row


def _distinct(values: NDArray[np.float64]) -> tuple[NDArray[np.void], NDArray[np.intp]]:
    """Return the distinct rows, told apart by their bits (-0.0 is not 0.0), and each row's place in them."""
    key = np.dtype((np.void, 8 * values.shape[1]))
    rows, back = np.unique(np.ascontiguousarray(values).view(key).ravel(), return_inverse=True)
    return rows, back


def _merge(
    parts: list[tuple[NDArray[np.void], NDArray[np.intp]]],
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return the distinct rows of all trees, and each leaf's row.

    Tree by tree before: sorting the leaves of a whole large forest would take minutes.
    """
    table, back = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
    starts = np.cumsum([0, *(rows.size for rows, _ in parts)])
    dtype = next(d for d in (np.uint8, np.uint16, np.uint32) if table.size <= np.iinfo(d).max + 1)
    codes = [back[start:][inverse] for start, (_, inverse) in zip(starts, parts, strict=False)]
    return table.view(np.float64).reshape(table.size, -1), np.concatenate(codes).astype(dtype)
