"""Bad transactions: each gets an error that names the field and the rule, and the next request works."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq
from sklearn.ensemble import RandomForestClassifier

from examples.card_payments import PAYMENT_SPEC, simulate
from models.importers import import_model
from models.spec import load_spec
from transport.client import Answer, Client, TooLargeError, TransactionRefusedError, UnknownReleaseError
from transport.client.wire import MAX_MESSAGE_BYTES, Kind, pack_header, unpack_error, unpack_header


@pytest.fixture(scope="module")
def payments(system: Any, directory: Any) -> list[dict[str, Any]]:
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=4_000, seed=3)
    forest = RandomForestClassifier(20, random_state=0).fit(spec.matrix(payments), labels)
    bundle = import_model(forest, directory / "forest.bundle", feature_names=list(spec.feature_names))
    features = system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
    model = system.register(bundle.path, "bundle", "forest")
    assert system.promote(features=features, model=model).state == "active"
    return payments


@pytest.fixture
def client(system: Any, payments: Any) -> Iterator[Client]:  # noqa: ARG001 - promotes what is asked
    with Client(system.addresses(), deadline=20.0) as client:
        yield client


BAD = {
    "missing": (lambda t: t.pop("amount"), "amount", "missing"),
    "a string where a number belongs": (lambda t: t.update(amount="12.5"), "amount", "type"),
    "a bool where a number belongs": (lambda t: t.update(amount=True), "amount", "type"),
    "NaN where the spec forbids it": (lambda t: t.update(amount=float("nan")), "amount", "not_a_number"),
    "infinite": (lambda t: t.update(amount=float("inf")), "amount", "infinite"),
    "no timestamp": (lambda t: t.update(timestamp="yesterday"), "timestamp", "timestamp"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_field_is_named_with_its_rule_and_the_next_request_works(
    client: Client, payments: list[dict[str, Any]], name: str
) -> None:
    spoil, field, rule = BAD[name]
    bad = dict(payments[0])
    spoil(bad)  # type: ignore[no-untyped-call]
    with pytest.raises(TransactionRefusedError) as caught:
        client.score(bad)
    assert (caught.value.field, caught.value.rule) == (field, rule)
    assert field in str(caught.value)
    assert isinstance(client.score(payments[0]), Answer)


def test_one_bad_transaction_in_a_stream_harms_no_other(
    client: Client, payments: list[dict[str, Any]]
) -> None:
    stream = [dict(payment) for payment in payments[:300]]
    del stream[7]["amount"]
    stream[150]["amount"] = float("nan")
    results = list(client.score_many(stream, window=100))
    failed = {index: r for index, r in enumerate(results) if not isinstance(r, Answer)}
    assert sorted(failed) == [7, 150]
    answers = [r for r in results if isinstance(r, Answer)]
    assert [a.id for a in answers] == [str(p["id"]) for i, p in enumerate(payments[:300]) if i not in failed]


def test_ten_megabytes_of_junk_are_refused_on_both_sides_of_the_wire(
    client: Client, system: Any, payments: list[dict[str, Any]]
) -> None:
    with pytest.raises(TooLargeError) as caught:
        client.score({"id": "1", "junk": b"\xff" * 10_000_000})
    assert str(MAX_MESSAGE_BYTES) in str(caught.value)
    reply = raw(system, pack_header(Kind.SCORE, 77, 1_000_000) + b"\xff" * 10_000_000)
    assert unpack_header(reply).id == 77
    assert unpack_error(reply).code == "too_large"
    assert isinstance(client.score(payments[0]), Answer)


def test_another_version_of_the_protocol_is_answered_by_number_with_the_versions(
    client: Client, system: Any, payments: list[dict[str, Any]]
) -> None:
    frame = bytearray(pack_header(Kind.SCORE, 99, 1_000_000) + b"\x80")
    frame[2] = 250
    error = unpack_error(reply := raw(system, bytes(frame)))
    assert unpack_header(reply).id == 99
    assert (error.code, error.rule) == ("protocol", "version")
    assert "250" in str(error)
    assert isinstance(client.score(payments[0]), Answer)


def test_random_bytes_are_refused_and_the_next_request_works(
    client: Client, system: Any, payments: list[dict[str, Any]]
) -> None:
    for seed in range(20):
        junk = np.random.default_rng(seed).bytes(seed * 13 + 1)
        assert unpack_error(raw(system, junk)).code == "protocol"
        assert (
            unpack_error(raw(system, pack_header(Kind.SCORE, 5, 1_000_000) + b"\xc1" + junk)).code
            == "protocol"
        )
    assert isinstance(client.score(payments[0]), Answer)


def test_a_release_that_nobody_holds_is_named(client: Client, payments: list[dict[str, Any]]) -> None:
    with pytest.raises(UnknownReleaseError, match="4242"):
        client.score(payments[0], release=4242)


def raw(system: Any, frame: bytes) -> bytes:
    """Send a frame as another client might, and return the reply."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(system.addresses()[0])
        socket.send(frame)
        assert socket.poll(20_000), "no reply"
        return socket.recv()
