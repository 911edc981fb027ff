"""The paths of a gateway, and who takes what is sent there."""

from __future__ import annotations

import re

from actors.config import GatewaySettings
from actors.gateway.app import Handler, Route
from actors.gateway.inference import Inference, describe_error
from actors.gateway.openapi import OpenApi
from actors.gateway.scoring import Scoring
from actors.gateway.upstream import Upstream
from actors.state import NodeState

_MODEL = r"/v2/models/([^/]+)(?:/versions/([^/]+))?"


def routes_of(state: NodeState, upstream: Upstream, limits: GatewaySettings) -> list[Route]:
    """Return all paths, those first that are asked for most.

    Args:
        state: what the node's actors share.
        upstream: whom to ask.
        limits: what requests may have.
    """
    scoring = Scoring(upstream, limits)
    inference, openapi = Inference(state, upstream, limits), OpenApi(state, limits)
    return [
        Route(re.compile("/v1/score"), {"POST": scoring.score}),
        Route(re.compile("/v1/score/batch"), {"POST": scoring.batch}),
        _protocol(f"{_MODEL}/infer", POST=inference.infer),
        _protocol("/v2/health/live", bounded=False, GET=inference.live),
        _protocol("/v2/health/ready", bounded=False, GET=inference.ready),
        _protocol(f"{_MODEL}/ready", bounded=False, GET=inference.model_ready),
        _protocol(_MODEL, GET=inference.model),
        _protocol("/v2/?", GET=inference.server),
        _protocol("/v2/.*"),
        Route(re.compile("/openapi[.]json"), {"GET": openapi.document}),
    ]


def _protocol(path: str, *, bounded: bool = True, **handlers: Handler) -> Route:
    return Route(re.compile(path), handlers, bounded=bounded, describe=describe_error)
