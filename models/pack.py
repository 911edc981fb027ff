"""Packs trees into lines: likely splits together, each tree's lines from its root outwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models.layout import LINE, SPLITS

#: A shape is its preorder walk as bits, a split 1 and an exit 0, below a leading 1: at most 18 bits.
_SHAPES = 1 << (2 * SPLITS + 2)


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
        exits: uint8 [...], for each shape its number of splits, then the exit of each mask.
        codes: uint8, uint16 or uint32 [leaves], each leaf's row in the table.
        table: float64 [distinct leaves, values].
    """

    lines: NDArray[np.void]
    roots: NDArray[np.uint32]
    exits: NDArray[np.uint8]
    codes: NDArray[Any]
    table: NDArray[np.float64]


def pack(trees: list[Tree]) -> Packed:
    """Pack trees, in their order.

    Raises:
        OverflowError: there are more lines or leaves than 32 bits can number.
    """
    shapes = np.full(_SHAPES, -1, np.int64)
    exits: list[NDArray[np.uint8]] = []
    lines: list[NDArray[np.void]] = []
    leaf_nodes: list[NDArray[np.int32]] = []
    roots = np.zeros(len(trees), np.int64)
    n_lines = n_leaves = 0
    for number, tree in enumerate(trees):
        roots[number] = n_lines
        packed, leaves = _pack_one(tree, n_lines, n_leaves, shapes, exits)
        lines.append(packed)
        leaf_nodes.append(leaves)
        n_lines += packed.size
        n_leaves += leaves.size
        if max(n_lines, n_leaves) >= 2**32 - SPLITS - 1:
            raise OverflowError("a forest has at most 2^32 lines and leaves")
    table, codes = _distinct([tree.value[nodes] for tree, nodes in zip(trees, leaf_nodes, strict=True)])
    return Packed(np.concatenate(lines), roots.astype(np.uint32), np.concatenate(exits), codes, table)


def _pack_one(
    tree: Tree,
    first_line: int,
    first_leaf: int,
    shapes: NDArray[np.int64],
    exits: list[NDArray[np.uint8]],
) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """Return the tree's lines, and its leaf nodes in their order; new shapes are added to `exits`."""
    splits = int(np.count_nonzero(tree.left >= 0))
    lines = np.zeros(max(1, splits), LINE)
    words = lines.view(np.uint8).reshape(-1, LINE.itemsize)
    leaves = np.empty(splits + 1, np.int32)
    line_shapes = np.empty(lines.size, np.int32)
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
        line_shapes,
    )
    lines, line_shapes = lines[:used].copy(), line_shapes[:used]
    for shape in np.unique(line_shapes):
        if shapes[shape] < 0:
            shapes[shape] = sum(part.size for part in exits) + 1
            exits.append(_exits_of(int(shape)))
    lines["shape"] = shapes[line_shapes]
    return lines, leaves


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
    line_shapes,
):
    """Fill one tree's lines from its root outwards; return how many there are."""
    tops = np.empty(as_u8.shape[0], np.int32)  # the node at the top of each line
    tops[0] = 0
    n_lines, n_leaves = 1, 0
    frontier = np.empty(SPLITS + 1, np.int32)
    stack = np.empty(SPLITS + 2, np.int32)
    chosen = np.empty(SPLITS, np.int32)
    line = 0
    while line < n_lines:
        n_chosen = _choose(tops[line], left, right, weight, frontier, chosen)
        as_f32[line, :SPLITS] = np.inf
        as_u32[line, 12] = first_line + n_lines
        as_u32[line, 13] = first_leaf + n_leaves
        stack[0] = tops[line]
        depth, split, exit_, shape, leaf_mask = 1, 0, 0, 1, 0
        while depth:
            depth -= 1
            node = stack[depth]
            inside = False
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
                tops[n_lines] = node
                n_lines += 1
            exit_ += 1
        as_u16[line, 30] = leaf_mask
        line_shapes[line] = shape
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


def _exits_of(shape: int) -> NDArray[np.uint8]:
    """Return the number of splits and then the exit of each mask, for a shape as its preorder walk's bits."""
    bits = [int(bit) for bit in bin(shape)[3:]]
    position = split = exit_ = 0

    def read() -> tuple[int, Any, Any] | int:
        nonlocal position, split, exit_
        inside = bits[position]
        position += 1
        if not inside:
            exit_ += 1
            return exit_ - 1
        number = split
        split += 1
        return (number, read(), read())

    root = read()
    table = [split]
    for mask in range(1 << split):
        node = root
        while isinstance(node, tuple):
            node = node[2] if mask >> node[0] & 1 else node[1]
        table.append(node)
    return np.array(table, np.uint8)


def _distinct(parts: list[NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Return the distinct rows, told apart by their bits (-0.0 is not 0.0), and each leaf's row.

    Tree by tree first: sorting the leaves of a whole large forest would take minutes.
    """
    width = parts[0].shape[1]
    key = np.dtype((np.void, 8 * width))
    found = [np.unique(np.ascontiguousarray(part).view(key).ravel(), return_inverse=True) for part in parts]
    table, back = np.unique(np.concatenate([rows for rows, _ in found]), return_inverse=True)
    starts = np.cumsum([0, *(rows.size for rows, _ in found)])
    dtype = next(d for d in (np.uint8, np.uint16, np.uint32) if table.size <= np.iinfo(d).max + 1)
    codes = [back[start:][inverse] for start, (_, inverse) in zip(starts, found, strict=False)]
    return table.view(np.float64).reshape(-1, width), np.concatenate(codes).astype(dtype)
