"""The golden messages that clients in other languages are written by are those of this code, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from transport.client import wire
from transport.client.answer import Answer, Decision, Trace, pack_answer, unpack_answer
from transport.client.errors import OverloadedError, ScorewireError, TransactionRefusedError
from transport.client.wire import Kind

GOLDEN = json.loads(Path(__file__).with_name("wire_vectors.json").read_text(encoding="utf-8"))
MESSAGES = {one["name"]: one for one in GOLDEN["messages"]}


def plain(value: Any) -> Any:
    """Return a value with its bytes, which JSON writes as {"$hex": ...}."""
    if isinstance(value, dict):
        if set(value) == {"$hex"}:
            return bytes.fromhex(value["$hex"])
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


def frame(name: str) -> bytes:
    return bytes.fromhex(MESSAGES[name]["hex"])


@pytest.mark.parametrize("name", MESSAGES)
def test_a_golden_message_is_packed_and_unpacked_to_the_byte(name: str) -> None:
    message, raw = MESSAGES[name], frame(name)
    kind, number, id_, body = (
        Kind[message["kind"].upper()],
        message["number"],
        int(message["id"]),
        plain(message["body"]),
    )
    assert wire.pack_header(kind, id_, number) + wire.pack_body(body) == raw
    assert tuple(wire.unpack_header(raw)) == (kind, number, id_)
    assert wire.unpack_body(raw) == body
    assert list(wire.unpack_body(raw)) == list(body)


@pytest.mark.parametrize("refused", GOLDEN["refused"], ids=lambda one: one["meaning"])
def test_what_cannot_be_read_is_refused_by_its_rule_and_number(refused: dict[str, str]) -> None:
    raw = bytes.fromhex(refused["hex"])
    with pytest.raises(wire.UnreadableError) as caught:
        wire.unpack_header(raw) and wire.unpack_body(raw)
    assert (caught.value.rule, str(caught.value.id)) == (refused["rule"], refused["id"])


def test_the_client_makes_these_very_bodies() -> None:
    for name in ("score", "score_types", "score_release", "score_replay", "score_traceparent"):
        body = plain(MESSAGES[name]["body"])
        replay, trace = "priority" in body, body.get("traceparent", "")
        packed = wire.pack_transaction(
            body["transaction"], body.get("release"), replay=replay, traceparent=trace
        )
        assert packed == frame(name)[16:]
    assert wire.is_replay(frame("score_replay"))
    assert not wire.is_replay(frame("score"))


def test_answers_and_errors_are_read_as_they_are_meant() -> None:
    told = MESSAGES["answer"]["body"]
    names = ("release", "environment", "pipeline", "nodes", "us")
    trace = Trace(**{name: told[name] for name in names})
    answer = Answer("42", told["scores"], trace, Decision("decline", ("high_score",)))
    assert unpack_answer(frame("answer")) == answer
    assert unpack_answer(frame("answer")).score == 0.75
    for name in ("answer", "answer_plain", "answer_fallback"):
        assert pack_answer(unpack_answer(frame(name))) == frame(name)[16:]
    assert unpack_answer(frame("answer_plain")).trace.stale_s == 7.5
    assert unpack_answer(frame("answer_fallback")).fallback
    expected = {
        "error": TransactionRefusedError,
        "error_overloaded": OverloadedError,
        "error_code": ScorewireError,
    }
    for name, kind in expected.items():
        error = wire.unpack_error(frame(name))
        assert type(error) is kind
        if name != "error_code":
            assert wire.pack_error(error) == frame(name)[16:]
    overloaded = wire.unpack_error(frame("error_overloaded"))
    assert isinstance(overloaded, OverloadedError)
    assert overloaded.retry_after == 0.05
