"""Nodes to talk to: in a thread for speed, in a process to be killed."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from tests.transport.node import EchoNode
from transport.client import wire
from transport.client.loop import Loop
from transport.client.pool import Pool
from transport.client.wire import Kind

LIMIT_S = 20


def wait_until(condition: Callable[[], Any], what: str = "") -> Any:
    give_up_at = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at, what
        time.sleep(0.005)
    return found


class Caller:
    """A pool on a loop that the test itself serves."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], *endpoints: str) -> None:
        self.loop = Loop()
        self.pool = Pool(self.loop, context, endpoints)
        self.outcomes: list[tuple[Any, bytes | Exception]] = []

    def ask(
        self, payload: Any = None, *, do: str = "echo", deadline_s: float = LIMIT_S, newest: bool = False
    ) -> None:
        body = wire.pack_transaction({"do": do, "payload": payload})
        deadline = time.monotonic() + deadline_s

        def done(outcome: bytes | Exception) -> None:
            self.outcomes.append((payload, outcome))

        self.pool.submit(Kind.SCORE, body, deadline, done, newest=newest)

    def serve(self, until: Callable[[], Any]) -> None:
        give_up_at = time.monotonic() + LIMIT_S
        while not until():
            assert time.monotonic() < give_up_at, (self.pool.states(), self.pool.counters())
            for source in self.loop.wait():
                source.pump()

    def answers(self, count: int) -> list[tuple[Any, bytes | Exception]]:
        """Serve until so many outcomes are there, and take them."""
        self.serve(lambda: len(self.outcomes) >= count)
        taken, self.outcomes = self.outcomes, []
        return taken

    def state(self, endpoint: str) -> str:
        return self.pool.states()[endpoint]

    def is_ready(self, *endpoints: str) -> bool:
        return all(self.state(endpoint) == "ready" for endpoint in endpoints)

    def close(self) -> None:
        self.pool.close()
        self.loop.close()


def echoed(outcome: bytes | Exception) -> str:
    assert isinstance(outcome, bytes), outcome
    return str(wire.unpack_body(outcome)["id"])


class ProcessNode:
    """An echo node that can be killed and stopped for real."""

    def __init__(self, address: str = "tcp://127.0.0.1:*") -> None:
        command = [sys.executable, str(Path(__file__).with_name("node.py")), address]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()
        assert self.endpoint

    @property
    def pid(self) -> int:
        return self.process.pid

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(LIMIT_S)
        if self.process.stdout:
            self.process.stdout.close()


class ThreadNode:
    """An echo node in a thread of this process."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str = "tcp://127.0.0.1:*") -> None:
        self.node = EchoNode(context, address)
        self.endpoint = self.node.listener.endpoint
        self._thread = threading.Thread(target=self.node.run)
        self._thread.start()

    def kill(self) -> None:
        self.node.over = True
        self.node.loop.wake()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()
        self.node.loop.close()


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """A context that must end: a socket that was left open fails the test by its time-out."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    ender = threading.Thread(target=context.term, daemon=True)
    ender.start()
    ender.join(LIMIT_S)
    assert not ender.is_alive(), "a socket was left open"


@pytest.fixture
def processes() -> Iterator[Callable[..., ProcessNode]]:
    started: list[ProcessNode] = []

    def start(address: str = "tcp://127.0.0.1:*") -> ProcessNode:
        started.append(ProcessNode(address))
        return started[-1]

    yield start
    for node in started:
        node.kill()


@pytest.fixture
def threads(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Callable[..., ThreadNode]]:
    started: list[ThreadNode] = []

    def start(address: str = "tcp://127.0.0.1:*") -> ThreadNode:
        started.append(ThreadNode(context, address))
        return started[-1]

    yield start
    for node in started:
        node.kill()


@pytest.fixture
def call(context: zmq.Context[zmq.Socket[bytes]]) -> Iterator[Callable[..., Caller]]:
    callers: list[Caller] = []

    def make(*endpoints: str) -> Caller:
        callers.append(Caller(context, *endpoints))
        return callers[-1]

    yield make
    for caller in callers:
        caller.close()
