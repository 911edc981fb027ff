"""Reading what callers send: whichever way, what is read is what `wire.unpack_body` reads."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.reading import Express, express_of, read_map
from models.spec import load_spec
from tests.actors.test_serving import SPEC
from tests.transport.test_wire import values
from transport.client import wire
from transport.client.errors import ProtocolError
from transport.client.wire import Kind

HEADER = wire.pack_header(Kind.SCORE, 1)
PARTS = ("transaction", "release", "traceparent")


def express() -> Express:
    found = express_of({"features": load_spec(SPEC)}, 3)
    assert found is not None
    return found


def frame(transaction: Any, **more: Any) -> bytes:
    packed: bytes = msgpack.packb({"transaction": transaction, **more})
    return HEADER + packed


def slow(message: bytes) -> Any:
    """Return the parts of a message as the wire's own function reads them; None where it refuses."""
    try:
        body = wire.unpack_body(message)
    except ProtocolError:
        return None
    return [body.get(name) for name in PARTS]


def fast(message: bytes) -> Any:
    try:
        body = read_map(message)
    except ProtocolError:
        return None
    return [body.get(name) for name in PARTS]


@settings(max_examples=300)
@given(st.dictionaries(st.text(), values, max_size=5), st.dictionaries(st.text(), values, max_size=2))
def test_a_map_is_read_as_the_wire_reads_it(transaction: dict[str, Any], more: dict[str, Any]) -> None:
    message = frame(transaction, **{name: value for name, value in more.items() if name != "transaction"})
    assert repr(fast(message)) == repr(slow(message))


@settings(max_examples=500)
@given(st.data())
def test_broken_bytes_are_read_as_the_wire_reads_them(data: st.DataObject) -> None:
    message = bytearray(
        frame({"id": "a", "a": 1.5, "b": 2, "c": [1, "x"]}, release=3, traceparent="00-ab-01")
    )
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(16, len(message) - 1))] = data.draw(st.integers(0, 255))
    del message[data.draw(st.integers(20, len(message))) :]
    assert repr(fast(bytes(message))) == repr(slow(bytes(message)))


def test_features_are_those_of_the_map_with_the_id_and_the_trace() -> None:
    spec = load_spec(SPEC)
    for transaction in ({"id": 5, "a": 1, "b": 2.5}, {"a": 0.5}, {"id": None, "a": -0.0, "b": None}):
        found = express().read(frame(transaction, traceparent="00-ab-01"))
        assert found is not None
        assert found.vector == spec.packed(transaction)
        assert found.id == str(transaction.get("id", ""))
        assert found.traceparent == "00-ab-01"


def test_a_replay_is_read_straight_as_well() -> None:
    message = HEADER + wire.pack_transaction({"a": 1.0}, 3, replay=True)
    assert wire.is_replay(message)
    assert express().read(message) is not None


@pytest.mark.parametrize(
    "message",
    [
        frame({"a": 1.0, "more": 1}),
        frame({"a": "1"}),
        frame({"b": 1.0}),
        frame({"a": float("inf")}),
        frame({"a": 1.0}, release=2),
        frame({"a": 1.0}, release="3"),
        frame({"a": 1.0}, traceparent=1),
        frame({"a": 1.0}, unknown=1),
        frame([1.0]),
        frame({"a": 1.0})[:-1],
        HEADER,
    ],
)
def test_whatever_is_not_as_the_spec_says_is_left_to_the_map(message: bytes) -> None:
    assert express().read(message) is None


def test_after_an_odd_message_some_are_read_as_maps_and_then_it_is_tried_again() -> None:
    one, good, odd = express(), frame({"a": 1.0}), frame({"a": 1.0, "more": 1})
    assert one.read(good) is not None
    assert one.read(odd) is None
    found = [one.read(good) is not None for _ in range(40)]
    assert found == sorted(found)
    assert 0 < found.count(False) < 20


def test_fields_that_nobody_declared_are_learned_from_the_first_that_has_them() -> None:
    one, spec = express(), load_spec(SPEC)
    for transaction in ({"a": 1.0, "more": 1}, {"a": 2.0, "more": "x", "and": [1], "id": "t"}):
        message = frame(transaction)
        assert one.read(message) is None
        one.learn(read_map(message)["transaction"])
        found = one.read(message)
        assert found is not None
        assert found.vector == spec.packed(transaction)
        assert found.id == str(transaction.get("id", ""))
    assert one.read(frame({"a": 1.0})) is not None
    # What no message may carry is no more let through than before.
    assert one.read(frame({"a": 1.0, "more": msgpack.ExtType(1, b"x")})) is None


@pytest.mark.parametrize(
    "odd",
    [
        {'a"b': 1},
        {"tab\t": 1},
        {"back\\slash": 1},
        {b"bytes": 1},
        {"deep": {"a": {"b": [1]}}},
        {f"f{number}": number for number in range(300)},
    ],
)
def test_what_cannot_be_learned_harms_nothing(odd: dict[Any, Any]) -> None:
    one = express()
    message = frame({"a": 1.0, **odd})
    for _ in range(40):
        assert one.read(message) is None
        one.learn(read_map(message)["transaction"])
    others = [one.read(frame({"a": 1.0})) for _ in range(20)]
    assert others[-1] is not None


def test_whoever_invents_names_for_ever_is_not_followed() -> None:
    one = express()
    for number in range(400):
        message = frame({"a": 1.0, f"f{number}": 1})
        if one.read(message) is None:
            one.learn(read_map(message)["transaction"])
    assert one._steps == 16
    assert [one.read(frame({"a": 1.0})) for _ in range(20)][-1] is not None


def test_what_is_computed_by_several_specs_or_by_code_is_not_read_straight() -> None:
    spec = load_spec(SPEC)
    assert express_of({"features": spec, "features:b": spec}, 1) is None
    assert express_of({"features": object()}, 1) is None
