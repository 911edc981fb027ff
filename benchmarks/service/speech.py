"""How a service is asked: the bytes of each request, and the score in an answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.service.traffic import Caller, HttpCaller, PoolCaller
from benchmarks.service.transactions import rows, transaction
from transport.client import wire


class Speech(Protocol):
    """A way to ask."""

    def caller(self, addresses: list[str]) -> Caller:
        """Return a caller with all of its requests made."""

    def score(self, answer: bytes) -> float:
        """Return the share of the positive class that an answer tells."""


class Wire:
    """The project's own wire format, through its pool."""

    def caller(self, addresses: list[str]) -> Caller:
        """Return a pool of preprocessors."""
        numbered = enumerate(rows().tolist())
        return PoolCaller(addresses, [wire.pack_transaction(transaction(*one)) for one in numbered])

    def score(self, answer: bytes) -> float:
        """Return the last score."""
        return float(list(wire.unpack_body(answer)["scores"].values())[-1])


def as_json(body: Callable[[int, list[float]], Any]) -> Callable[[int, list[float]], bytes]:
    """Have a body written as JSON."""
    return lambda number, row: json.dumps(body(number, row), separators=(",", ":")).encode()


@dataclass(frozen=True)
class Http:
    """A request over HTTP.

    Attributes:
        path: what is asked.
        body: the body for a transaction.
        read: the score in the body of an answer.
        headers: lines beside Host and Content-Length.
    """

    path: str
    body: Callable[[int, list[float]], bytes]
    read: Callable[[bytes], float]
    headers: str = "Content-Type: application/json\r\n"

    def caller(self, addresses: list[str]) -> Caller:
        """Return connections to the addresses, `host:port`, in turn."""
        parts = [one.rsplit(":", 1) for one in addresses]
        requests = [self._request(*one) for one in enumerate(rows().tolist())]
        return HttpCaller([(host, int(port)) for host, port in parts], requests)

    def score(self, answer: bytes) -> float:
        """Return what `read` finds."""
        return self.read(answer)

    def _request(self, number: int, row: list[float]) -> bytes:
        body = self.body(number, row)
        lines = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self.headers}"
        return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


#: A transaction as JSON, answered with `{"score": ...}`.
PLAIN = Http("/score", as_json(transaction), lambda answer: float(json.loads(answer)["score"]))
