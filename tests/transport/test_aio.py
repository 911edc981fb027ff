"""Actors on asyncio: an inbox over an event loop, and a pool that the event loop drives."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pykka
import pytest
import uvloop
import zmq

from tests.transport.conftest import LIMIT_S, echoed, wait_until
from transport.aio import AsyncMailbox
from transport.client import wire
from transport.client.aio import AsyncLoop
from transport.client.errors import DeadlineExceededError
from transport.client.pool import Pool
from transport.client.wire import Kind

Context = zmq.Context[zmq.Socket[bytes]]
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


class Ticking(pykka.ThreadingActor):
    """An actor whose event loop counts while it waits."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.new_loop = new_loop
        super().__init__()
        self.ticks = 0
        self.told: list[int] = []

    def _create_actor_inbox(self) -> AsyncMailbox:  # type: ignore[override]
        return AsyncMailbox(self.new_loop())

    def on_start(self) -> None:
        self.tick()

    def tick(self) -> None:
        self.ticks += 1
        self.actor_inbox.aio.call_later(0.001, self.tick)  # type: ignore[attr-defined]

    def on_receive(self, message: Any) -> Any:
        if message == "ticks":
            return self.ticks
        if message == "told":
            return self.told
        if message == "run":
            # As an actor does that leaves: the event loop runs to an end while messages come.
            self.actor_inbox.aio.run_until_complete(asyncio.sleep(0.1))  # type: ignore[attr-defined]
            return "ran"
        self.told.append(message)
        return None

    def on_stop(self) -> None:
        # Pykka reads what is left in the inbox after this.
        self.actor_inbox.close()  # type: ignore[attr-defined]


def tell_all(ref: pykka.ActorRef[Any], count: int) -> None:
    for number in range(count):
        ref.tell(number)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_the_event_loop_runs_while_its_actor_waits_and_messages_come_in_order(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    ref = Ticking.start(new_loop)
    try:
        wait_until(lambda: ref.ask("ticks", block=False).get(timeout=LIMIT_S) > 20)
        running = ref.ask("run", block=False)
        teller = threading.Thread(target=tell_all, args=(ref, 1_000))
        teller.start()
        # Messages interrupt the wait for messages alone, and nothing else that runs on the event loop.
        assert running.get(timeout=LIMIT_S) == "ran"
        teller.join()
        assert ref.ask("told", timeout=LIMIT_S) == list(range(1_000))
    finally:
        ref.stop(timeout=LIMIT_S)
    with pytest.raises(pykka.ActorDeadError):
        ref.tell(1)


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_pool_on_an_event_loop_answers_all_retries_and_keeps_deadlines(
    new_loop: Callable[[], asyncio.AbstractEventLoop], context: Context, threads: Any
) -> None:
    nodes = [threads(), threads()]
    aio = new_loop()
    loop = AsyncLoop(aio)
    pool = Pool(loop, context, [node.endpoint for node in nodes])

    async def ask(payload: Any, seconds: float = LIMIT_S, do: str = "echo") -> bytes:
        found: asyncio.Future[bytes] = aio.create_future()

        def done(outcome: bytes | Exception) -> None:
            if isinstance(outcome, Exception):
                found.set_exception(outcome)
            else:
                found.set_result(outcome)

        body = wire.pack_transaction({"do": do, "payload": payload})
        pool.submit(Kind.SCORE, body, time.monotonic() + seconds, done)
        loop.poke(pool)
        return await found

    async def everything() -> None:
        answers = await asyncio.gather(*(ask(number) for number in range(2_000)))
        assert [echoed(answer) for answer in answers] == [str(number) for number in range(2_000)]
        with pytest.raises(DeadlineExceededError):
            await ask(0, 0.1, do="silent")
        # One by one: what arrives while nothing else happens is seen as well.
        for number in range(50):
            assert echoed(await ask(number)) == str(number)
        nodes[0].kill()
        assert echoed(await ask("still")) == "still"
        pool.set_members([nodes[1].endpoint])
        assert echoed(await ask("one")) == "one"

    try:
        aio.run_until_complete(everything())
    finally:
        pool.close()
        loop.close()
        aio.close()
