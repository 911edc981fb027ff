"""Open-loop load with a full history: each request is sent at its time, however slow the last ones are."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from transport.client import AsyncClient, ScorewireError

#: Connections of the caller through each HAProxy.
CONNECTIONS = 4
#: Callers of the closed loop that finds the capacity.
_CALLERS = 24


class Entry(NamedTuple):
    """One request and what became of it; times are time.time() seconds.

    Attributes:
        number: its place, which is its id.
        intended: when it was to be sent; its latency counts from there.
        sent: when it was.
        done: when its answer was there, or its error.
        answer_id: the id that the answer bears.
        release: the release that the answer names, 0 for an error.
        model: the digest of the model that the answer names.
        score: the score.
        error: what went wrong; "" if nothing did.
    """

    number: int
    intended: float
    sent: float
    done: float
    answer_id: str
    release: int
    model: str
    score: float
    error: str


@dataclass
class Load:
    """A caller and what it has seen.

    Args:
        addresses: the HAProxies.
        payments: what is sent, again and again under new ids.
        deadline: seconds that a request may take.
    """

    addresses: list[str]
    payments: list[dict[str, Any]]
    deadline: float
    history: list[Entry] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)

    def capacity(self, seconds: float) -> float:
        """Return the requests a second that a closed loop gets through."""
        return asyncio.run(self._closed_loop(seconds))

    def run(self, rate: float, stop: threading.Event) -> None:
        """Send at a steady rate until told to stop, and wait for what is under way."""
        asyncio.run(self._open_loop(rate, stop))

    async def _closed_loop(self, seconds: float) -> float:
        answered = 0
        async with self._client() as client:
            end = time.monotonic() + seconds

            async def call(first: int) -> None:
                nonlocal answered
                while time.monotonic() < end:
                    await client.score(self.payments[(first + answered) % len(self.payments)])
                    answered += 1

            await asyncio.gather(*(call(first) for first in range(_CALLERS)))
        return answered / seconds

    async def _open_loop(self, rate: float, stop: threading.Event) -> None:
        under_way: set[asyncio.Task[None]] = set()
        async with self._client() as client:
            began, number = time.time(), 0
            while not stop.is_set():
                intended = began + number / rate
                await asyncio.sleep(max(0.0, intended - time.time()))
                task = asyncio.create_task(self._send(client, number, intended))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                number += 1
            await asyncio.gather(*under_way)
            self.counters = client.inspect()["counters"]

    async def _send(self, client: AsyncClient, number: int, intended: float) -> None:
        payment = {**self.payments[number % len(self.payments)], "id": str(number)}
        sent = time.time()
        try:
            answer = await client.score(payment)
        except ScorewireError as error:
            told = f"{error.code}: {error.detail}"
            self.history.append(Entry(number, intended, sent, time.time(), "", 0, "", 0.0, told))
            return
        trace = answer.trace
        found = (answer.id, trace.release, trace.pipeline["model"], answer.score, "")
        self.history.append(Entry(number, intended, sent, time.time(), *found))

    def _client(self) -> AsyncClient:
        return AsyncClient(self.addresses, deadline=self.deadline, connections=CONNECTIONS)
