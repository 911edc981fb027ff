"""The wire format: every message comes back as it was sent; junk raises the named error alone."""

from __future__ import annotations

import contextlib
import re
import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.client import wire
from transport.client.answer import Answer, Trace, pack_answer, read_answer, unpack_answer
from transport.client.errors import (
    ProtocolError,
    RefusedError,
    ScorewireError,
    TooLargeError,
    TransactionRefusedError,
    error_from_wire,
)
from transport.client.wire import Kind

ROOT = Path(__file__).parents[2]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=50)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=10,
)


@given(st.sampled_from(list(Kind)), st.integers(0, 2**64 - 1), st.integers(0, 2**40))
def test_a_header_comes_back_with_its_budget_cut_to_what_fits(kind: Kind, id_: int, budget: int) -> None:
    header = wire.unpack_header(wire.pack_header(kind, id_, budget))
    assert header == (kind, min(budget, 2**32 - 1), id_)


@given(st.dictionaries(st.text(), values, max_size=8), st.none() | st.integers(0, 2**31))
def test_a_transaction_comes_back(transaction: dict[str, Any], release: int | None) -> None:
    body = wire.unpack_body(wire.pack_header(Kind.SCORE, 1) + wire.pack_transaction(transaction, release))
    assert body["transaction"] == transaction
    assert body.get("release") == release


@given(st.text(), st.dictionaries(st.text(), st.floats(allow_nan=False)), st.integers(0, 2**31))
def test_an_answer_comes_back_to_the_bit(id_: str, scores: dict[str, float], release: int) -> None:
    stale_s = None if release % 2 else 7.5
    trace = Trace(release, "production", {"model": "ab"}, {"scorer": "s"}, {"total": 12}, stale_s)
    answer = Answer(id_, scores, trace)
    frame = wire.pack_header(Kind.ANSWER, 1) + pack_answer(answer)
    assert ("stale_s" in wire.unpack_body(frame)) == (stale_s is not None)
    assert unpack_answer(frame) == answer
    assert read_answer(frame) == answer.to_dict()


@given(st.binary(max_size=200))
def test_random_bytes_raise_the_named_error_alone(data: bytes) -> None:
    for frame in (data, wire.pack_header(Kind.SCORE, 7) + data):
        with contextlib.suppress(wire.UnreadableError):
            wire.unpack_header(frame)
            wire.unpack_body(frame)


def test_a_body_that_is_deep_extended_or_no_map_is_refused_by_number() -> None:
    header = wire.pack_header(Kind.SCORE, 99)
    for body in (
        b"\x91" * 5000 + b"\x01",
        msgpack.packb([1, 2]),
        msgpack.packb({"a": msgpack.ExtType(5, b"x")}),
        msgpack.packb({1: 2}),
        msgpack.packb({"a": 1}) + b"\x00",
        b"\xc1",
        b"",
    ):
        with pytest.raises(wire.UnreadableError) as caught:
            wire.unpack_body(header + body)
        assert caught.value.id == 99


def test_what_cannot_be_carried_is_named_by_its_field() -> None:
    for value in (object(), 2**70, {1, 2}, 1j):
        with pytest.raises(TransactionRefusedError, match="'bad'") as caught:
            wire.pack_transaction({"good": 1, "bad": value})
        assert (caught.value.field, caught.value.rule) == ("bad", "type")
    with pytest.raises(TransactionRefusedError, match="list"):
        wire.pack_transaction([object()])  # type: ignore[arg-type]
    with pytest.raises(TooLargeError, match=str(wire.MAX_MESSAGE_BYTES)):
        wire.pack_transaction({"a": "x" * wire.MAX_MESSAGE_BYTES})


def test_an_error_comes_back_as_its_class_with_field_and_rule() -> None:
    error = TransactionRefusedError("no", field="amount", rule="missing")
    back = wire.unpack_error(wire.pack_header(Kind.ERROR, 1) + wire.pack_error(error))
    assert type(back) is TransactionRefusedError
    assert isinstance(back, RefusedError)
    assert (back.detail, back.field, back.rule) == ("no", "amount", "missing")
    unknown = error_from_wire("from_the_future", "hm", "", "")
    assert type(unknown) is ScorewireError
    assert "from_the_future" in str(unknown)


def test_an_answer_without_its_parts_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="release"):
        unpack_answer(wire.pack_header(Kind.ANSWER, 1) + wire.pack_body({"scores": {}}))
    with pytest.raises(ProtocolError, match="has no"):
        read_answer(wire.pack_header(Kind.ANSWER, 1) + wire.pack_body({"scores": {}}))


def test_the_bytes_in_the_document_are_those_of_the_code() -> None:
    # What a client in another language is written by.
    document = (ROOT / "docs" / "wire.md").read_text()
    found = dict(re.findall(r"^(\w+)\s+: ([0-9a-f ]+)$", document, re.MULTILINE))
    vector, other = struct.pack("<2f", 12.5, 3.0), struct.pack("<f", 0.5)
    vectors = {"features": vector, "features:ato": other}
    expected = {
        "ping": wire.pack_header(Kind.PING, 0) + wire.pack_body({}),
        "score": wire.pack_header(Kind.SCORE, 7, 250_000)
        + wire.pack_transaction({"id": "42", "amount": 12.5}),
        "error": wire.pack_header(Kind.ERROR, 7)
        + wire.pack_error(TransactionRefusedError("is missing", field="amount", rule="missing")),
        "vector": wire.pack_header(Kind.VECTOR, 8, 200_000)
        + wire.pack_body({"release": 3, "vector": vector}),
        "vectors": wire.pack_header(Kind.VECTOR, 9, 200_000)
        + wire.pack_body({"release": 3, "vectors": vectors}),
    }
    assert {name: bytes.fromhex(text) for name, text in found.items()} == expected
