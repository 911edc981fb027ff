"""A FastAPI service that asks Scorewire for each payment, with one client for the whole process.

pip install ./transport fastapi uvicorn
SCORING=tcp://127.0.0.1:7301,tcp://127.0.0.1:7302 uvicorn examples.clients.service:app --factory
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from scorewire_client import AsyncClient, OverloadedError, RefusedError, ScorewireError


def app(addresses: str | None = None) -> FastAPI:
    """Return the service.

    Args:
        addresses: the preprocessors; by default those that the variable SCORING names.
    """

    @asynccontextmanager
    async def scoring(service: FastAPI) -> AsyncIterator[None]:
        async with AsyncClient(addresses or os.environ["SCORING"], deadline=0.2) as client:
            service.state.client = client
            yield

    service = FastAPI(title="Payments", lifespan=scoring)
    service.add_exception_handler(ScorewireError, _told)

    @service.post("/payments")
    async def pay(payment: dict[str, Any], request: Request) -> dict[str, Any]:
        answer = await request.app.state.client.score(payment)
        return {
            "id": answer.id,
            "score": None if answer.fallback else answer.score,
            "decision": answer.decision and answer.decision.outcome,
            "release": answer.trace.release,
        }

    return service


def _told(_request: Request, error: Exception) -> JSONResponse:
    """Say what the caller of this service can do: mend the payment (422), or come again (503)."""
    if isinstance(error, RefusedError):
        return JSONResponse({"error": error.detail, "field": error.field, "rule": error.rule}, 422)
    wait_s = error.retry_after if isinstance(error, OverloadedError) else 0.0
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(max(1, round(wait_s)))})
