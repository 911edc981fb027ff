"""BentoML with LightGBM's C function for single rows."""

from __future__ import annotations

import os
from typing import Any

import bentoml
import lightgbm
import numpy as np

from benchmarks.lightgbm_calls import lightgbm_scores
from benchmarks.service.transactions import NAMES


@bentoml.service(
    workers=int(os.environ["SERVICE_WORKERS"]),
    traffic={"timeout": 10},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Forest:
    """The forest as a service."""

    def __init__(self) -> None:
        booster = lightgbm.Booster(model_file=os.environ["SERVICE_MODEL"])
        self._score = lightgbm_scores(booster)["lightgbm C fast path"]

    @bentoml.api(route="/score")  # type: ignore[untyped-decorator]
    async def score(self, transaction: dict[str, Any]) -> dict[str, Any]:
        """Score one transaction."""
        row = np.array([[transaction[name] for name in NAMES]], np.float32)
        return {"id": transaction["id"], "score": float(self._score(row)[0])}
