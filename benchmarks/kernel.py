"""Kernel: microseconds a row beside scikit-learn's and LightGBM's own, on the same forest, in one run.

    python -m benchmarks.kernel [--json] [--trees 100] [--rows 20000] [--case]

A random forest is trained on noise until its trees are deep (--case: 250 trees of about 100,000 nodes, some
minutes; kept in the cache, outside the checkout). LightGBM is given the very same trees as a text model. All
score distinct rows that they have never seen, one thread each, one row a call from Python, in turns; the
figures are medians over the turns, with the 99th percentile of single calls. The last lines are batches.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from models.bundle import open_bundle
from models.forest import Forest
from models.importers import import_model

FEATURES = 100
TURNS = 5
Rows = NDArray[np.float32]
Score = Callable[[Rows], Any]


def cached(trees: int, rows: int) -> tuple[RandomForestClassifier, Path]:
    """Return a trained forest, and where its files are kept."""
    directory = Path(os.environ.get("SCOREWIRE_CACHE", "~/.cache/scorewire")).expanduser() / "benchmarks"
    directory.mkdir(parents=True, exist_ok=True)
    stem = directory / f"noise-{trees}x{rows}"
    file = stem.with_suffix(".joblib")
    if file.exists():
        return joblib.load(file), stem
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, FEATURES)).astype(np.float32)
    y = (x[:, :5].sum(1) + random.standard_normal(rows) * 4 > 0).astype(int)
    model = RandomForestClassifier(trees, max_features=2, n_jobs=-1, random_state=0).fit(x, y)
    joblib.dump(model, file)
    return model, stem


def lightgbm_text(model: RandomForestClassifier) -> str:
    """Write the trees as a LightGBM model: the same splits, and each leaf's share of the positive class."""
    blocks = []
    for number, estimator in enumerate(model.estimators_):
        tree = estimator.tree_
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
        blocks.append("\n".join(text) + "\n\n\n")
    names = " ".join(f"f{number}" for number in range(FEATURES))
    head = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={FEATURES - 1}\nobjective=regression\naverage_output\nfeature_names={names}\n"
        f"feature_infos={' '.join(['[-9:9]'] * FEATURES)}\n"
        f"tree_sizes={' '.join(str(len(block)) for block in blocks)}\n\n"
    )
    return head + "".join(blocks) + "end of trees\n"


def single_row_fast(booster: lightgbm.Booster) -> Score:
    """Return LightGBM's fastest way for one row: its C function with the set-up done once."""
    library, handle = lightgbm.basic._LIB, ctypes.c_void_p()  # noqa: SLF001 - Python does not offer it
    lightgbm.basic._safe_call(  # noqa: SLF001
        library.LGBM_BoosterPredictForMatSingleRowFastInit(
            booster._handle,  # noqa: SLF001
            ctypes.c_int(0),
            ctypes.c_int(0),
            ctypes.c_int(-1),
            ctypes.c_int(0),  # float32
            ctypes.c_int(FEATURES),
            ctypes.c_char_p(b"num_threads=1"),
            ctypes.byref(handle),
        )
    )
    out, length = (ctypes.c_double * 1)(), ctypes.c_int64()

    def score(x: Rows) -> float:
        library.LGBM_BoosterPredictForMatSingleRowFast(
            handle, ctypes.c_void_p(x.ctypes.data), ctypes.byref(length), out
        )
        return out[0]

    return score


def measure(scorers: dict[str, tuple[Score, int, int]], x: Rows) -> dict[str, dict[str, float]]:
    """Time each scorer in turns over other rows each time: (score, rows a call, calls a turn)."""
    times: dict[str, list[NDArray[np.float64]]] = {name: [] for name in scorers}
    for turn in range(TURNS):
        for name, (score, batch, calls) in scorers.items():
            taken = np.empty(calls)
            for call in range(calls):
                start = ((turn * calls + call) * batch) % (len(x) - batch + 1)
                rows = x[start : start + batch]
                began = time.perf_counter_ns()
                score(rows)
                taken[call] = time.perf_counter_ns() - began
            times[name].append(taken / batch / 1e3)
    return {
        name: {
            "us_a_row": round(float(np.median([np.median(turn) for turn in turns])), 2),
            "p99_us": round(float(np.quantile(np.concatenate(turns), 0.99)), 2),
        }
        for name, turns in times.items()
    }


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000, help="training rows; the trees grow with them")
    parser.add_argument("--case", action="store_true", help="250 trees of about 100,000 nodes")
    arguments = parser.parse_args()
    trees, rows = (250, 260_000) if arguments.case else (arguments.trees, arguments.rows)
    model, stem = cached(trees, rows)
    model.set_params(n_jobs=1)
    bundle_file, text_file = stem.with_suffix(".bundle"), stem.with_suffix(".txt")
    if not bundle_file.exists():
        import_model(model, bundle_file)
    if not text_file.exists():
        text_file.write_text(lightgbm_text(model))
    began = time.perf_counter()
    bundle = open_bundle(bundle_file)
    forest = Forest(bundle)
    first = np.random.default_rng(1).standard_normal((30_000, FEATURES)).astype(np.float32)
    forest.predict(first[:1])
    load_s = time.perf_counter() - began
    booster = lightgbm.Booster(model_file=str(text_file))
    exact = np.array_equal(forest.predict(first[:2000]), model.predict_proba(first[:2000]))
    calls = {"ours": 2000, "slow": 60, "theirs": 300}
    results = measure(
        {
            "scorewire, one row": (forest.predict, 1, calls["ours"]),
            "scikit-learn, one row": (model.predict_proba, 1, calls["slow"]),
            "LightGBM predict, one row": (lambda x: booster.predict(x, num_threads=1), 1, calls["theirs"]),
            "LightGBM C fast path, one row": (single_row_fast(booster), 1, calls["theirs"]),
            "scorewire, 64 rows": (forest.predict, 64, 100),
            "scikit-learn, 64 rows": (model.predict_proba, 64, 10),
            "scorewire, 3000 rows": (forest.predict, 3000, 3),
            "scikit-learn, 3000 rows": (model.predict_proba, 3000, 2),
        },
        first,
    )
    nodes = sum(estimator.tree_.node_count for estimator in model.estimators_)
    facts = {
        "trees": trees,
        "nodes": nodes,
        "exact": bool(exact),
        "bundle_mb": round(bundle.size / 1e6, 1),
        "scikit_learn_mb": round(nodes * 80 / 1e6, 1),  # 64 bytes a node and two float64 values
        "load_s": round(load_s, 3),
        "results": results,
    }
    if arguments.json:
        print(json.dumps(facts))
        return
    sizes = f"bundle {facts['bundle_mb']} MB, in scikit-learn {facts['scikit_learn_mb']} MB"
    print(f"{trees} trees, {nodes:,} nodes; {sizes}")
    print(f"open, check and first score: {load_s:.3f} s; scores equal scikit-learn's to the bit: {exact}")
    ours = results["scorewire, one row"]["us_a_row"]
    for name, row in results.items():
        ratio = row["us_a_row"] / ours
        print(f"{name:32} {row['us_a_row']:>10} us a row   p99 {row['p99_us']:>10}   x {ratio:.1f}")


if __name__ == "__main__":
    main()
