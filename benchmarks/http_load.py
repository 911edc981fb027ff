"""A caller over HTTP that costs little: it sends requests that were written before."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import uvloop

#: Seconds of the warm-up.
WARM_S = 0.5


def post(path: str, body: bytes, **headers: str) -> bytes:
    """Write a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", "Content-Type: application/json", "Accept: */*"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


class Caller(asyncio.Protocol):
    """One connection: it sends its next request when the last was answered with 200, and ends otherwise."""

    def __init__(self, requests: Sequence[bytes], start: int, times: list[float]) -> None:
        self._requests = requests
        self._next = start
        self._times = times
        self._buffer = b""
        self._sent_at = 0.0
        self.failure = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport: Any = transport  # uvloop's is no asyncio.Transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Read an answer; what is not whole waits for the rest."""
        self._buffer += data
        head, ended, body = self._buffer.partition(b"\r\n\r\n")
        if not ended:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.failure = self._buffer.decode("latin-1")
            self._transport.close()
            return
        self._times.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests[self._next])
        self._next = (self._next + 1) % len(self._requests)


def drive(
    port: int, pids: Sequence[int], requests: Sequence[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """Ask in a closed loop; return rate, percentiles, and the CPU time that these processes took a request.

    Raises:
        RuntimeError: a request was not answered with 200.
    """
    return uvloop.run(_drive(port, pids, requests, connections, seconds))


async def _drive(
    port: int, pids: Sequence[int], requests: Sequence[bytes], connections: int, seconds: float
) -> dict[str, float]:
    loop, times = asyncio.get_running_loop(), list[float]()
    callers = []
    for number in range(connections):
        start = number * len(requests) // connections
        transport, caller = await loop.create_connection(
            lambda start=start: Caller(requests, start, times),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        callers.append((transport, caller))
    await asyncio.sleep(WARM_S)
    times.clear()
    began, busy = time.perf_counter(), cpu_s(pids)
    await asyncio.sleep(seconds)
    taken, busy = time.perf_counter() - began, cpu_s(pids) - busy
    count, p50, p99 = len(times), *np.quantile(times or [0.0], (0.5, 0.99))
    for transport, caller in callers:
        transport.close()
        if caller.failure or not count:
            raise RuntimeError(f"not answered with 200: {caller.failure[:2000] or 'no answer'}")
    return {
        "a_second": round(count / taken),
        "a_core_second": round(count / busy) if busy else 0,
        "cpu_us": round(busy / count * 1e6, 1),
        "p50_ms": round(float(p50) * 1e3, 3),
        "p99_ms": round(float(p99) * 1e3, 3),
    }


def cpu_s(pids: Sequence[int]) -> float:
    """Return the seconds of CPU time that processes have taken."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 - a Path costs more than the read
            fields = file.read().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
