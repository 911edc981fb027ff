"""The forests that are measured, and the same trees as each engine reads them, in a cache outside git."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FEATURES = 100
Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A random forest classifier, trained on noise until its trees are deep.

    Attributes:
        trees: how many there are.
        rows: training rows; the trees grow with them.
        leaves: of each tree at most; None lets them grow.
    """

    trees: int
    rows: int
    leaves: int | None = None

    @property
    def stem(self) -> Path:
        """The beginning of the names of its files."""
        directory = Path(os.environ.get("SCOREWIRE_CACHE", "~/.cache/scorewire")).expanduser() / "benchmarks"
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"noise-{self.trees}x{self.rows}{f'-{self.leaves}' if self.leaves else ''}"

    def file(self, suffix: str) -> Path:
        """Return a file of the case."""
        return self.stem.with_suffix(suffix)


#: The case of the issue: 250 trees of about 100,000 nodes; some minutes to train.
FULL = Case(250, 260_000)
#: A forest that is trained in seconds.
QUICK = Case(100, 20_000)
#: A small model, as most that are in use.
SMALL = Case(100, 20_000, 31)


def unseen_rows(count: int) -> Rows:
    """Return rows that the forest was not trained with."""
    return np.random.default_rng(1).standard_normal((count, FEATURES)).astype(np.float32)


def trained(case: Case) -> Any:
    """Return the forest, trained now if it never was."""
    import joblib  # noqa: PLC0415 - an engine's process loads only what it needs
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415

    file = case.file(".joblib")
    if file.exists():
        return joblib.load(file)
    random = np.random.default_rng(0)
    x = random.standard_normal((case.rows, FEATURES)).astype(np.float32)
    y = (x[:, :5].sum(1) + random.standard_normal(case.rows) * 4 > 0).astype(int)
    model = RandomForestClassifier(
        case.trees, max_features=2, max_leaf_nodes=case.leaves, n_jobs=-1, random_state=0
    ).fit(x, y)
    partial = file.with_name(f"partial-{file.name}")
    joblib.dump(model, partial)
    partial.rename(file)
    return model


def write_bundle(model: Any, path: Path) -> None:
    """Write our own."""
    from models.importers import import_model  # noqa: PLC0415

    import_model(model, path)


def write_lightgbm(model: Any, path: Path) -> None:
    """Write LightGBM's text: the same splits, and each leaf's share of the positive class."""
    with path.open("w") as file:
        names = " ".join(f"f{number}" for number in range(FEATURES))
        file.write(
            "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
            f"max_feature_idx={FEATURES - 1}\nobjective=regression\naverage_output\nfeature_names={names}\n"
            f"feature_infos={' '.join(['[-9:9]'] * FEATURES)}\n\n"
        )
        for number, estimator in enumerate(model.estimators_):
            file.write(_lightgbm_tree(number, estimator.tree_))
        file.write("end of trees\n")


def _lightgbm_tree(number: int, tree: Any) -> str:
    splits = tree.children_left >= 0
    place = np.where(splits, np.cumsum(splits) - 1, -np.cumsum(~splits))
    lines: dict[str, Any] = {
        "Tree": number,
        "num_leaves": int((~splits).sum()),
        "num_cat": 0,
        "split_feature": tree.feature[splits],
        "split_gain": np.zeros(int(splits.sum()), int),
        "threshold": [repr(float(t)) for t in tree.threshold[splits]],
        "decision_type": np.full(int(splits.sum()), 2),
        "left_child": place[tree.children_left[splits]],
        "right_child": place[tree.children_right[splits]],
        "leaf_value": [repr(float(v)) for v in tree.value[~splits, 0, 1]],
        "is_linear": 0,
        "shrinkage": 1,
    }
    text = (f"{k}={v if isinstance(v, int) else ' '.join(map(str, v))}" for k, v in lines.items())
    return "\n".join(text) + "\n\n\n"


def write_onnx(model: Any, path: Path) -> None:
    """Write an ONNX TreeEnsemble: thresholds rounded down to float32, so that `<=` decides alike."""
    import onnx  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    from models.importers.levels import round_down  # noqa: PLC0415

    parts: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("feature", "split", "true", "true_leaf", "false", "false_leaf", "weight")
    }
    roots, inner, leaves = [], 0, 0
    for estimator in model.estimators_:
        tree = estimator.tree_
        splits = tree.children_left >= 0
        place = np.where(splits, inner + np.cumsum(splits) - 1, leaves + np.cumsum(~splits) - 1)
        roots.append(inner)
        parts["feature"].append(tree.feature[splits])
        parts["split"].append(round_down(tree.threshold[splits]))
        for branch, children in (("true", tree.children_left), ("false", tree.children_right)):
            parts[branch].append(place[children[splits]])
            parts[f"{branch}_leaf"].append(~splits[children[splits]])
        parts["weight"].append(tree.value[~splits, 0, 1].astype(np.float32))
        inner, leaves = inner + int(splits.sum()), leaves + int((~splits).sum())
    whole = {name: np.concatenate(found) for name, found in parts.items()}
    node = helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["Y"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=0,
        post_transform=0,
        tree_roots=roots,
        nodes_modes=numpy_helper.from_array(np.zeros(inner, np.uint8), "modes"),
        nodes_splits=numpy_helper.from_array(whole["split"], "splits"),
        leaf_weights=numpy_helper.from_array(whole["weight"], "weights"),
    )
    lists = {
        "nodes_featureids": whole["feature"],
        "nodes_truenodeids": whole["true"],
        "nodes_trueleafs": whole["true_leaf"],
        "nodes_falsenodeids": whole["false"],
        "nodes_falseleafs": whole["false_leaf"],
        "leaf_targetids": np.zeros(leaves, np.int64),
    }
    for name, values in lists.items():
        attribute = node.attribute.add(name=name, type=onnx.AttributeProto.INTS)
        attribute.ints.extend(values.astype(np.int64).tolist())
    x = helper.make_tensor_value_info("X", onnx.TensorProto.FLOAT, [None, FEATURES])
    y = helper.make_tensor_value_info("Y", onnx.TensorProto.FLOAT, [None, 1])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 5)]
    graph = helper.make_graph([node], "forest", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)


def write_treelite(model: Any, path: Path) -> None:
    """Write Treelite's own form."""
    import treelite  # noqa: PLC0415

    treelite.sklearn.import_model(model).serialize(str(path))


#: What must be written before an engine can load the case.
WRITERS = {
    ".bundle": write_bundle,
    ".txt": write_lightgbm,
    ".onnx": write_onnx,
    ".treelite": write_treelite,
}


def prepare(case: Case, suffix: str) -> None:
    """Write a file of the case if it is not there or of an older format, whole or not at all."""
    file = case.file(suffix)
    if suffix == ".joblib":
        trained(case)
    elif not file.exists() or (suffix == ".bundle" and not _is_readable(file)):
        partial = file.with_name(f"partial-{file.name}")
        WRITERS[suffix](trained(case), partial)
        partial.rename(file)


def _is_readable(file: Path) -> bool:
    from models.bundle import open_bundle  # noqa: PLC0415
    from models.errors import BundleError  # noqa: PLC0415

    try:
        open_bundle(file)
    except BundleError:
        return False
    return True
