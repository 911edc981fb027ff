"""The server for users' own tests says what it is told, over real sockets."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import pytest

from transport.client import (
    AsyncClient,
    Client,
    CodeFailedError,
    DeadlineExceededError,
    NodeFailedError,
    NoNodeError,
    NoScoreError,
    OverloadedError,
    ScorewireError,
    TransactionRefusedError,
    UnknownReleaseError,
)
from transport.client.testing import Later, Server, answer

#: Seconds for what must come; what must not come gets a tenth.
LONG_S = 20.0


def test_it_gives_the_scores_that_it_is_told_and_keeps_what_it_was_asked() -> None:
    with Server({"fraud": 0.25}) as server, Client(server.address, deadline=LONG_S) as client:
        first = client.score({"id": "7", "amount": 3})
        assert (first.id, first.score, first.decision) == ("7", 0.25, None)
        server.reply = answer({"fraud": 0.9}, id="x", outcome="decline", reasons=("high",), release=4)
        second = client.score({"id": "8"})
        assert second.decision is not None
        assert (second.decision.outcome, second.decision.reasons, second.trace.release) == (
            "decline",
            ("high",),
            4,
        )
        server.reply = lambda transaction: {"fraud": transaction["amount"] / 10}
        assert [client.score({"amount": amount}).score for amount in (1, 2)] == [0.1, 0.2]
        assert server.transactions[:2] == [{"id": "7", "amount": 3}, {"id": "8"}]
        server.reply = answer({}, outcome="review", fallback=True)
        with pytest.raises(NoScoreError):
            _ = client.score({}).score


@pytest.mark.parametrize(
    "error",
    [
        TransactionRefusedError("is missing", field="amount", rule="missing"),
        OverloadedError("full", retry_after=0.5),
        UnknownReleaseError("no release 9"),
        CodeFailedError("it raised", field="features", rule="exception"),
        NodeFailedError("three nodes failed"),
        ScorewireError("broken"),
    ],
)
def test_it_refuses_with_every_error(error: ScorewireError) -> None:
    with Server(error) as server, Client(server.address, deadline=LONG_S) as client:
        with pytest.raises(type(error)) as caught:
            client.score({"id": "1"})
        assert error.detail in caught.value.detail
        assert (caught.value.field, caught.value.rule) == (error.field, error.rule)

        def refuse(_: dict[str, Any]) -> dict[str, float]:
            raise error

        server.reply = refuse
        with pytest.raises(type(error)):
            client.score({"id": "1"})


def test_it_is_late_or_silent_when_told() -> None:
    with Server(Later(0.1, {"fraud": 0.5})) as server, Client(server.address, deadline=LONG_S) as client:
        begun = time.monotonic()
        assert client.score({}).score == 0.5
        assert time.monotonic() - begun >= 0.1
        server.reply = None
        with pytest.raises(DeadlineExceededError):
            client.score({}, deadline=0.2)
        server.reply = lambda transaction: Later(transaction["s"], {"s": transaction["s"]})
        answers = client.score_many([{"s": 0.2}, {"s": 0.0}, {"s": 0.1}])
        assert [one.score for one in answers if not isinstance(one, ScorewireError)] == [0.2, 0.0, 0.1]


def test_a_fault_in_the_tests_own_function_is_heard_of() -> None:
    with (
        Server(lambda transaction: {"fraud": transaction["amount"]}) as server,
        Client(server.address, deadline=LONG_S) as client,
        pytest.raises(ScorewireError, match="KeyError"),
    ):
        client.score({})


def test_clients_come_back_after_it_was_away() -> None:
    server = Server({"fraud": 0.5})
    with server, Client(server.address, deadline=LONG_S) as client:
        assert client.score({}).score == 0.5
        address = server.address
        server.stop()
        # Cut just before the client has noticed the loss, the request is on its way and nobody answers it.
        with pytest.raises((NoNodeError, DeadlineExceededError)):
            client.score({}, deadline=0.2)
        server.start()
        assert server.address == address
        assert client.score({}).score == 0.5
        server.start()  # twice is harmless
    server.stop()


def test_one_of_several_dies_and_another_leaves_and_no_call_fails() -> None:
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(Server({"by": by})) for by in (1.0, 2.0, 3.0))
        addresses = [server.address for server in (first, second, third)]
        client = stack.enter_context(Client(addresses, deadline=LONG_S))
        while {client.score({}).score for _ in range(20)} != {1.0, 2.0, 3.0}:
            pass
        first.stop()
        second.ready = False
        while client.inspect()["members"][second.address] == "ready":
            client.score({})
        assert {client.score({}).score for _ in range(20)} == {3.0}


def test_it_serves_asyncio_as_well() -> None:
    async def many(address: str) -> list[float]:
        async with AsyncClient(address, deadline=LONG_S) as client:
            found = client.score_many({"amount": n} for n in range(200))
            return [one.score async for one in found if not isinstance(one, ScorewireError)]

    with Server(lambda transaction: {"a": transaction["amount"]}) as server:
        assert asyncio.run(many(server.address)) == list(range(200))
