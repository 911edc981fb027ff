from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow import record
from shadow.errors import RecordError
from shadow.record import MAX_RECORD_BYTES, LiveRecord, unpack_record

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
COUNT = st.integers(0, 2**63 - 1)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
RECORDS = st.builds(
    LiveRecord,
    id=WORD,
    node=WORD,
    seq=COUNT,
    at=st.floats(0, 2e11),
    release=COUNT,
    environment=WORD,
    pipeline=st.dictionaries(TEXT, TEXT, max_size=3),
    transaction=st.dictionaries(TEXT, VALUES, max_size=4),
    nodes=st.dictionaries(TEXT, TEXT, max_size=2),
    features=st.dictionaries(TEXT, st.binary(max_size=4).map(lambda b: b * 4), max_size=2),
    scores=st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=3),
    decision=st.none() | st.fixed_dictionaries({"outcome": TEXT, "reasons": st.lists(TEXT, max_size=2)}),
    us=st.dictionaries(TEXT, COUNT, max_size=3),
    canary=st.booleans(),
    fallback=st.booleans(),
)
SMALLEST: dict[str, Any] = {
    "v": 1,
    "id": "t",
    "node": "n",
    "seq": 1,
    "at": 0.5,
    "release": 3,
    "environment": "e",
    "pipeline": {},
}
#: The record whose bytes docs/tee.md shows.
GOLDEN = LiveRecord(
    id="tx-1",
    node="preprocessor-0@host/17",
    seq=1,
    at=1767225600.25,
    release=3,
    environment="production",
    pipeline={"features": "aa", "model": "bb", "decision": "cc"},
    transaction={"id": "tx-1", "amount": 12.5, "online": True},
    nodes={"preprocessor": "preprocessor-0@host/17", "scorer": "scorer-0@host/18"},
    features={"features": bytes.fromhex("0000484100000040")},
    scores={"p0": 0.75, "p1": 0.25},
    decision={"outcome": "review", "reasons": ["amount.high"]},
    us={"total": 480},
)


@given(RECORDS)
def test_a_record_comes_back_as_it_was(live: LiveRecord) -> None:
    packed = live.pack()
    assert unpack_record(packed) == live
    assert unpack_record(packed).pack() == packed


@given(st.binary(max_size=200))
def test_whatever_the_bytes_there_is_a_record_or_a_record_error(data: bytes) -> None:
    with contextlib.suppress(RecordError):
        unpack_record(data)


@given(RECORDS, st.data())
def test_a_damaged_record_is_a_record_or_a_record_error(live: LiveRecord, data: st.DataObject) -> None:
    packed = bytearray(live.pack())
    place = data.draw(st.integers(0, len(packed) - 1))
    packed[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RecordError):
        unpack_record(bytes(packed))


@given(st.sampled_from(sorted(set(SMALLEST) | {"features", "scores", "decision", "us", "canary"})), VALUES)
def test_a_field_with_another_value_is_read_or_refused(name: str, value: Any) -> None:
    with contextlib.suppress(RecordError):
        found = unpack_record(msgpack.packb({**SMALLEST, name: value}))
        assert name == "v" or getattr(found, name) == value


def test_what_it_does_not_know_is_ignored_and_what_is_missing_has_its_default() -> None:
    found = unpack_record(msgpack.packb({**SMALLEST, "novelty": [1, 2]}))
    assert found == LiveRecord("t", "n", 1, 0.5, 3, "e", {})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RecordError, match="has no seq, release"):
        unpack_record(msgpack.packb({k: v for k, v in SMALLEST.items() if k not in ("seq", "release")}))


def test_a_newer_version_says_that_this_node_is_too_old() -> None:
    with pytest.raises(RecordError, match="version 2, and 1 is read here: upgrade"):
        unpack_record(msgpack.packb({**SMALLEST, "v": 2}))


def test_an_older_version_is_brought_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "VERSION", 3)
    monkeypatch.setitem(record.UPGRADES, 1, lambda body: {**body, "environment": body["environment"] + "2"})
    monkeypatch.setitem(record.UPGRADES, 2, lambda body: {**body, "node": body["node"] + "3"})
    found = unpack_record(msgpack.packb(SMALLEST))
    assert (found.environment, found.node) == ("e2", "n3")


def test_a_record_of_no_end_is_not_even_parsed() -> None:
    with pytest.raises(RecordError, match="may have"):
        unpack_record(b"\x81" * (MAX_RECORD_BYTES + 1))


def test_the_documented_bytes_are_those_that_are_written() -> None:
    page = Path(__file__).parents[2] / "docs" / "tee.md"
    found = re.search(r"```hex\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    golden = bytes.fromhex("".join(found[1].split()))
    assert golden == GOLDEN.pack()
    assert unpack_record(golden) == GOLDEN
