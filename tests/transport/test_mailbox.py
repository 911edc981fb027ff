"""The mailbox: a Pykka inbox fed by sockets, local messages and timers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest
import zmq

from tests.transport.conftest import LIMIT_S, wait_until
from transport.client import wire
from transport.client.wire import Kind
from transport.listener import Listener, Request
from transport.mailbox import Mailbox, Pump, Timer

Context = zmq.Context[zmq.Socket[bytes]]


class Echo(pykka.ThreadingActor):
    """An actor that counts what it gets, and can be held up."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self.told: list[Any] = []
        self.ticks = 0
        self.batches: list[int] = []
        self.go_on = threading.Event()

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    def on_start(self) -> None:
        assert isinstance(self.actor_inbox, Mailbox)
        loop = self.actor_inbox.loop
        self.listener = Listener(
            loop,
            self.context,
            "tcp://127.0.0.1:*",
            kind=Kind.SCORE,
            on_batch=self.on_batch,
            ready=lambda: True,
        )
        loop.add(Timer(0.01, self.tick))

    def tick(self) -> None:
        self.ticks += 1

    def on_batch(self, requests: list[Request]) -> None:
        self.batches.append(len(requests))
        for request in requests:
            self.listener.answer(request, wire.pack_body({}))

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Pump):
            message.source.pump()
        elif message == "endpoint":
            return self.listener.endpoint
        elif message == "hold":
            self.go_on.wait(LIMIT_S)
        else:
            self.told.append(message)
            return len(self.told)
        return None

    def on_stop(self) -> None:
        self.listener.close()
        assert isinstance(self.actor_inbox, Mailbox)
        self.actor_inbox.close()


@pytest.fixture
def ref(context: Context) -> Iterator[pykka.ActorRef[Echo]]:
    """An actor that ends with its test, also where that fails: whoever stops all actors waits for each."""
    ref = Echo.start(context)
    yield ref
    if ref.is_alive():
        ref.stop(timeout=LIMIT_S)


def endpoint_of(ref: pykka.ActorRef[Echo]) -> str:
    endpoint: Any = ref.ask("endpoint", timeout=LIMIT_S)
    return str(endpoint)


def test_messages_sockets_and_timers_reach_one_actor(context: Context, ref: pykka.ActorRef[Echo]) -> None:
    actor: Any = ref._actor_weakref()
    with context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint_of(ref))
        socket.send(wire.pack_header(Kind.SCORE, 5, 10**7) + wire.pack_body({}))
        assert socket.poll(LIMIT_S * 1000)
        assert wire.unpack_header(socket.recv()).id == 5
    assert ref.ask("hello", timeout=LIMIT_S) == 1
    wait_until(lambda: actor.ticks > 3)
    ref.stop(timeout=LIMIT_S)
    assert not ref.is_alive()


def test_what_has_arrived_is_taken_in_batches(context: Context, ref: pykka.ActorRef[Echo]) -> None:
    actor: Any = ref._actor_weakref()
    with context.socket(zmq.DEALER) as socket:
        socket.connect(endpoint_of(ref))
        frame = wire.pack_body({})
        socket.send(wire.pack_header(Kind.SCORE, 0, 10**7) + frame)
        socket.recv()  # connected
        ref.tell("hold")
        for number in range(1, 501):
            socket.send(wire.pack_header(Kind.SCORE, number, 10**7) + frame)
        with context.socket(zmq.DEALER) as later:
            # What another caller sends after them has arrived after them.
            later.connect(actor.listener.endpoint)
            later.send(wire.pack_header(Kind.PING, 0) + frame)
            threading.Event().wait(0.5)  # the sockets' own threads move the frames meanwhile
            actor.go_on.set()
            assert later.poll(LIMIT_S * 1000)
        assert [wire.unpack_header(socket.recv()).id for _ in range(500)] == list(range(1, 501))
    assert actor.batches[0] == 1
    # About two milliseconds' worth each: how many that are is for the machine to say.
    assert max(actor.batches) > 5
    assert sum(actor.batches) == 501


def test_a_storm_of_messages_from_many_threads_loses_none(ref: pykka.ActorRef[Echo]) -> None:
    actor: Any = ref._actor_weakref()

    def teller(number: int) -> None:
        for i in range(2000):
            ref.tell((number, i))

    threads = [threading.Thread(target=teller, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    assert ref.ask("last", timeout=LIMIT_S) == 16_001
    for n in range(8):  # in each teller's order
        assert [i for m, i in actor.told[:-1] if m == n] == list(range(2000))


def test_asks_that_a_stop_overtakes_are_refused_as_pykka_defines(ref: pykka.ActorRef[Echo]) -> None:
    actor: Any = ref._actor_weakref()
    ref.ask("endpoint", timeout=LIMIT_S)
    ref.tell("hold")
    stopped = ref.stop(block=False)
    late = ref.ask("late", block=False)
    actor.go_on.set()
    assert stopped.get(timeout=LIMIT_S)
    with pytest.raises(pykka.ActorDeadError):
        late.get(timeout=LIMIT_S)
