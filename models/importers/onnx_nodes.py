"""Reads the attributes of ONNX-ML's tree operators into one form: flat nodes with their children's places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.errors import ImportRefusedError

LEAF: Final = "LEAF"
#: Modes of TreeEnsemble by number.
_MODES: Final = (
    "BRANCH_LEQ",
    "BRANCH_LT",
    "BRANCH_GTE",
    "BRANCH_GT",
    "BRANCH_EQ",
    "BRANCH_NEQ",
    "BRANCH_MEMBER",
)


@dataclass(frozen=True)
class Nodes:
    """All nodes of an ensemble.

    Attributes:
        mode: names of the modes [nodes].
        feature: int64 [nodes].
        threshold: float32 or float64 [nodes], as the ensemble compares.
        true: int64 [nodes], the node where the comparison holds; any at a leaf.
        false: int64 [nodes], the other.
        missing_true: bool [nodes], NaN takes the true branch.
        roots: int64 [trees].
        leaf: int64 [weights], the node that each weight belongs to.
        target: int64 [weights], the sum that it adds to.
        weight: float32 or float64 [weights].
        n_targets: how many sums there are.
    """

    mode: NDArray[np.str_]
    feature: NDArray[np.int64]
    threshold: NDArray[Any]
    true: NDArray[np.int64]
    false: NDArray[np.int64]
    missing_true: NDArray[np.bool_]
    roots: NDArray[np.int64]
    leaf: NDArray[np.int64]
    target: NDArray[np.int64]
    weight: NDArray[Any]
    n_targets: int

    @property
    def count(self) -> int:
        """How many trees there are."""
        return len(self.roots)


def read_attributes(node: Any) -> dict[str, Any]:
    """Return an operator's attributes by name: numbers, texts, lists, and tensors as arrays."""
    import onnx  # noqa: PLC0415 - whoever has a node has it

    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        found[attribute.name] = value
    return found


def read_ensemble(operator: str, attributes: Mapping[str, Any]) -> Nodes:
    """Read any of the three operators."""
    return _read_newer(attributes) if operator == "TreeEnsemble" else _read_older(operator, attributes)


def _number(attributes: Mapping[str, Any], name: str) -> NDArray[Any]:
    """Return an attribute of numbers: a list of float32, or a tensor."""
    tensor = attributes.get(f"{name}_as_tensor")
    return np.asarray(attributes[name], np.float32) if tensor is None or not len(tensor) else tensor


def _read_older(operator: str, attributes: Mapping[str, Any]) -> Nodes:
    """TreeEnsembleClassifier and -Regressor: nodes are named by a tree's number and their own."""
    tree, number = (np.asarray(attributes[f"nodes_{part}"], np.int64) for part in ("treeids", "nodeids"))
    place = {pair: index for index, pair in enumerate(zip(tree.tolist(), number.tolist(), strict=True))}
    mode = np.array(
        [text.decode() if isinstance(text, bytes) else text for text in attributes["nodes_modes"]]
    )

    def child(branch: str) -> NDArray[np.int64]:
        ids = attributes[f"nodes_{branch}nodeids"]
        found = (
            0 if kind == LEAF else place.get((own, other), -1)
            for kind, own, other in zip(mode.tolist(), tree.tolist(), ids, strict=True)
        )
        return np.fromiter(found, np.int64, len(ids))

    true, false = child("true"), child("false")
    if min(true.min(initial=0), false.min(initial=0)) < 0:
        raise ImportRefusedError("a branch of its trees leads to a node that is not there")
    kind = "class" if operator == "TreeEnsembleClassifier" else "target"
    pairs = zip(attributes[f"{kind}_treeids"], attributes[f"{kind}_nodeids"], strict=True)
    n_targets = int(attributes.get("n_targets", 0))
    if kind == "class":
        n_targets = len(
            attributes.get("classlabels_int64s") or attributes.get("classlabels_strings") or (0, 1)
        )
    tracks = attributes.get("nodes_missing_value_tracks_true") or np.zeros(tree.size)
    return Nodes(
        mode=mode,
        feature=np.asarray(attributes["nodes_featureids"], np.int64),
        threshold=_number(attributes, "nodes_values"),
        true=true,
        false=false,
        missing_true=np.asarray(tracks) == 1,
        roots=np.flatnonzero(np.diff(tree, prepend=tree[0] - 1)),
        leaf=np.fromiter((place[pair] for pair in pairs), np.int64, len(attributes[f"{kind}_ids"])),
        target=np.asarray(attributes[f"{kind}_ids"], np.int64),
        weight=_number(attributes, f"{kind}_weights"),
        n_targets=n_targets,
    )


def _read_newer(attributes: Mapping[str, Any]) -> Nodes:
    """TreeEnsemble: inner nodes and leaves are numbered apart; leaves follow the inner nodes here."""
    modes = [_MODES[number] for number in np.asarray(attributes["nodes_modes"]).tolist()]
    if "BRANCH_MEMBER" in modes:
        raise ImportRefusedError("the mode BRANCH_MEMBER (membership_values) is not carried")
    inner, leaves = len(modes), len(attributes["leaf_targetids"])

    def child(branch: str) -> NDArray[np.int64]:
        ids = np.asarray(attributes[f"nodes_{branch}nodeids"], np.int64)
        at_leaf = np.asarray(attributes[f"nodes_{branch}leafs"]) == 1
        return np.concatenate([np.where(at_leaf, inner + ids, ids), np.zeros(leaves, np.int64)])

    def padded(values: Any, fill: Any) -> NDArray[Any]:
        array = np.asarray(values)
        return np.concatenate([array, np.full(leaves, fill, array.dtype)])

    roots = np.asarray(attributes["tree_roots"], np.int64)
    tracks = attributes.get("nodes_missing_value_tracks_true") or np.zeros(inner, np.int64)
    return Nodes(
        mode=np.array(modes + [LEAF] * leaves),
        feature=padded(attributes["nodes_featureids"], 0).astype(np.int64),
        threshold=padded(attributes["nodes_splits"], 0),
        true=child("true"),
        false=child("false"),
        missing_true=padded(tracks, 0) == 1,
        roots=roots,
        leaf=np.arange(inner, inner + leaves),
        target=np.asarray(attributes["leaf_targetids"], np.int64),
        weight=np.asarray(attributes["leaf_weights"]),
        n_targets=int(attributes["n_targets"]),
    )
