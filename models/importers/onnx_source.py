"""Takes tree ensembles of ONNX-ML apart: TreeEnsembleClassifier, TreeEnsembleRegressor, TreeEnsemble.

The answers are those of ONNX Runtime on one thread: it adds float32 (float64 where the rows are) in tree
order and then the base values. Comparisons are those of the nodes' modes; NaN takes the false branch unless
its node says otherwise (`tree_ensemble_common.h`, `tree_ensemble_aggregator.h`, 1.32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from models.bundle import Rows
from models.errors import ImportRefusedError
from models.importers.onnx_nodes import Nodes, read_attributes, read_ensemble
from models.importers.onnx_trees import equal_features, merge_chains, tree_of
from models.importers.source import Answer, Scores, Source, as_scores, numbered
from models.layout import LEVEL, MAX_FEATURES
from models.links import Link
from models.meta import BundleMeta

_ENSEMBLES: Final = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")
#: Operations that may stand behind the ensemble: they rename its answer, and change none of its numbers.
_RENAMING: Final = ("ZipMap", "Cast", "Identity")
#: Numbers of TreeEnsemble's attributes.
_AGGREGATES: Final = ("AVERAGE", "SUM", "MIN", "MAX")
_POST_TRANSFORMS: Final = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
#: TensorProto.FLOAT and .DOUBLE.
_DTYPES: Final[Mapping[int, Literal["float32", "float64"]]] = {1: "float32", 11: "float64"}
_TRANSFORMS: Final[Mapping[str, Link]] = {
    "NONE": "identity",
    "LOGISTIC": "logistic32",
    "SOFTMAX": "softmax32",
}


@dataclass(frozen=True)
class _Scores:
    """How sums become answers: their number, the link, and the names of the answers."""

    n_raw: int
    link: Link
    outputs: tuple[str, ...]
    column: int | None  # which of two answers the one sum is, or None for all of them


def take_apart(model: Any) -> Source:
    """Take an onnx ModelProto apart.

    Raises:
        ImportRefusedError: the graph holds anything else than one tree ensemble, or it has a mode, an
            aggregate or a transform that is not carried; names it.
    """
    if not hasattr(model, "graph"):
        raise ImportRefusedError(f"a {type(model).__name__} of onnx is not carried: a ModelProto is")
    node = _ensemble(model.graph)
    attributes = read_attributes(node)
    nodes = read_ensemble(node.op_type, attributes)
    n_features, dtype = _input(model.graph, node)
    if dtype == "float64":
        nodes = replace(nodes, threshold=nodes.threshold.astype(np.float64))
    equal = equal_features(nodes)
    classifier = node.op_type == "TreeEnsembleClassifier"
    scores = _scores(attributes, nodes, classifier=classifier)
    raw, predict = _answers(model, node, scores)
    base = np.asarray(attributes.get("base_values", attributes.get("base_values_as_tensor", ())), np.float64)
    if base.size not in (0, scores.n_raw) and not (base.size == 2 and scores.column is not None):  # noqa: PLR2004
        raise ImportRefusedError(f"its {base.size} base_values do not fit {scores.n_raw} sums")
    categories: list[int] = []
    merged, members = merge_chains(nodes)
    trees = [
        tree_of(merged, number, scores.n_raw, equal, members, categories) for number in range(nodes.count)
    ]
    rules = np.zeros(n_features, np.uint8)
    rules[list(equal)] = LEVEL
    meta = BundleMeta(
        task="classifier" if classifier else "regressor",
        library="onnx",
        library_version=_runtime().__version__,
        model_class=node.op_type,
        feature_names=numbered(n_features),
        outputs=scores.outputs,
        input_dtype=dtype,
        sum_dtype="float64_to_float32" if dtype == "float64" else "float32",
        link=scores.link,
        divisor=nodes.count
        if _named(attributes, "aggregate_function", _AGGREGATES, "SUM") == "AVERAGE"
        else 1,
        raw_divided=True,
        allows_missing=True,
        allows_infinite=True,
        n_raw=scores.n_raw,
        n_trees=nodes.count,
        n_nodes=1,  # counted when the trees are packed
    )
    return Source(
        meta,
        trees.__getitem__,
        raw=raw,
        predict=predict,
        categories=np.array(categories, np.uint32),
        rules=rules,
        offset=base[-scores.n_raw :] if base.size else None,
        levels=equal,
    )


def _runtime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 - only importing a model needs it
    except ImportError as error:
        raise ImportRefusedError(
            "an ONNX model is compared with ONNX Runtime: pip install onnxruntime"
        ) from error
    return onnxruntime


def _ensemble(graph: Any) -> Any:
    """Return the graph's only node of weight."""
    found = [node for node in graph.node if node.op_type in _ENSEMBLES]
    if len(found) != 1:
        raise ImportRefusedError(f"its graph holds {len(found)} tree ensembles; one is carried")
    if found[0].input[0] not in {value.name for value in graph.input}:
        raise ImportRefusedError("its graph does something to the rows before the trees see them")
    for node in graph.node:
        if node is not found[0] and node.op_type not in _RENAMING and not _times_one(graph, node):
            raise ImportRefusedError(f"the operation {node.op_type!r} behind its trees is not carried")
    return found[0]


def _times_one(graph: Any, node: Any) -> bool:
    """Say whether a node multiplies by the number one, as LightGBM's converter does."""
    import onnx  # noqa: PLC0415 - whoever has a graph has it

    ones = {
        value.name
        for value in graph.initializer
        if np.all(onnx.numpy_helper.to_array(value) == np.float32(1))
    }
    return node.op_type == "Mul" and bool(ones & set(node.input))


def _input(graph: Any, node: Any) -> tuple[int, Literal["float32", "float64"]]:
    """Return the number of features, as the graph says or as many as its trees name, and the rows' type."""
    value = next(value for value in graph.input if value.name == node.input[0])
    tensor = value.type.tensor_type
    dimensions = tensor.shape.dim
    width = int(dimensions[1].dim_value) if len(dimensions) > 1 else 0
    width = width or 1 + max(read_attributes(node)["nodes_featureids"])
    if width > MAX_FEATURES:
        raise ImportRefusedError(f"the model has {width} features, at most {MAX_FEATURES} are carried")
    if tensor.elem_type not in _DTYPES:
        raise ImportRefusedError("its rows are neither float nor double")
    return width, _DTYPES[tensor.elem_type]


def _scores(attributes: Mapping[str, Any], nodes: Nodes, *, classifier: bool) -> _Scores:
    transform = _transform(attributes)
    aggregate = _named(attributes, "aggregate_function", _AGGREGATES, "SUM")
    if aggregate not in {"SUM", "AVERAGE"}:
        raise ImportRefusedError(f"the aggregate_function {aggregate!r} is not carried: SUM and AVERAGE are")
    if not classifier:
        count = nodes.n_targets
        if transform != "NONE" and count == 1:
            raise ImportRefusedError(f"the post_transform {transform!r} of one target is not carried")
        names = ("value",) if count == 1 else tuple(f"value_{number}" for number in range(count))
        return _Scores(count, _TRANSFORMS[transform], names, None)
    found = attributes.get("classlabels_int64s") or attributes.get("classlabels_strings") or (0, 1)
    labels = tuple(label.decode() if isinstance(label, bytes) else str(label) for label in found)
    if len(labels) != 2 or len(set(nodes.target.tolist())) != 1:  # noqa: PLR2004 - the binary case
        return _Scores(len(labels), _TRANSFORMS[transform], labels, None)
    # One sum for two classes: the second one's share where all weights are positive, else it has a sign.
    if bool((nodes.weight >= 0).all()):
        link: Link = "pair"
        if transform != "NONE":
            raise ImportRefusedError(f"the post_transform {transform!r} of positive weights is not carried")
    else:
        link = "logistic_pair32" if transform == "LOGISTIC" else "mirror"
        if transform not in {"LOGISTIC", "NONE"}:
            raise ImportRefusedError(f"the post_transform {transform!r} of two classes is not carried")
    return _Scores(1, link, labels, 1)


def _transform(attributes: Mapping[str, Any]) -> str:
    name = _named(attributes, "post_transform", _POST_TRANSFORMS, "NONE")
    if name not in _TRANSFORMS:
        raise ImportRefusedError(f"the post_transform {name!r} is not carried: {', '.join(_TRANSFORMS)} are")
    return name


def _named(attributes: Mapping[str, Any], name: str, names: tuple[str, ...], default: str) -> str:
    """Return an attribute that older operators have as a text, and TreeEnsemble as a number."""
    found = attributes.get(name, default)
    return names[found] if isinstance(found, int) else str(found)


def _answers(model: Any, node: Any, scores: _Scores) -> tuple[Answer, Answer]:
    """Return ONNX Runtime's sums and answers, both from the ensemble's own output."""
    import onnx  # noqa: PLC0415 - whoever has a ModelProto has it

    def session(*, transform: bool) -> Any:
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        del bare.graph.node[:], bare.graph.output[:]
        kept = bare.graph.node.add()
        kept.CopyFrom(node)
        if not transform:
            for attribute in kept.attribute:
                if attribute.name == "post_transform":
                    attribute.CopyFrom(
                        onnx.helper.make_attribute(attribute.name, b"NONE" if attribute.s else 0)
                    )
        bare.graph.output.add().name = node.output[-1]
        runtime = _runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return runtime.InferenceSession(bare.SerializeToString(), options, providers=["CPUExecutionProvider"])

    plain, whole = session(transform=False), session(transform=True)
    name = node.input[0]

    def run(runner: Any, rows: Rows) -> NDArray[Any]:
        return np.asarray(runner.run(None, {name: rows})[0])

    def raw(rows: Rows) -> Scores:
        found = as_scores(run(plain, rows), rows)
        return found if scores.column is None else np.ascontiguousarray(found[:, scores.column :])

    def predict(rows: Rows) -> Scores:
        return as_scores(run(whole, rows), rows)

    return raw, predict
