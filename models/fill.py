"""Compiled: fills lines with the splits of a tree."""

from __future__ import annotations

import numpy as np
from numba import njit

from models.layout import EXITS, INLINE_BITS, SPLITS, SUBTREES

#: A shape's key is its preorder walk as bits, a split 1 and an exit 0, below a leading 1: at most 18 bits.
#: Below them stands its place in a line: its first split and its first exit, in four bits each.
PLACE_BITS = 8


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
def fill(
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
            keys[line, root - first_root[line]] = (shape << PLACE_BITS) | place
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


@njit(nogil=True, cache=True)
def name_leaves(leaf, leaf_mask, codes):
    """Replace each line's first leaf by the codes of all of its leaves."""
    for line in range(leaf.size):
        first, word = np.int64(leaf[line]), 0
        for exit_ in range(EXITS):
            if (np.int64(leaf_mask[line]) >> exit_) & 1:
                word |= np.int64(codes[first]) << (INLINE_BITS * exit_)
                first += 1
        leaf[line] = word
