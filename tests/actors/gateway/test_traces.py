"""A trace that a caller over HTTP has begun: gateway, preprocessor and scorer add to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors.config import TracesSettings
from actors.traces import Traces
from tests.acceptance.collector import Collector
from tests.actors.gateway.conftest import GOOD, House

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def spans_of(build: Callable[..., House], collector: Collector, path: str, body: Any, flags: str) -> Any:
    traces = Traces(TracesSettings(endpoint=collector.endpoint), {"service.name": "test"})
    house = build(traces=traces)
    reply = house.ask("POST", path, body, {"traceparent": f"00-{TRACE}-{CALLER}-{flags}"})
    assert (reply.status, reply.headers["traceparent"]) == (200, f"00-{TRACE}-{CALLER}-{flags}")
    traces.close()
    return collector.of(TRACE)


def test_a_sampled_transaction_is_traced_from_the_gateway_on(build: Any, collector: Collector) -> None:
    spans = spans_of(build, collector, "/v1/score", {"transaction": GOOD}, "01")
    assert spans["scorewire.gateway"]["parent"] == CALLER
    assert spans["scorewire.preprocessor"]["parent"] == spans["scorewire.gateway"]["id"]
    assert spans["scorewire.scorer.score"]["parent"] == spans["scorewire.scorer"]["id"]


def test_a_sampled_tensor_is_traced_to_the_scorer(build: Any, collector: Collector) -> None:
    rows = {"name": "features", "shape": [2, 3], "datatype": "FP32", "data": [1, 2, 1, 3, 4, 0]}
    spans = spans_of(build, collector, "/v2/models/champion/infer", {"inputs": [rows]}, "01")
    assert spans["scorewire.scorer.score"]["parent"] == spans["scorewire.gateway"]["id"]


def test_what_is_not_sampled_is_not_traced(build: Any, collector: Collector) -> None:
    assert spans_of(build, collector, "/v1/score", {"transaction": GOOD}, "00") == {}
