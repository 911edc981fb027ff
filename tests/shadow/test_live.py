from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.field_policy import FieldPolicy
from shadow.errors import RecordError, SamplingError
from shadow.live import Sampler, live_record
from transport.client import wire
from transport.client.answer import Answer, Decision, Trace, pack_answer
from transport.client.wire import Kind
from transport.tee_record import CANARY, RawRecord

KEEP = FieldPolicy().pack()
TX = {"id": "t1", "amount": 5.0, "card": "4929"}
ALL = Sampler()


def raw(**changes: object) -> RawRecord:
    trace = Trace(3, "qa", {"features": "f"}, {"preprocessor": "p", "scorer": "s"}, {"total": 9})
    answer = Answer("t1", {"p0": 0.75, "p1": 0.25}, trace, Decision("review", ("r",)))
    facts = {
        "seq": 7,
        "at": 5.5,
        "flags": CANARY,
        "policy": KEEP,
        "request": wire.pack_header(Kind.SCORE, 1) + wire.pack_transaction(TX),
        "vectors": wire.pack_body({"release": 3, "vector": b"\0\0\x80\x3f"}),
        "answer": pack_answer(answer),
    }
    return RawRecord(**{**facts, **changes})  # type: ignore[arg-type]


def test_the_parts_become_a_record() -> None:
    record = live_record(raw(), "p", b"", ALL)
    assert record is not None
    assert (record.id, record.node, record.seq, record.at, record.canary) == ("t1", "p", 7, 5.5, True)
    assert record.features == {"features": b"\0\0\x80\x3f"}
    assert record.transaction == TX
    assert record.decision == {"outcome": "review", "reasons": ["r"]}
    assert (record.release, record.environment, record.scores) == (3, "qa", {"p0": 0.75, "p1": 0.25})


def test_several_vectors_keep_their_names() -> None:
    record = live_record(raw(vectors=wire.pack_body({"vectors": {"features:x": b""}})), "p", b"", ALL)
    assert record is not None
    assert record.features == {"features:x": b""}


def test_a_transaction_without_an_id_is_named_by_its_node_and_number() -> None:
    answer = msgpack.unpackb(raw().answer) | {"id": ""}
    record = live_record(raw(answer=msgpack.packb(answer)), "p", b"", ALL)
    assert record is not None
    assert record.id == "p/7"


def test_a_fallback_answer_is_a_record_without_scores() -> None:
    answer = msgpack.unpackb(raw().answer) | {"scores": {}, "fallback": True}
    record = live_record(raw(answer=msgpack.packb(answer), vectors=b""), "p", b"", ALL)
    assert record is not None
    assert (record.fallback, dict(record.scores), dict(record.features)) == (True, {}, {})


def test_the_policy_is_applied_before_anything_leaves() -> None:
    policy = FieldPolicy(frozenset({"card"}), frozenset({"amount"})).pack()
    record = live_record(raw(policy=policy), "p", b"key", ALL)
    assert record is not None
    assert set(record.transaction) == {"id", "card"}
    assert b"4929" not in record.pack()


@pytest.mark.parametrize("part", ["policy", "request", "vectors", "answer"])
@given(junk=st.binary(min_size=1, max_size=40))
def test_a_part_that_is_junk_is_a_record_error(part: str, junk: bytes) -> None:
    with pytest.raises(RecordError, match="record 7 of p"):
        live_record(raw(**{part: junk}), "p", b"", ALL)


def test_a_share_is_always_the_same_and_grows() -> None:
    ids = [f"t{number}" for number in range(2000)]
    few = {one for one in ids if Sampler(0.1).takes(one, {}, {})}
    more = {one for one in ids if Sampler(0.3).takes(one, {}, {})}
    assert few < more
    assert 130 < len(few) < 270
    assert not any(Sampler(0.0).takes(one, {}, {}) for one in ids)


def test_what_a_rule_names_is_always_copied_and_so_is_what_it_cannot_judge() -> None:
    sampler = Sampler(0.0, "score > 0.9 || tx.amount > 100.0")
    assert sampler.takes("t", {"amount": 500.0}, {"p": 0.1})
    assert sampler.takes("t", {"amount": 5.0}, {"p": 0.95})
    assert sampler.takes("t", {}, {"p": 0.1})
    assert not sampler.takes("t", {"amount": 5.0}, {"p": 0.1})
    assert live_record(raw(), "p", b"", sampler) is None
    with pytest.raises(SamplingError, match="always in"):
        Sampler(0.5, "score >")
