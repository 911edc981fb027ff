"""FastAPI with one engine: bodies are read and written by orjson, with no model of pydantic between."""

from __future__ import annotations

import json
import os

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response

from benchmarks.cases import Case
from benchmarks.peers import PEERS
from benchmarks.service.transactions import NAMES

_engine = os.environ["SERVICE_ENGINE"]
_scores = PEERS[_engine].load(Case(*json.loads(os.environ["SERVICE_CASE"])), "file")
_score = _scores.get("lightgbm C fast path") or _scores[_engine]
app = FastAPI(openapi_url=None)


@app.post("/score")
async def score(request: Request) -> Response:
    """Score one transaction."""
    transaction = orjson.loads(await request.body())
    row = np.array([[transaction[name] for name in NAMES]], np.float32)
    found = {"id": transaction["id"], "score": float(_score(row)[0])}
    return Response(orjson.dumps(found), media_type="application/json")
