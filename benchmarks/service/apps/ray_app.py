"""Ray Serve with LightGBM's C function for single rows."""

from __future__ import annotations

import os
import signal

import lightgbm
import numpy as np
import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.lightgbm_calls import lightgbm_scores
from benchmarks.service.transactions import NAMES

_workers = int(os.environ["SERVICE_WORKERS"])


@serve.deployment(
    num_replicas=_workers,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0.1},
    logging_config={"enable_access_log": False, "log_level": "WARNING"},
)
class Forest:
    """The forest as a deployment."""

    def __init__(self) -> None:
        booster = lightgbm.Booster(model_file=os.environ["SERVICE_MODEL"])
        self._score = lightgbm_scores(booster)["lightgbm C fast path"]

    async def __call__(self, request: Request) -> Response:
        """Score one transaction."""
        transaction = orjson.loads(await request.body())
        row = np.array([[transaction[name] for name in NAMES]], np.float32)
        found = {"id": transaction["id"], "score": float(self._score(row)[0])}
        return Response(orjson.dumps(found), media_type="application/json")


def main() -> None:
    """Serve until a signal comes."""
    ray.init(num_cpus=_workers + 1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    options = {"host": "127.0.0.1", "port": int(os.environ["SERVICE_PORT"]), "location": "HeadOnly"}
    serve.start(http_options=options, logging_config=quiet)
    serve.run(Forest.bind(), route_prefix="/score")  # type: ignore[attr-defined]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
