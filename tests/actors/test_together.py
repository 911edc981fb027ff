"""Vectors that share a message: each is answered as if it had come alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zmq

from actors.state import Loaded
from tests.actors.test_serving import (
    LIMIT_S,
    Context,
    Fussy,
    Small,
    ask_scorer,
    context,
    forest_of,
    hold,
    loaded,
    small,
    two_scores,
)
from transport.client import Answer, wire
from transport.client.wire import Kind

Make = Callable[..., Small]
#: Fixtures of that module, known here by being named here.
__all__ = ["context", "loaded", "small", "two_scores"]


def rows_of(*rows: tuple[float, float]) -> dict[str, Any]:
    return {"release": 1, "rows": len(rows), "vector": np.array(rows, "<f4").tobytes()}


def test_each_row_of_a_message_has_the_score_that_it_has_alone(small: Make, context: Context) -> None:
    running = small()
    rows = [(i / 7 - 1, -i / 3) for i in range(17)]
    body = wire.unpack_body(ask_scorer(running, context, rows_of(*rows)))
    alone = [wire.unpack_body(ask_scorer(running, context, rows_of(row) | {"rows": None})) for row in rows]
    assert body["scores"] == [one["scores"] for one in alone]
    assert set(body) == {"scores", "node", "kernel_us"}


def test_rows_of_several_vectors_each_share_a_message(
    small: Make, context: Context, two_scores: Loaded
) -> None:
    running = small(two_scores)
    ab, c = np.array([[1, 2], [3, 4], [-5, 6]], "<f4"), np.array([[0.5], [-0.5], [0]], "<f4")
    vectors = {"features": ab.tobytes(), "features:ltv": c.tobytes()}
    body = wire.unpack_body(ask_scorer(running, context, {"release": 1, "rows": 3, "vectors": vectors}))
    expected = forest_of(two_scores).predict(ab)[:, 1]
    assert [one["True"] for one in body["scores"]] == expected.tolist()
    assert {len(one) for one in body["scores"]} == {3}


def test_a_row_at_fault_is_refused_by_its_place_and_those_beside_it_are_scored(
    small: Make, context: Context
) -> None:
    running = small()
    body = wire.unpack_body(ask_scorer(running, context, rows_of((1, 0), (2, np.inf), (3, 0))))
    assert [one is None for one in body["scores"]] == [False, True, False]
    ((place, error),) = body["errors"]
    assert (place, error["code"], error["field"], error["rule"]) == (1, "bad_transaction", "b", "infinite")


@pytest.mark.parametrize(
    ("body", "code", "field", "rule"),
    [
        ({**rows_of((1, 2), (3, 4)), "release": 9}, "unknown_release", "", ""),
        ({**rows_of((1, 2)), "vector": bytes(24), "rows": 2}, "protocol", "vector", "length"),
        ({**rows_of((1, 2)), "rows": 3}, "protocol", "rows", "length"),
        ({**rows_of((1, 2)), "rows": 0}, "protocol", "rows", "range"),
        ({**rows_of((1, 2)), "rows": 1 << 40}, "protocol", "rows", "range"),
        ({**rows_of((1, 2)), "rows": "2"}, "protocol", "rows", "range"),
    ],
)
def test_what_is_wrong_with_all_rows_is_said_of_the_message(
    small: Make, context: Context, body: dict[str, Any], code: str, field: str, rule: str
) -> None:
    running = small()
    error = wire.unpack_error(ask_scorer(running, context, body))
    assert (error.code, error.field, error.rule) == (code, field, rule)


def test_a_row_on_which_an_actor_raises_fails_alone(small: Make, context: Context, loaded: Loaded) -> None:
    running = small()
    before = running.refs["s0"]
    hold(running.scorers[0], loaded, Fussy(forest_of(loaded)))
    body = wire.unpack_body(ask_scorer(running, context, rows_of((1, 0), (666, 0), (3, 0))))
    assert [one is None for one in body["scores"]] == [False, True, False]
    assert body["errors"][0][1]["code"] == "internal"
    assert running.refs["s0"] is before


def test_a_row_that_failed_among_others_is_asked_for_again_alone(small: Make, loaded: Loaded) -> None:
    running = small()
    hold(running.scorers[0], loaded, Fussy(forest_of(loaded), times=2))
    # They are sent at once, so that some share a message.
    results = list(running.client.score_many([{"id": i, "a": 666 if i == 30 else 1} for i in range(60)]))
    assert [result.id for result in results if isinstance(result, Answer)] == [str(i) for i in range(60)]


def test_a_preprocessor_sends_what_is_at_hand_together_and_each_caller_has_its_own_answer(
    small: Make, context: Context, loaded: Loaded
) -> None:
    running = small()
    a = np.random.default_rng(4).standard_normal(200).astype("<f4")
    expected = forest_of(loaded).predict(np.stack([a, np.zeros_like(a)], axis=1))[:, 1]
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(running.preprocessors[0].endpoints["p"])
        for number, value in enumerate(a.tolist()):
            # Budgets differ, and each tenth transaction is at fault, before its scorer or at it.
            b = {3: "text", 7: 1e308}.get(number % 10, 0.0)
            body = wire.pack_transaction({"id": number, "a": value, "b": b})
            budget_us = int(1e6 * (LIMIT_S / 2 if number % 2 else LIMIT_S))
            socket.send(wire.pack_header(Kind.SCORE, number, budget_us) + body)
        frames = {}
        for _ in range(len(a)):
            assert socket.poll(LIMIT_S * 1000)
            frame = socket.recv()
            frames[wire.unpack_header(frame).id] = frame
    for number, frame in frames.items():
        if number % 10 in (3, 7):
            error = wire.unpack_error(frame)
            assert (error.code, error.field) == ("bad_transaction", "b")
        else:
            told = wire.unpack_body(frame)
            assert (told["id"], told["scores"]["True"]) == (str(number), expected[number])
    counted = running.refs["p"].proxy().counters().get()
    assert counted["scorers.sent"] < 160
    assert isinstance(running.client.score({"a": 1}), Answer)
