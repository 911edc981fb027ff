"""What bounds a request, and a gateway that is full, leaves, crashes or hangs."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from actors.child import life_of
from actors.health import HealthActor
from actors.node_metrics import node_page
from actors.state import Holdings
from tests.actors.gateway.conftest import GOOD, House, wait_until

Build = Callable[..., House]


def talk(house: House, *parts: bytes) -> bytes:
    """Send parts as they are, and read until the other side closes."""
    with socket.create_connection(("127.0.0.1", house.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        found = b""
        while data := connection.recv(65536):
            found += data
        return found


def cut_off(house: House) -> None:
    """Have no node that could serve."""
    for node in house.nodes:
        node.holdings = Holdings()
    wait_until(lambda: "preprocessors.members.ready" not in house.state.counters["gateway"]())


def test_a_body_that_is_too_large_is_refused_before_it_is_read(build: Build) -> None:
    house = build(body_mb=0.01)
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\n"
    told = talk(house, head + b"Content-Length: 10001\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 413 ")
    assert b'"error":"too_large"' in told
    assert b'"rule":"size"' in told
    chunked = talk(house, head + b"Transfer-Encoding: chunked\r\n\r\n", b"2711\r\n" + b"x" * 10001 + b"\r\n")
    assert chunked.startswith(b"HTTP/1.1 413 ")
    assert house.ask("POST", "/v1/score", {"transaction": GOOD}).status == 200


def test_whoever_is_slow_is_told_so_and_cut(build: Build) -> None:
    house = build(receive_s=0.3)
    body = talk(house, b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", b"{")
    assert body.startswith(b"HTTP/1.1 408 ")
    assert b'"field":"body"' in body
    assert talk(house, b"POST /v1/score HT").startswith(b"HTTP/1.1 408 ")
    assert talk(house).startswith(b"HTTP/1.1 408 ")
    assert house.state.counters["gateway"]()["errors.slow_request"] == 3


def test_a_connection_is_as_patient_with_its_later_requests(build: Build) -> None:
    house = build(receive_s=0.3)
    asked = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(("127.0.0.1", house.port), timeout=20) as connection:
        for _ in range(3):  # longer than is waited for one head
            connection.sendall(asked)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.2)
        began = time.monotonic()
        connection.sendall(b"POST /v1/score HT")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
        assert time.monotonic() - began > 0.29  # its timer may be a millisecond early
        assert connection.recv(65536) == b""


def test_heads_without_an_end_and_what_is_no_http_are_refused(build: Build) -> None:
    house = build()
    long = talk(house, b"GET /v2 HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 40_000 + b"\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 431 ")
    assert b'"error":"too_large"' in long
    assert talk(house, b"GET /" + b"x" * 40_000).startswith(b"HTTP/1.1 431 ")
    assert talk(house, b"\x16\x03\x01\x02\x00 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert house.ask("GET", "/v2/health/live").status == 200


def test_more_requests_than_may_be_under_way_are_refused_at_once(build: Build) -> None:
    house = build(in_flight=2, deadline_ms=1_500)
    cut_off(house)
    replies: list[Any] = []
    threads = [
        threading.Thread(target=lambda: replies.append(house.ask("POST", "/v1/score", {"transaction": GOOD})))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: house.state.counters["gateway"]()["in_flight"] == 2)
    full = house.ask("POST", "/v1/score", {"transaction": GOOD})
    assert (full.status, full.json["error"], full.headers["retry-after"]) == (503, "overloaded", "1")
    assert house.ask("GET", "/v2/health/live").status == 200
    for thread in threads:
        thread.join()
    assert [(reply.status, reply.json["error"]) for reply in replies] == [(503, "no_node")] * 2
    assert "retry-after" in replies[0].headers


def test_more_connections_than_may_be_are_refused(build: Build) -> None:
    house = build(connections=2)
    first = [house.connect() for _ in range(2)]
    for connection in first:
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().read()
    refused = talk(house)
    assert refused.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 1" in refused
    first[0].request("GET", "/v2/health/live")
    assert first[0].getresponse().status == 200


def test_a_gateway_that_leaves_finishes_what_it_has_and_then_takes_nothing(build: Build) -> None:
    house = build(deadline_ms=1_000, leave_s=0.2)
    kept = house.connect()
    kept.request("GET", "/v2/health/ready")
    assert kept.getresponse().read()
    cut_off(house)
    replies: list[Any] = []
    asking = threading.Thread(
        target=lambda: replies.append(house.ask("POST", "/v1/score", {"transaction": GOOD}))
    )
    asking.start()
    wait_until(lambda: house.state.counters["gateway"]()["in_flight"] == 1)
    house.state.leaving = True
    port, ref = house.port, house.refs["gateway"]
    ref.stop(block=False)
    # While others are told that it leaves, it still answers, and ends each connection with that.
    wait_until(lambda: house.ask("GET", "/v2/health/live").headers.get("connection") == "close")
    kept.request("GET", "/v2/health/ready")
    answer = kept.getresponse()
    assert (answer.status, answer.getheader("Retry-After")) == (503, "1")
    asking.join()
    assert replies[0].json["error"] == "no_node"  # its deadline, and no cut connection
    assert life_of(ref).ended.wait(20)
    # Its supervisor starts another there, for it was not asked to end it.
    wait_until(lambda: house.refs["gateway"] is not ref)
    assert house.port == port


def test_a_gateway_whose_event_loop_is_broken_is_replaced_at_its_port(build: Build) -> None:
    house = build()
    before, port = house.refs["gateway"], house.port

    def fail() -> None:
        raise ValueError("a callback that nobody foresaw")

    before.actor_inbox.aio.call_soon_threadsafe(fail)  # type: ignore[attr-defined]
    assert life_of(before).ended.wait(20)
    assert isinstance(life_of(before).exit.error, ValueError)  # type: ignore[union-attr]
    wait_until(lambda: house.refs["gateway"] is not before)
    wait_until(life_of(house.refs["gateway"]).started.is_set)
    assert house.port == port
    assert house.ask("POST", "/v1/score", {"transaction": GOOD}).status == 200


def test_a_gateway_that_hangs_is_seen_by_its_health_and_by_the_watchdog(build: Build) -> None:
    house = build()
    health = HealthActor.start(house.state, house.context, "127.0.0.1", 0)
    life = life_of(house.refs["gateway"])
    go_on = threading.Event()
    try:
        wait_until(lambda: health.proxy().health().get() == "ready")
        first = life.busy_since
        wait_until(lambda: life.busy_since != first)
        house.refs["gateway"].actor_inbox.aio.call_soon_threadsafe(go_on.wait)  # type: ignore[attr-defined]
        wait_until(lambda: health.proxy().health().get() == "hung")
        stuck = life.busy_since
        assert stuck is not None
        go_on.set()
        wait_until(lambda: health.proxy().health().get() == "ready")
        assert life.busy_since != stuck
    finally:
        go_on.set()
        health.stop()


def test_what_is_counted_is_shown_to_prometheus(build: Build) -> None:
    house = build()
    assert house.ask("POST", "/v1/score", {"transaction": GOOD}).status == 200
    assert house.ask("POST", "/v1/score", b"{").status == 400
    _, text = node_page(house.state, "ready")
    page = text.decode()
    for line in (
        r'scorewire_http_answers_total\{.*status="200".*\} 1',
        r'scorewire_errors_total\{.*code="protocol".*\} 1',
        r"scorewire_requests_total\{.*\} 2",
        r"scorewire_answers_total\{.*\} 1",
        r"scorewire_preprocessors_answered_total\{.*\} 1",
        r'scorewire_stage_seconds_count\{.*stage="total".*\} 2',
    ):
        assert re.search(line, page), line
