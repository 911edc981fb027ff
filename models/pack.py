"""Packs trees into lines: likely splits together, each tree's lines from its root outwards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.layout import EXITS, INLINE_BITS, INLINE_LEAVES, LINE, SHAPE_WORDS, SPLITS, SUBTREES

#: A shape is its preorder walk as bits, a split 1 and an exit 0, below a leading 1: at most 18 bits. Its
#: place in a line is its first split and its first exit, in four bits each.
_PLACE_BITS = 8
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
        """Return the row of a shape at a place, as `_fill` writes them; 0 for none."""
        if not key:
            return 0
        if key not in self._known:
            self._known[key] = len(self.rows)
            self.rows.append(_exits_left(key >> _PLACE_BITS, key >> 4 & 15, key & 15))
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
        _name_leaves(whole["leaf"], whole["leaf_mask"], codes)
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
    used = _fill(
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


@njit(nogil=True, cache=True)
def depth_of(left, right):
    """Return the splits on the longest way."""
    nodes, depths = np.zeros(left.size + 1, np.int32), np.zeros(left.size + 1, np.int32)
    count, deepest = 1, 0
    while count:
        count -= 1
        node, depth = nodes[count], depths[count]
        deepest = max(deepest, depth)
        if left[node] >= 0:
            nodes[count], nodes[count + 1] = left[node], right[node]
            depths[count] = depths[count + 1] = depth + 1
            count += 2
    return deepest


@njit(nogil=True, cache=True)
def _sizes(left, right):
    """Count the splits of each node's subtree."""
    order = np.empty(left.size, np.int32)
    order[0] = 0
    count = 1
    for position in range(left.size):
        if position == count:
            break
        node = order[position]
        if left[node] >= 0:
            order[count], order[count + 1] = left[node], right[node]
            count += 2
    sizes = np.zeros(left.size, np.int32)
    for position in range(count - 1, -1, -1):
        node = order[position]
        if left[node] >= 0:
            sizes[node] = 1 + sizes[left[node]] + sizes[right[node]]
    return sizes


@njit(nogil=True, cache=True)
def _fill(
    left,
    right,
    feature,
    threshold,
    weight,
    missing_right,
    category,
    first_line,
    first_leaf,
    as_f32,
    as_u16,
    as_u32,
    as_u8,
    leaves,
    keys,
):
    """Fill one tree's lines from its root outwards; return how many there are.

    A line holds the top of one large subtree, or as many small ones, whole, as fit: neighbours among the
    subtrees below one line.
    """
    sizes = _sizes(left, right)
    # The roots of all lines, one after another.
    roots, first_root = np.zeros(as_u8.shape[0] + 1, np.int32), np.zeros(as_u8.shape[0] + 1, np.int32)
    n_roots, n_lines, n_leaves = 1, 1, 0
    frontier = np.empty(SPLITS + 1, np.int32)
    stack = np.empty(SPLITS + 2, np.int32)
    chosen = np.empty(SPLITS, np.int32)
    line = 0
    while line < n_lines:
        first_root[n_lines] = n_roots
        top = roots[first_root[line]]
        last_root = first_root[line + 1]
        whole = sizes[top] <= SPLITS
        n_chosen = 0 if whole else _choose(top, left, right, weight, frontier, chosen)
        as_f32[line, :SPLITS] = np.inf
        as_u32[line, 12] = first_leaf + n_leaves
        as_u32[line, 14] = 0 if whole else first_line + n_lines
        split, exit_, leaf_mask, starts, ordinal, room, places = 0, 0, 0, 0, 0, 0, 0
        for root in range(first_root[line], last_root):
            place, shape = (split << 4) | exit_, 1
            stack[0] = roots[root]
            depth = 1
            while depth:
                depth -= 1
                node = stack[depth]
                inside = whole and left[node] >= 0
                for i in range(n_chosen):
                    inside |= chosen[i] == node
                shape = (shape << 1) | np.int64(inside)
                if inside:
                    as_f32[line, split] = threshold[node]
                    as_u16[line, 16 + split] = feature[node]
                    as_u8[line, 62] |= np.uint8(missing_right[node]) << split
                    as_u8[line, 63] |= np.uint8(category[node]) << split
                    stack[depth], stack[depth + 1] = right[node], left[node]
                    depth += 2
                    split += 1
                    continue
                if left[node] < 0:
                    leaf_mask |= 1 << exit_
                    leaves[n_leaves] = node
                    n_leaves += 1
                else:
                    if sizes[node] > room or not places:  # not beside its neighbours: a line begins
                        starts |= 1 << ordinal
                        room, places = SPLITS, SUBTREES
                        first_root[n_lines] = n_roots
                        n_lines += 1
                    room -= min(room, sizes[node])
                    places -= 1
                    roots[n_roots] = node
                    n_roots += 1
                    ordinal += 1
                exit_ += 1
            keys[line, root - first_root[line]] = (shape << _PLACE_BITS) | place
        as_u16[line, 27], as_u16[line, 30] = starts, leaf_mask
        line += 1
    return n_lines


@njit(nogil=True, cache=True)
def _choose(top, left, right, weight, frontier, chosen):
    """Choose the likeliest splits that hang together from the top down; return how many."""
    n_chosen, n_frontier = 0, 0
    if left[top] >= 0:
        frontier[0] = top
        n_frontier = 1
    while n_frontier and n_chosen < SPLITS:
        best = 0
        for i in range(1, n_frontier):
            if weight[frontier[i]] > weight[frontier[best]]:
                best = i
        node = frontier[best]
        n_frontier -= 1
        frontier[best] = frontier[n_frontier]
        chosen[n_chosen] = node
        n_chosen += 1
        for child in (left[node], right[node]):
            if left[child] >= 0:
                frontier[n_frontier] = child
                n_frontier += 1
    return n_chosen


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


@njit(nogil=True, cache=True)
def _name_leaves(leaf, leaf_mask, codes):
    """Replace each line's first leaf by the codes of all of its leaves."""
    for line in range(leaf.size):
        first, word = np.int64(leaf[line]), 0
        for exit_ in range(EXITS):
            if (np.int64(leaf_mask[line]) >> exit_) & 1:
                word |= np.int64(codes[first]) << (INLINE_BITS * exit_)
                first += 1
        leaf[line] = word


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
