"""A small model, of which a call is mostly what surrounds the trees: how much of it that is."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import FEATURES, unseen_rows
from benchmarks.engine import time_calls
from benchmarks.lightgbm_calls import Score, lightgbm_scores
from models.bundle import open_bundle
from models.forest import Forest
from models.importers import import_model

TREES, LEAVES = 100, 31
_TURNS, _CALLS = 5, 4000
_ROWS = unseen_rows(_CALLS)


def _train(trees: int, features: int) -> Any:
    import lightgbm  # noqa: PLC0415 - what needs no training loads without it

    random = np.random.default_rng(0)
    x = random.standard_normal((20_000, features))
    y = x[:, :5].sum(1) + random.standard_normal(len(x)) > 0
    settings = {"objective": "binary", "num_leaves": LEAVES, "verbose": -1}
    return lightgbm.train(settings, lightgbm.Dataset(x, y), trees)


def small() -> dict[str, Any]:
    """Return microseconds of one call with one row: ours, LightGBM's, and what is overhead of ours.

    Overhead is what a call takes with one tree of one feature.
    """
    scores: dict[str, Score] = {}
    rows = {"overhead": _ROWS[:, :1].copy()}
    with tempfile.TemporaryDirectory() as directory:
        for name, trees, features in (("scorewire", TREES, FEATURES), ("overhead", 1, 1)):
            booster = _train(trees, features)
            import_model(booster, Path(directory) / name)
            scores[name] = Forest(open_bundle(Path(directory) / name)).predict
            if name == "scorewire":
                scores |= lightgbm_scores(booster)
        taken: dict[str, list[float]] = {name: [] for name in scores}
        for _ in range(_TURNS):
            for name, score in scores.items():
                x = rows.get(name, _ROWS)
                taken[name].append(float(np.median(time_calls(score, x, 1, _CALLS, 0))))
    found = {name: round(float(np.median(medians)), 2) for name, medians in taken.items()}
    return {"trees": TREES, "leaves": LEAVES, **found}
