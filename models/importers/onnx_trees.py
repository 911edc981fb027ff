"""Turns the nodes of an ONNX tree into those of ours: every mode becomes `x <= t`, or a set of categories."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.errors import ImportRefusedError
from models.importers.onnx_nodes import LEAF, Nodes
from models.importers.source import NO_SET, Scores, SourceTree, category_words

_EQUAL, _UNEQUAL = "BRANCH_EQ", "BRANCH_NEQ"
_NUMERIC = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT")


def equal_features(nodes: Nodes) -> dict[int, Scores]:
    """Return the features that are compared for equality, each with the numbers that it is compared with.

    Raises:
        ImportRefusedError: a feature is compared in both ways, or a mode is not known.
    """
    equal = np.isin(nodes.mode, (_EQUAL, _UNEQUAL))
    numeric = np.isin(nodes.mode, _NUMERIC)
    unknown = set(nodes.mode[~equal & ~numeric].tolist()) - {LEAF}
    if unknown:
        raise ImportRefusedError(f"the mode {unknown.pop()!r} (nodes_modes) is not carried")
    both = np.intersect1d(nodes.feature[equal], nodes.feature[numeric])
    if both.size:
        raise ImportRefusedError(f"feature {both[0]} is compared by order and for equality (nodes_modes)")
    # What equals none of the numbers is treated as missing, so a missing value must go where those go.
    if np.any(nodes.missing_true & (nodes.mode == _EQUAL)):
        raise ImportRefusedError("NaN that equals a number (nodes_missing_value_tracks_true) is not carried")
    return {
        int(feature): np.unique(nodes.threshold[equal & (nodes.feature == feature)].astype(np.float64))
        for feature in np.unique(nodes.feature[equal])
    }


def merge_chains(nodes: Nodes) -> tuple[Nodes, dict[int, list[float]]]:
    """Make one split of a chain of equalities that lead to one node: converters write a set of categories so.

    Returns:
        The nodes, with such chains skipped, and for each node that compares for equality its numbers.
    """
    false, members = nodes.false.copy(), {}
    equal = np.flatnonzero(nodes.mode == _EQUAL)
    for node in equal.tolist():
        members[node] = [float(nodes.threshold[node])]
        below = int(false[node])
        while (
            nodes.mode[below] == _EQUAL
            and nodes.feature[below] == nodes.feature[node]
            and nodes.true[below] == nodes.true[node]
        ):
            members[node].append(float(nodes.threshold[below]))
            below = int(nodes.false[below])
        false[node] = below
    for node in np.flatnonzero(nodes.mode == _UNEQUAL).tolist():
        members[node] = [float(nodes.threshold[node])]
    return replace(nodes, false=false), members


def tree_of(
    nodes: Nodes,
    number: int,
    n_raw: int,
    equal: dict[int, Scores],
    members: dict[int, list[float]],
    categories: list[int],
) -> SourceTree:
    """Read one tree; its sets of categories are added to the others'."""
    own = _reachable(nodes, int(nodes.roots[number]))
    place = np.full(nodes.mode.size, -1, np.int64)
    place[own] = np.arange(own.size)
    mode, inner = nodes.mode[own], nodes.mode[own] != LEAF
    # Greater ones go right where the comparison holds, the others left.
    to_right = np.isin(mode, ("BRANCH_GTE", "BRANCH_GT", _UNEQUAL))
    true, false = place[nodes.true[own]], place[nodes.false[own]]
    below = np.isin(mode, ("BRANCH_LT", "BRANCH_GTE"))
    threshold = nodes.threshold[own]
    lower = np.nextafter(threshold, np.array(-np.inf, threshold.dtype))
    sets = np.full(own.size, NO_SET, np.int64)
    for node in np.flatnonzero(np.isin(mode, (_EQUAL, _UNEQUAL))):
        sets[node] = len(categories)
        known = equal[int(nodes.feature[own[node]])]
        categories.extend(category_words(np.searchsorted(known, members[int(own[node])])))
    missing_true = nodes.missing_true[own] | (mode == _UNEQUAL)
    return SourceTree(
        left=np.where(inner, np.where(to_right, false, true), -1).astype(np.int32),
        right=np.where(inner, np.where(to_right, true, false), -1).astype(np.int32),
        feature=nodes.feature[own].astype(np.int32),
        threshold=np.where(below, lower, threshold).astype(np.float64),
        weight=_weights(place, nodes, own, inner),
        missing_right=missing_true == to_right,
        value=_values(place, nodes, own, n_raw),
        category_set=sets if (sets != NO_SET).any() else None,
    )


def _reachable(nodes: Nodes, root: int) -> NDArray[np.int64]:
    """Return the nodes of a tree from its root on, each before those below it."""
    found, seen = [root], {root}
    for node in found:
        if nodes.mode[node] != LEAF:
            for child in (int(nodes.true[node]), int(nodes.false[node])):
                if child in seen:
                    raise ImportRefusedError("two branches of its trees lead to one node")
                seen.add(child)
                found.append(child)
    return np.array(found, np.int64)


def _weights(
    place: NDArray[np.int64], nodes: Nodes, own: NDArray[np.int64], inner: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Guess how many rows come by: nothing says so, and half of them at each split is as good as any."""
    weight = np.ones(own.size)
    for index in np.flatnonzero(inner):
        for child in (nodes.true[own[index]], nodes.false[own[index]]):
            weight[place[child]] = weight[index] / 2
    return weight


def _values(place: NDArray[np.int64], nodes: Nodes, own: NDArray[np.int64], n_raw: int) -> Scores:
    value = np.zeros((own.size, n_raw))
    mine = place[nodes.leaf] >= 0
    target = nodes.target[mine] if n_raw > 1 else np.zeros(int(mine.sum()), np.int64)
    value[place[nodes.leaf[mine]], target] = nodes.weight[mine]
    return value
