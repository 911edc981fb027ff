"""The health port: what load balancers are told, and what they may send."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from transport import health as module
from transport.client.loop import Loop
from transport.errors import BindRefusedError
from transport.health import Health, HealthPort

#: More than any buffer of a connection takes.
LONG = bytes(range(256)) * 100_000


class Served:
    """A health port on a thread of its own."""

    def __init__(self) -> None:
        self.health: Health = "ready"
        self._loop = Loop()
        pages = {"/long": lambda: ("text/plain", LONG), "/broken": lambda: ("text/plain", b"%d" % (1 // 0))}
        self.port = HealthPort(self._loop, "127.0.0.1", 0, health=lambda: self.health, pages=pages)
        self._over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def ask(self, question: bytes) -> bytes:
        host, _, port = self.port.endpoint.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(question)
            answer = b""
            while part := connection.recv(4096):
                answer += part
        return answer

    def close(self) -> None:
        self._over = True
        self._thread.join()
        self.port.close()
        self._loop.close()

    def _run(self) -> None:
        while not self._over:
            for source in self._loop.wait(block=False):
                source.pump()


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    yield found
    found.close()


@pytest.mark.parametrize(
    ("health", "status"),
    [("ready", b"200"), ("draining", b"404"), ("starting", b"503"), ("hung", b"503")],
)
def test_a_node_says_whether_it_is_ready_and_is_alive_in_any_case(
    served: Served, health: Health, status: bytes
) -> None:
    served.health = health
    assert served.ask(b"GET /ready HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 " + status)
    assert served.ask(b"GET /alive HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.0 200")


@pytest.mark.parametrize(
    ("question", "status"),
    [
        (b"GET / HTTP/1.0\r\n", b"400"),
        (b"POST /ready HTTP/1.0\r\n", b"405"),
        (b"\n", b"405"),
        (b"\x16\x03\x01 hello\n", b"405"),
    ],
)
def test_what_is_asked_wrongly_is_refused_and_never_told_as_leaving(
    served: Served, question: bytes, status: bytes
) -> None:
    assert served.ask(question).startswith(b"HTTP/1.0 " + status)


def test_a_question_without_an_end_and_a_slow_one_are_cut(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.ask(b"x" * 5000) == b""
    monkeypatch.setattr(module, "_SLOWEST_S", 0.1)
    assert served.ask(b"GET /ready") == b""


def test_many_that_say_nothing_shut_nobody_out(served: Served) -> None:
    host, _, port = served.port.endpoint.rpartition(":")
    held = [socket.create_connection((host, int(port)), timeout=10) for _ in range(100)]
    try:
        assert b"200 OK" in served.ask(b"GET /ready HTTP/1.0\r\n")
    finally:
        for one in held:
            one.close()


def test_a_page_arrives_whole_whatever_its_length_while_others_are_answered(served: Served) -> None:
    host, _, port = served.port.endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        assert slow.recv(10).startswith(b"HTTP/1.0 2")
        assert b"200 OK" in served.ask(b"GET /ready HTTP/1.0\r\n")
        rest = b""
        while part := slow.recv(1 << 20):
            rest += part
    assert rest.partition(b"\r\n\r\n")[2] == LONG
    assert b"Content-Type: text/plain\r\nContent-Length: 25600000" in rest


def test_a_page_that_fails_is_told_and_harms_no_health(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    assert b"500 Internal Server Error" in (answer := served.ask(b"GET /broken HTTP/1.0\r\n"))
    assert b"ZeroDivisionError" in answer
    assert "/broken cannot be made" in caplog.text
    assert b"200 OK" in served.ask(b"GET /ready HTTP/1.0\r\n")
    assert b"/ready, /alive, /long, /broken" in served.ask(b"GET / HTTP/1.0\r\n")


def test_no_node_answers_beyond_loopback_unless_told_so() -> None:
    loop = Loop()
    try:
        with pytest.raises(BindRefusedError, match="not loopback"):
            HealthPort(loop, "0.0.0.0", 0, health=lambda: "ready")
    finally:
        loop.close()
