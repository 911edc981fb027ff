"""The engines that score the same trees: how each is loaded, and asked for the share of the positive class.

Left out: YDF, whose importer takes seconds a tree and rounds thresholds, so that some rows change sides;
everything that compiles a tree to machine code (lleaves, tl2cgen, m2cgen), which takes minutes for one
tree of this size; XGBoost, which has no way to read them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import FEATURES, Case, Rows
from benchmarks.lightgbm_calls import Score, lightgbm_scores
from models.bundle import Bundle, open_bundle

#: A file system in memory.
_MEMORY: Final = Path("/dev/shm")


@dataclass(frozen=True)
class Peer:
    """An engine.

    Attributes:
        suffix: the file that it loads.
        load: loads it and returns its scoring functions: name of a column of the table to function.
    """

    suffix: str
    load: Callable[[Case, str], dict[str, Score]]


def open_case(case: Case, pages: str) -> Bundle:
    """Open the case's bundle: as the file lies, surely in 4 KiB pages, or in huge ones."""
    path = case.file(".bundle")
    if pages == "4k" and _MEMORY.is_dir():
        # Some file systems map large files in huge pages by themselves; this one does not.
        with tempfile.NamedTemporaryFile(dir=_MEMORY, prefix="scorewire-benchmark-") as file:
            shutil.copyfile(path, file.name)
            return open_bundle(Path(file.name))
    return open_bundle(path, pages="huge" if pages == "huge" else "shared")


def load_scorewire(case: Case, pages: str) -> dict[str, Score]:
    """Ours: from the mapped file, or in huge pages."""
    from models.forest import Forest  # noqa: PLC0415 - each engine's process loads its own library alone

    forest = Forest(open_case(case, pages))
    return {"scorewire": lambda x: forest.predict(x)[:, 1]}


def load_sklearn(case: Case, pages: str) -> dict[str, Score]:  # noqa: ARG001 - huge pages come by environment
    """scikit-learn, one thread."""
    import joblib  # noqa: PLC0415

    model = joblib.load(case.file(".joblib"))
    model.set_params(n_jobs=1)
    return {"scikit-learn": lambda x: np.asarray(model.predict_proba(x)[:, 1])}


def load_lightgbm(case: Case, pages: str) -> dict[str, Score]:  # noqa: ARG001
    """LightGBM, one thread."""
    import lightgbm  # noqa: PLC0415

    return lightgbm_scores(lightgbm.Booster(model_file=str(case.file(".txt"))))


def load_onnxruntime(case: Case, pages: str) -> dict[str, Score]:  # noqa: ARG001
    """ONNX Runtime, one thread."""
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = str(case.file(".onnx"))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return {"onnxruntime": lambda x: np.asarray(session.run(None, {"X": x})[0][:, 0])}


def load_treelite(case: Case, pages: str) -> dict[str, Score]:  # noqa: ARG001
    """Treelite's general tree inference, one thread."""
    import treelite  # noqa: PLC0415

    model = treelite.Model.deserialize(str(case.file(".treelite")))

    def score(x: Rows) -> NDArray[Any]:
        return np.asarray(treelite.gtil.predict(model, x, nthread=1)).reshape(len(x), -1)[:, -1]

    return {"treelite": score}


def load_daal4py(case: Case, pages: str) -> dict[str, Score]:  # noqa: ARG001
    """oneDAL, through its builder of regression trees; it adds, so leaves are divided first."""
    import daal4py  # noqa: PLC0415
    import joblib  # noqa: PLC0415

    from models.importers.levels import round_down  # noqa: PLC0415

    daal4py.daalinit(1)
    forest = joblib.load(case.file(".joblib"))
    builder = daal4py.gbt_reg_model_builder(n_features=FEATURES, n_iterations=len(forest.estimators_))
    for estimator in forest.estimators_:
        tree = estimator.tree_
        number = builder.create_tree(tree.node_count)
        left, right = tree.children_left.tolist(), tree.children_right.tolist()
        feature = tree.feature.tolist()
        # A row goes left where x < t there: t is the float32 above.
        above = np.nextafter(round_down(tree.threshold), np.float32(np.inf)).tolist()
        share = (tree.value[:, 0, 1] / len(forest.estimators_)).tolist()
        stack: list[tuple[int, dict[str, int]]] = [(0, {})]
        while stack:
            node, place = stack.pop()
            if left[node] < 0:
                builder.add_leaf(tree_id=number, response=share[node], cover=0.0, **place)
                continue
            own = builder.add_split(
                tree_id=number,
                feature_index=feature[node],
                feature_value=above[node],
                default_left=0,
                cover=0.0,
                **place,
            )
            stack += [
                (child[node], {"parent_id": own, "position": position})
                for position, child in ((1, right), (0, left))
            ]
    del forest, estimator, tree, left, right, feature, above, share
    model = builder.model(0.0)
    predictors: dict[int, Any] = {}

    def score(x: Rows) -> NDArray[Any]:
        # One object serves one number of rows.
        if len(x) not in predictors:
            predictors[len(x)] = daal4py.gbt_regression_prediction(fptype="float")
        return np.asarray(predictors[len(x)].compute(x, model).prediction)[:, 0]

    return {"daal4py": score}


PEERS = {
    "scorewire": Peer(".bundle", load_scorewire),
    "scikit-learn": Peer(".joblib", load_sklearn),
    "lightgbm": Peer(".txt", load_lightgbm),
    "onnxruntime": Peer(".onnx", load_onnxruntime),
    "treelite": Peer(".treelite", load_treelite),
    "daal4py": Peer(".joblib", load_daal4py),
}
