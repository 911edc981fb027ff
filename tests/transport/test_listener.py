"""The listener: whatever arrives is answered or refused by name, and the next request works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import zmq

from tests.transport.conftest import LIMIT_S, ThreadNode, wait_until
from transport.client import wire
from transport.client.wire import MAX_MESSAGE_BYTES, MAX_SOCKET_BYTES, Kind
from transport.errors import BindRefusedError
from transport.listener import check_address

Context = zmq.Context[zmq.Socket[bytes]]
Start = Callable[..., ThreadNode]


def ask(socket: zmq.Socket[bytes], *frames: bytes) -> bytes:
    socket.send_multipart(list(frames))
    assert socket.poll(LIMIT_S * 1000), "no reply"
    return socket.recv()


def good(payload: Any = 1, budget_us: int = 10**7) -> bytes:
    return wire.pack_header(Kind.SCORE, 1, budget_us) + wire.pack_transaction({"payload": payload})


@pytest.fixture
def socket(context: Context, threads: Start) -> Any:
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(threads().endpoint)
        yield socket


def other_version(number: int) -> bytes:
    frame = bytearray(good())
    frame[2] = number
    return bytes(frame)


@pytest.mark.parametrize(
    ("frames", "code", "rule", "id_"),
    [
        ((b"",), "protocol", "header", 0),
        ((b"\x00" * 100,), "protocol", "magic", 0),
        ((b"a", b"b"), "protocol", "header", 0),
        ((other_version(2),), "protocol", "version", 1),
        (
            (wire.pack_header(Kind.SCORE, 3)[:3] + b"\x63" + wire.pack_header(Kind.SCORE, 3)[4:],),
            "protocol",
            "kind",
            3,
        ),
        ((wire.pack_header(Kind.VECTOR, 4) + b"\x80",), "protocol", "kind", 4),
        (
            (wire.pack_header(Kind.SCORE, 5, 10**6) + b"\xc1" * (MAX_MESSAGE_BYTES - 15),),
            "too_large",
            "size",
            5,
        ),
        ((wire.pack_header(Kind.SCORE, 6, 10**6) + b"\xc1" * 10_000_000,), "too_large", "size", 6),
    ],
)
def test_what_cannot_be_read_is_refused_by_number_and_rule_and_the_next_request_works(
    socket: Any, frames: tuple[bytes, ...], code: str, rule: str, id_: int
) -> None:
    reply = ask(socket, *frames)
    error = wire.unpack_error(reply)
    assert (error.code, error.rule, wire.unpack_header(reply).id) == (code, rule, id_)
    assert wire.unpack_header(ask(socket, good())).kind is Kind.ANSWER


def test_a_message_of_just_the_limit_is_taken(socket: Any) -> None:
    empty = (
        len(wire.pack_header(Kind.SCORE, 1))
        + len(wire.pack_transaction({"payload": b"x" * 100_000}))
        - 100_000
    )
    frame = wire.pack_header(Kind.SCORE, 1, 10**7) + wire.pack_transaction(
        {"payload": b"x" * (MAX_MESSAGE_BYTES - empty)}
    )
    assert len(frame) == MAX_MESSAGE_BYTES
    assert wire.unpack_header(ask(socket, frame)).kind is Kind.ANSWER


def test_a_frame_beyond_the_sockets_limit_cuts_that_connection_alone(
    context: Context, threads: Start
) -> None:
    node = threads()
    with context.socket(zmq.DEALER) as huge, context.socket(zmq.DEALER) as other:
        for socket in (huge, other):
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(node.endpoint)
        assert wire.unpack_header(ask(other, good())).kind is Kind.ANSWER
        huge.send(bytes(MAX_SOCKET_BYTES + 1))
        assert not huge.poll(100)
        assert wire.unpack_header(ask(other, good())).kind is Kind.ANSWER
        assert wire.unpack_header(ask(huge, good())).kind is Kind.ANSWER  # after it connected again


def test_work_that_is_too_late_is_dropped_and_counted(socket: Any, threads: Start) -> None:
    late = threads()
    socket.connect(late.endpoint)
    socket.disconnect(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    socket.connect(late.endpoint)
    for _ in range(20):
        socket.send(good(budget_us=0))
    wait_until(lambda: late.node.listener.stats.late > 0)
    assert not socket.poll(50)


def test_beats_tell_whether_the_node_is_ready(context: Context, threads: Start) -> None:
    node = threads()
    ping = wire.pack_header(Kind.PING, 0) + wire.pack_body({})
    with context.socket(zmq.DEALER) as socket:
        socket.connect(node.endpoint)
        assert wire.unpack_body(ask(socket, ping))["state"] == "ready"
        node.node.ready = False
        assert wire.unpack_body(ask(socket, ping))["state"] == "not_ready"


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:*", "tcp://*:7301", "tcp://10.1.2.3:7301", "tcp://[::]:1"]
)
def test_a_wide_address_is_refused_unless_it_is_asked_for_by_name(address: str) -> None:
    with pytest.raises(BindRefusedError, match="allow_wide_bind"):
        check_address(address, wide=False)
    check_address(address, wide=True)


def test_an_address_that_is_none_or_taken_is_refused(threads: Start) -> None:
    for address in ("", "localhost:1", "http://127.0.0.1:1", "tcp://"):
        with pytest.raises(BindRefusedError):
            check_address(address, wide=False)
    node = threads()
    with pytest.raises(BindRefusedError, match="another node"):
        threads(node.endpoint)
