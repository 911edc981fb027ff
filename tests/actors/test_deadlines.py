"""Deadlines on the way: each hop passes on what is left, and late work is dropped and counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from actors.serving import RefreshPeers
from actors.state import Holdings
from tests.actors.test_serving import LIMIT_S, Context, Small, wait_until
from tests.actors.test_swaps import bundles, release
from transport.client import DeadlineExceededError, wire
from transport.client.wire import Kind

__all__ = ["bundles"]


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


class DeafScorer:
    """Answers beats, and notes what is left of the requests that it never answers."""

    def __init__(self, context: Context) -> None:
        self.budgets_us: list[int] = []
        self._socket = context.socket(zmq.ROUTER)
        self._socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        pong = wire.pack_body({"state": "ready"})
        while not self._over.is_set():
            if not self._socket.poll(20):
                continue
            caller, frame = self._socket.recv_multipart()
            header = wire.unpack_header(frame)
            if header.kind is Kind.PING:
                self._socket.send_multipart([caller, wire.pack_header(Kind.PONG, 0) + pong])
            else:
                self.budgets_us.append(header.number)
        self._socket.close(0)

    def close(self) -> None:
        self._over.set()
        self._thread.join(LIMIT_S)


def test_a_scorer_is_told_what_is_left_and_the_caller_hears_on_time(
    context: Context, bundles: list[Path]
) -> None:
    small = Small(context, release(bundles[0], 1))
    deaf = DeafScorer(context)
    try:
        small.client.score({"id": 1, "a": 1.0})
        small.state.scorers = (deaf.endpoint,)
        small.refs["p"].tell(RefreshPeers())
        small.scorers[0].holdings = Holdings()  # it serves no more, and is let go
        wait_until(lambda: small.asked_by("p") == {deaf.endpoint: "ready"})
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            small.client.score({"id": 2, "a": 1.0}, deadline=0.6)
        taken = time.monotonic() - began
        assert 0.59 < taken < 5
        wait_until(lambda: deaf.budgets_us)
        assert all(0 < budget_us <= 600_000 for budget_us in deaf.budgets_us)
        wait_until(lambda: small.state.counters["p"]()["scorers.expired"] == 1)
    finally:
        deaf.close()
        small.close()


def test_what_is_late_at_a_scorer_is_dropped_and_counted(context: Context, bundles: list[Path]) -> None:
    small = Small(context, release(bundles[0], 1))
    body = wire.pack_body({"release": 1, "vector": bytes(8)})
    try:
        with context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(small.scorers[0].endpoints["s0"])
            for number in range(20):
                socket.send(wire.pack_header(Kind.VECTOR, number, 0) + body)
            socket.send(wire.pack_header(Kind.VECTOR, 99, 10**7) + body)
            assert socket.poll(LIMIT_S * 1000)
            assert wire.unpack_header(socket.recv()).id == 99
        assert small.scorers[0].counters["s0"]()["late"] == 20
    finally:
        small.close()
