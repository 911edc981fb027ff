"""Messages that are read straight into features: to the bit those of a map, or left to it."""

from __future__ import annotations

import json
import math
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.spec import FeatureSpec, TransactionError, load_spec
from tests.models.test_features import EVERY, SPECS, of_type, rows

REQUIRED: dict[str, Any] = {
    "amount": {"type": "number"},
    "age": {"type": "number", "min": 18, "max": 120},
    "known": {"type": "flag"},
    "channel": {"type": "category", "categories": ["chip", "online"]},
    "at": {"type": "timestamp"},
    "from": {"type": "ip"},
    "note": {"type": "any"},
}
FEATURES: list[dict[str, Any]] = [
    {"name": "amount", "kind": "numeric", "field": "amount"},
    {"name": "age", "kind": "numeric", "field": "age"},
    {"name": "known", "kind": "flag", "field": "known"},
    {"name": "channel", "kind": "category", "field": "channel"},
    {"name": "hour", "kind": "hour", "field": "at"},
    {"name": "private", "kind": "ip_private", "field": "from"},
]
GOOD = {"id": "t1", "amount": 9.5, "age": 30, "known": True, "channel": "chip", "at": 0, "from": "10.0.0.1"}


def spec_of(**more: Any) -> FeatureSpec:
    facts = {"name": "s", "version": 1, "id": "id", "fields": REQUIRED, "features": FEATURES}
    return load_spec(json.dumps({**facts, **more}).encode())


def typed(spec: FeatureSpec, message: bytes) -> tuple[bytes | None, str] | None:
    """Return the features of a message and its id; None where it is not as the spec says."""
    assert spec.typed is not None
    type_ = spec.typed.type_with(())
    assert type_ is not None
    try:
        values = msgspec.structs.astuple(msgspec.msgpack.decode(message, type=type_))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return spec.typed.compute(values), spec.typed.id_of(values)


def packed(transaction: dict[str, Any]) -> bytes | None:
    """Return a message; None where none carries such values."""
    try:
        found: bytes = msgpack.packb(transaction)
    except (OverflowError, UnicodeEncodeError):
        return None
    return found


def same_as_a_map(spec: FeatureSpec, message: bytes) -> bool:
    """Compare both ways; say whether the message was read straight into features."""
    found = typed(spec, message)
    if found is None or found[0] is None:
        return False
    transaction = msgpack.unpackb(message, max_ext_len=0)
    assert found[0] == spec.packed(transaction)
    assert found[1] == (str(transaction.get(spec.id_field, "")) if spec.id_field else "")
    return True


@pytest.mark.parametrize("name", EVERY)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=30, deadline=None)
@given(data=st.data())
def test_every_kind_has_the_bits_of_a_map(name: str, data: st.DataObject) -> None:
    spec = SPECS[name]
    for transaction in data.draw(rows(spec)):
        message = packed(transaction)
        if message is None:
            continue
        straight = same_as_a_map(spec, message)
        try:
            spec.packed(transaction)
        except TransactionError:
            assert not straight, "what is refused is refused with words"
        else:
            assert straight


odd = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries(
        {name: odd | of_type.get(one["type"], odd) for name, one in REQUIRED.items()},
        optional={"id": odd, "more": odd},
    )
)
def test_whatever_comes_is_read_as_a_map_reads_it_or_not_at_all(transaction: dict[str, Any]) -> None:
    message = packed(transaction)
    if message is not None:
        same_as_a_map(spec_of(), message)


@settings(max_examples=300)
@given(st.data())
def test_a_message_of_broken_bytes_is_no_other_transaction(data: st.DataObject) -> None:
    message = bytearray(msgpack.packb(GOOD))
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    del message[data.draw(st.integers(1, len(message))) :]
    same_as_a_map(spec_of(), bytes(message))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"amount": 7},
        {"amount": 2**64 - 1},
        {"amount": -0.0},
        {"id": 5},
        {"id": None},
        {"id": ["a", 1]},
        {"note": [1, "a", None]},
        {"note": {"a": 1}},
        {"at": "2026-01-01T00:00:00Z"},
        {"at": 1.5},
    ],
)
def test_a_plain_transaction_is_read_straight(change: dict[str, Any]) -> None:
    assert same_as_a_map(spec_of(), msgpack.packb({**GOOD, **change}))
    without = {name: value for name, value in GOOD.items() if name != "id"}
    assert same_as_a_map(spec_of(), msgpack.packb({**without, **change}))
    assert same_as_a_map(spec_of(id="channel"), msgpack.packb({**without}))


@pytest.mark.parametrize(
    "change",
    [
        {"amount": True},
        {"amount": "7"},
        {"amount": None},
        {"amount": math.nan},
        {"amount": math.inf},
        {"age": 17.9},
        {"age": math.nan},
        {"known": 1},
        {"channel": "phone"},
        {"at": True},
        {"from": "10.0.0"},
    ],
)
def test_what_breaks_a_rule_is_left_to_a_map_which_names_it(change: dict[str, Any]) -> None:
    spec = spec_of()
    found = typed(spec, msgpack.packb({**GOOD, **change}))
    assert found is None or found[0] is None
    with pytest.raises(TransactionError) as caught:
        spec.packed({**GOOD, **change})
    assert caught.value.field == next(iter(change))


def test_the_last_of_two_entries_of_one_name_counts_both_ways() -> None:
    message = msgpack.packb(GOOD)
    twice = bytes([message[0] + 1]) + message[1:] + msgpack.packb("amount") + msgpack.packb(3.25)
    assert same_as_a_map(spec_of(), twice)
    found = typed(spec_of(), twice)
    assert found is not None
    assert found[0] is not None
    assert found[0].startswith(spec_of().packed({**GOOD, "amount": 3.25})[:4])


NOT_TYPED: list[dict[str, Any]] = [
    {"id": "age"},  # a float is written differently than the integer that came
    {"fields": {**REQUIRED, 'a"b': {"type": "any"}}},
    {"fields": {**REQUIRED, "tab\t": {"type": "any"}}},
    {  # what is not there is not the same as null
        "id": "key",
        "fields": {**REQUIRED, "key": {"type": "text", "missing": "nan"}},
        "features": [*FEATURES, {"name": "key", "kind": "length", "field": "key"}],
    },
]


@pytest.mark.parametrize("more", NOT_TYPED)
def test_where_a_structure_would_say_something_else_there_is_none(more: dict[str, Any]) -> None:
    assert spec_of(**more).typed is None


def test_a_name_that_python_knows_otherwise_is_a_name() -> None:
    names = ["class", "__class__", "v0", "v1", "", "é ü", "a.b", "from"]
    fields = {name or " ": {"type": "number"} for name in names}
    features = [{"name": f"f{n}", "kind": "numeric", "field": name} for n, name in enumerate(fields)]
    spec = spec_of(fields=fields, features=features)
    transaction = {name: float(number) for number, name in enumerate(fields)}
    assert same_as_a_map(spec, msgpack.packb(transaction))
