"""A server for your own tests: real ZeroMQ at a real address, which answers what a test tells it to.

    from scorewire_client import Client
    from scorewire_client.testing import Server

    def test_a_high_score_is_declined() -> None:
        with Server({"fraud": 0.97}) as server, Client(server.address) as client:
            assert my_checkout(client, amount=12.5) == "declined"
            assert server.transactions[0]["amount"] == 12.5
            server.reply = OverloadedError("full")        # and every other error that a client can meet
            server.reply = Later(0.2, {"fraud": 0.1})     # late
            server.reply = None                           # never: the client's deadline passes
            server.reply = lambda transaction: {"fraud": min(1.0, transaction["amount"] / 1000)}

Nothing is replaced inside the client, so what a test sees is what happens in production: retries, deadlines,
reconnects and all. A server that was stopped may be started again; it listens at the same address.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import zmq

from . import wire
from .answer import Answer, Decision, Trace, pack_answer
from .errors import ScorewireError
from .running import Running
from .wire import Kind

#: What is said to one transaction: scores, a whole answer, an error, or nothing at all.
Said = Mapping[str, float] | Answer | ScorewireError | None

_LONGEST_WAIT_S = 0.05
_JOIN_S = 5.0


@dataclass(frozen=True)
class Later:
    """Something that is said only after so many seconds.

    Attributes:
        seconds: how long the caller waits for it.
        said: scores, an answer, an error, or nothing.
    """

    seconds: float
    said: Said


#: The same for every transaction, or worked out from each.
Reply = Said | Later | Callable[[dict[str, Any]], Said | Later]


def answer(
    scores: Mapping[str, float],
    *,
    id: str = "",  # noqa: A002 - the word on the wire
    outcome: str = "",
    reasons: tuple[str, ...] = (),
    release: int = 1,
    fallback: bool = False,
) -> Answer:
    """Return an answer as a preprocessor gives it.

    Args:
        scores: name of each output to its value.
        id: the transaction's id.
        outcome: `approve`, `review` or `decline`; "" where the release has no decision rules.
        reasons: the codes of the rules that gave the outcome.
        release: the number of the release.
        fallback: it is what the rules say where no score came in time; `scores` is then empty.
    """
    trace = Trace(release, "test", {}, {"preprocessor": "test"}, {"total": 0})
    return Answer(id, scores, trace, Decision(outcome, reasons) if outcome else None, fallback)


class Server(Running):
    """Answers transactions in a thread of its own. Use it as a context manager, or start and stop it.

    Args:
        reply: what is said to each transaction; may be set anew at any time.
        address: where to listen; by default at a free port of loopback.

    Attributes:
        reply: what is said to the transactions that come from now on. A function that raises a
            ScorewireError refuses with it; any other exception is the `internal` error of a broken node.
        ready: whether it says that it can serve; while it does not, clients ask elsewhere.
        transactions: those that have come, in their order; a repeated or hedged one comes again.
    """

    def __init__(self, reply: Reply, address: str = "tcp://127.0.0.1:*") -> None:
        self.reply = reply
        self.ready = True
        self.transactions: list[dict[str, Any]] = []
        self._address = address
        self._node = os.urandom(8).hex()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._later: list[tuple[float, int, bytes, bytes]] = []
        self._numbers = itertools.count()

    @property
    def address(self) -> str:
        """Where clients reach it."""
        return self._address

    def start(self) -> None:
        """Listen and answer; after a stop, at the same address again.

        Raises:
            zmq.ZMQError: the address is taken.
        """
        if self._thread is not None:
            return
        self._over.clear()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        try:
            socket.bind(self._address)
        except zmq.ZMQError:
            context.destroy(0)
            raise
        self._address = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._thread = threading.Thread(target=self._run, args=(context, socket), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Cut all connections, as a node that dies does. Stopping twice is harmless."""
        if self._thread is not None:
            self._over.set()
            self._thread.join(_JOIN_S)
            self._thread = None
            self._later.clear()

    def _run(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        try:
            while not self._over.is_set():
                wait_s = self._later[0][0] - time.monotonic() if self._later else _LONGEST_WAIT_S
                if socket.poll(max(0, int(min(wait_s, _LONGEST_WAIT_S) * 1e3))):
                    caller, *frames = socket.recv_multipart()
                    self._take(socket, caller, frames[0] if len(frames) == 1 else b"")
                while self._later and self._later[0][0] <= time.monotonic():
                    _, _, caller, frame = heapq.heappop(self._later)
                    socket.send_multipart((caller, frame))
        finally:
            context.destroy(0)

    def _take(self, socket: zmq.Socket[bytes], caller: bytes, frame: bytes) -> None:
        try:
            header = wire.unpack_header(frame)
            if header.kind is Kind.PING:
                state = "ready" if self.ready else "not_ready"
                told = wire.pack_body({"state": state, "node": self._node})
                socket.send_multipart((caller, wire.pack_header(Kind.PONG, header.id) + told))
                return
            transaction = wire.unpack_body(frame)["transaction"]
        except wire.UnreadableError as error:
            refusal = wire.pack_header(Kind.ERROR, error.id) + wire.pack_error(error)
            socket.send_multipart((caller, refusal))
            return
        self.transactions.append(transaction)
        said = self._say(transaction)
        seconds, said = (said.seconds, said.said) if isinstance(said, Later) else (0.0, said)
        if said is not None:
            packed = _packed(said, transaction, header.id)
            heapq.heappush(self._later, (time.monotonic() + seconds, next(self._numbers), caller, packed))

    def _say(self, transaction: dict[str, Any]) -> Said | Later:
        if not callable(self.reply):
            return self.reply
        try:
            return self.reply(transaction)
        except ScorewireError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the test's own function; the caller must hear of it
            return ScorewireError(f"{type(error).__name__}: {error}")


def _packed(
    said: Mapping[str, float] | Answer | ScorewireError, transaction: dict[str, Any], number: int
) -> bytes:
    if isinstance(said, ScorewireError):
        return wire.pack_header(Kind.ERROR, number) + wire.pack_error(said)
    if not isinstance(said, Answer):
        said = answer(said, id=str(transaction.get("id", "")))
    return wire.pack_header(Kind.ANSWER, number) + pack_answer(said)
