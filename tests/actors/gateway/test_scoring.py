"""JSON transactions over HTTP: scores, errors with field and rule, and what a request may say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.actors.gateway.conftest import GOOD, House


def test_a_transaction_is_answered_with_scores_and_its_trace(house: House) -> None:
    reply = house.ask("POST", "/v1/score", {"transaction": GOOD})
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    answer = reply.json
    assert answer["id"] == "t1"
    assert answer["scores"]["1"] == house.score_of([0.25, float("nan"), 1.0])
    assert answer["trace"]["release"] == 3
    assert set(answer["trace"]["nodes"]) == {"preprocessor", "scorer"}
    assert answer["decision"] is None


def test_a_batch_is_answered_in_its_order_and_one_bad_transaction_harms_no_other(house: House) -> None:
    batch = [{**GOOD, "id": str(n), "a": n / 7} for n in range(200)]
    batch[3] = {**GOOD, "kind": "post"}
    batch[150] = {"id": "x", "a": 2**70, "kind": "shop"}
    reply = house.ask("POST", "/v1/score/batch", {"transactions": batch})
    assert reply.status == 200
    results = reply.json["results"]
    assert [n for n, one in enumerate(results) if "error" in one] == [3, 150]
    assert (results[3]["error"], results[3]["field"]) == ("bad_transaction", "kind")
    assert (results[150]["field"], results[150]["rule"]) == ("a", "type")
    assert [one["id"] for one in results if "id" in one] == [str(n) for n in range(200) if n not in (3, 150)]
    assert results[14]["scores"]["1"] == house.score_of([14 / 7, float("nan"), 1.0])


BAD: dict[str, tuple[bytes | dict[str, Any], int, str, str, str]] = {
    "no JSON": (b"{", 400, "protocol", "body", "json"),
    "another encoding": ('{"transaction": {"a": "ü"}}'.encode("latin-1"), 400, "protocol", "body", "json"),
    "nested too deeply": (
        b'{"transaction": {"a": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
        400,
        "protocol",
        "body",
        "json",
    ),
    "a list": (b"[]", 400, "protocol", "body", "type"),
    "no transaction": ({}, 400, "protocol", "transaction", "missing"),
    "a transaction that is none": ({"transaction": 3}, 400, "protocol", "transaction", "type"),
    "an unknown word": ({"transaction": GOOD, "relaese": 3}, 400, "protocol", "relaese", "unknown"),
    "a release that is none": ({"transaction": GOOD, "release": "3"}, 400, "protocol", "release", "type"),
    "a release below all": ({"transaction": GOOD, "release": 0}, 400, "protocol", "release", "range"),
    "a release that nobody holds": ({"transaction": GOOD, "release": 9}, 404, "unknown_release", "", ""),
    "no deadline": ({"transaction": GOOD, "deadline_ms": 0}, 400, "protocol", "deadline_ms", "range"),
    "a deadline far off": (
        {"transaction": GOOD, "deadline_ms": 1e9},
        400,
        "protocol",
        "deadline_ms",
        "range",
    ),
    "another priority": ({"transaction": GOOD, "priority": "vip"}, 400, "protocol", "priority", "value"),
    "a field of another type": (
        {"transaction": {**GOOD, "a": "1"}},
        422,
        "bad_transaction",
        "a",
        "type",
    ),
    "a missing field": ({"transaction": {"kind": "shop"}}, 422, "bad_transaction", "a", "missing"),
    "no number at all": (
        b'{"transaction": {"a": NaN, "kind": "shop"}}',
        422,
        "bad_transaction",
        "a",
        "not_a_number",
    ),
    "an infinite number": (
        b'{"transaction": {"a": -Infinity, "kind": "shop"}}',
        422,
        "bad_transaction",
        "a",
        "infinite",
    ),
    "a transaction over a megabyte": (
        {"transaction": {**GOOD, "note": "x" * 1_100_000}},
        413,
        "too_large",
        "message",
        "size",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_field_and_rule_and_the_next_request_works(
    house: House, name: str
) -> None:
    body, status, error, field, rule = BAD[name]
    reply = house.ask("POST", "/v1/score", body)
    assert (reply.status, reply.json["error"]) == (status, error), reply.body
    assert (reply.json["field"], reply.json["rule"]) == (field, rule), reply.body
    assert reply.json["detail"]
    assert house.ask("POST", "/v1/score", {"transaction": GOOD}).status == 200


def test_numbers_arrive_to_the_last_bit(house: House) -> None:
    for a in (0.1, 5e-324, -0.0, 2**53 + 1, 1.7976931348623157e38, 123456789012345678):
        reply = house.ask("POST", "/v1/score", {"transaction": {**GOOD, "a": a}})
        assert reply.json["scores"]["1"] == house.score_of([a, float("nan"), 1.0])
    # An integer that no 64 bits hold is refused, and not rounded on the way.
    reply = house.ask("POST", "/v1/score", {"transaction": {**GOOD, "id": 2**64}})
    assert (reply.status, reply.json["field"], reply.json["rule"]) == (422, "id", "type")


def test_headers_say_what_the_body_leaves_open(house: House) -> None:
    body = {"transaction": GOOD}
    assert house.ask("POST", "/v1/score", body, {"Scorewire-Release": "3"}).status == 200
    assert house.ask("POST", "/v1/score", body, {"Scorewire-Release": "4"}).status == 404
    assert house.ask("POST", "/v1/score", body, {"Scorewire-Priority": "replay"}).status == 200
    assert house.ask("POST", "/v1/score", {**body, "release": 3}, {"Scorewire-Release": "4"}).status == 200
    for name, value in (
        ("Deadline-Ms", "soon"),
        ("Deadline-Ms", "nan"),
        ("Release", "1.5"),
        ("Priority", "?"),
    ):
        # Whether or not the body says the same.
        for sent in (body, {**body, "release": 3, "deadline_ms": 5000, "priority": "live"}):
            reply = house.ask("POST", "/v1/score", sent, {f"Scorewire-{name}": value})
            assert (reply.status, reply.json["error"]) == (400, "protocol"), name


def test_what_names_a_request_and_its_trace_is_given_back(house: House) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    own = house.ask(
        "POST", "/v1/score", {"transaction": GOOD}, {"X-Request-Id": "abc-1", "traceparent": trace}
    )
    assert (own.headers["x-request-id"], own.headers["traceparent"]) == ("abc-1", trace)
    refused = house.ask("POST", "/v1/score", b"{", {"X-Request-Id": "abc-2", "traceparent": trace})
    assert (refused.headers["x-request-id"], refused.headers["traceparent"]) == ("abc-2", trace)
    for bad in ("x" * 200, "two words"):
        given = house.ask("GET", "/v2/health/live", None, {"X-Request-Id": bad}).headers["x-request-id"]
        assert len(given) == 32
    for bad in ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "ff" + trace[2:], "hello"):
        assert "traceparent" not in house.ask("GET", "/v2/health/live", None, {"traceparent": bad}).headers


def test_paths_methods_and_encodings_that_nobody_takes_are_refused(house: House) -> None:
    nowhere = house.ask("GET", "/v3")
    assert (nowhere.status, nowhere.json["error"]) == (404, "not_found")
    other = house.ask("GET", "/v1/score")
    assert (other.status, other.headers["allow"]) == (405, "POST")
    packed = house.ask("POST", "/v1/score", b"x", {"Content-Encoding": "zstd"})
    assert (packed.status, packed.json["field"]) == (415, "content-encoding")
    assert json.loads(house.ask("GET", "/v2/health/live").body) == {"live": True}
