"""The client library: score transactions from threads (`Client`) or from asyncio (`AsyncClient`)."""

from __future__ import annotations

import asyncio
import threading
import types
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from . import wire
from .aio import AsyncChannel
from .answer import Answer, unpack_answer
from .channel import Channel
from .errors import ScorewireError
from .pool import Done
from .route import numbered
from .wire import Kind

if TYPE_CHECKING:
    from .traces import Traces

Transaction = Mapping[str, Any]

#: Seconds that a transaction may take when nothing else is said.
DEADLINE_S = 1.0
#: Transactions that score_many keeps under way.
WINDOW = 64


def _addresses(addresses: str | Collection[str]) -> list[str]:
    found = [part.strip() for part in addresses.split(",")] if isinstance(addresses, str) else list(addresses)
    found = [address for address in found if address]
    if not found:
        raise ValueError("a client needs at least one address, such as 'tcp://127.0.0.1:7301'")
    for address in found:
        if not address.startswith(("tcp://", "ipc://")):
            raise ValueError(f"an address starts with tcp:// or ipc://, got {address!r}")
    return found


def _check_deadline(deadline: float) -> float:
    if not 0 < deadline <= wire.MAX_BUDGET_S:
        raise ValueError(
            f"a deadline is seconds from now, over 0 and up to {wire.MAX_BUDGET_S:.0f}, got {deadline}"
        )
    return deadline


def _traces() -> Traces:
    """Return what makes spans.

    Raises:
        ImportError: OpenTelemetry is not installed.
    """
    from .traces import Traces  # noqa: PLC0415 - OpenTelemetry, which few have

    return Traces()


class _How(NamedTuple):
    """How a transaction is to be scored: what a caller may say with each."""

    deadline: float | None
    release: int | None
    replay: bool


class _Slot:
    """Takes one outcome from another thread: a Future's work at a third of its price."""

    __slots__ = ("_arrived", "_outcome")

    def __init__(self) -> None:
        self._outcome: bytes | Exception = b""
        self._arrived = threading.Lock()
        self._arrived.acquire()

    def put(self, outcome: bytes | Exception) -> None:
        """Hand the outcome over; called once."""
        self._outcome = outcome
        self._arrived.release()

    def take(self) -> bytes:
        """Wait for the outcome, and return it, or raise it."""
        self._arrived.acquire()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


class _Base:
    """What both clients share: addresses, default deadline, the channel."""

    _kind: ClassVar[type[Channel | AsyncChannel]]

    def __init__(
        self,
        addresses: str | Collection[str],
        *,
        deadline: float = DEADLINE_S,
        connections: int | None = None,
        traces: bool = False,
    ) -> None:
        self._traces = _traces() if traces else None
        self._deadline = _check_deadline(deadline)
        self._connections = connections
        self._channel = self._kind(numbered(_addresses(addresses), connections))

    def set_addresses(self, addresses: str | Collection[str]) -> None:
        """Use these nodes from now on; what the others hold is asked elsewhere."""
        self._channel.set_members(numbered(_addresses(addresses), self._connections))

    def inspect(self) -> dict[str, Any]:
        """Return the nodes' states by address, and the counters (sent, retried, expired, ...)."""
        return self._channel.inspect()

    def _submit(self, transaction: Transaction, how: _How, done: Done) -> None:
        seconds = self._deadline if how.deadline is None else _check_deadline(how.deadline)
        traceparent = ""
        if self._traces is not None:
            traceparent, done = self._traces.around(done)
        body = wire.pack_transaction(transaction, how.release, replay=how.replay, traceparent=traceparent)
        self._channel.submit(Kind.SCORE, body, seconds, done, newest=how.release is None)


class Client(_Base):
    """Scores transactions. One client serves any number of threads.

    Args:
        addresses: the preprocessor nodes, as a list or separated by commas: tcp://host:port or ipc://path.
        deadline: seconds that a transaction may take, unless a call says otherwise.
        connections: where the addresses are those of load balancers (HAProxy), how many connections to hold
            through each, so that requests are spread over the nodes behind it; None for nodes' addresses.
        traces: make a span of OpenTelemetry for each call that is sampled, and let it go on in the nodes.

    Example:
        with Client("tcp://127.0.0.1:7301,tcp://127.0.0.1:7302") as client:
            answer = client.score({"id": "1", "amount": 12.5}, deadline=0.2)
    """

    _kind = Channel

    def score(
        self,
        transaction: Transaction,
        *,
        deadline: float | None = None,
        release: int | None = None,
        replay: bool = False,
    ) -> Answer:
        """Score one transaction.

        Args:
            transaction: named fields: None, bool, int, float, str, bytes, lists and maps of them.
            deadline: seconds from now until an answer is of no more use.
            release: score with this release instead of the current one.
            replay: let it wait for all that is live, for transactions that nobody waits for.

        Raises:
            TransactionRefusedError: a field breaks a rule; `error.field` and `error.rule` say which.
            RefusedError: the request is at fault in another way.
            UnavailableError: no answer in time, no node, or all nodes full.
        """
        slot = _Slot()
        self._submit(transaction, _How(deadline, release, replay), slot.put)
        return unpack_answer(slot.take())

    def score_many(
        self,
        transactions: Iterable[Transaction],
        *,
        deadline: float | None = None,
        release: int | None = None,
        replay: bool = False,
        window: int = WINDOW,
    ) -> Iterator[Answer | ScorewireError]:
        """Score a stream of transactions, `window` of them under way at a time.

        Yields one result a transaction, in their order: its Answer, or the ScorewireError that `score`
        would have raised, so that one bad transaction harms no other. The deadline is each one's own.
        """
        how = _How(deadline, release, replay)
        under_way: deque[Future[bytes]] = deque()
        for transaction in transactions:
            if len(under_way) >= window:
                yield _outcome(under_way.popleft())
            under_way.append(self._begin_safely(transaction, how))
        while under_way:
            yield _outcome(under_way.popleft())

    def close(self) -> None:
        """Fail what is under way with ClosedError and free all sockets. Closing twice is harmless."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self, transaction: Transaction, how: _How) -> Future[bytes]:
        future: Future[bytes] = Future()

        def done(outcome: bytes | Exception) -> None:
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self._submit(transaction, how, done)
        return future

    def _begin_safely(self, transaction: Transaction, how: _How) -> Future[bytes]:
        try:
            return self._begin(transaction, how)
        except ScorewireError as error:
            future: Future[bytes] = Future()
            future.set_exception(error)
            return future


class AsyncClient(_Base):
    """The same for asyncio. It belongs to the event loop that first uses it, and has no thread of its own.

    Example:
        async with AsyncClient(["tcp://127.0.0.1:7301"]) as client:
            answer = await client.score({"id": "1", "amount": 12.5})
    """

    _kind = AsyncChannel

    async def score(
        self,
        transaction: Transaction,
        *,
        deadline: float | None = None,
        release: int | None = None,
        replay: bool = False,
    ) -> Answer:
        """Score one transaction; as Client.score."""
        return unpack_answer(await self._begin(transaction, _How(deadline, release, replay)))

    async def score_many(
        self,
        transactions: Iterable[Transaction],
        *,
        deadline: float | None = None,
        release: int | None = None,
        replay: bool = False,
        window: int = WINDOW,
    ) -> AsyncIterator[Answer | ScorewireError]:
        """Score a stream of transactions; as Client.score_many."""
        how = _How(deadline, release, replay)
        under_way: deque[asyncio.Task[Answer | ScorewireError]] = deque()
        try:
            for transaction in transactions:
                if len(under_way) >= window:
                    yield await under_way.popleft()
                under_way.append(asyncio.create_task(self._settle(transaction, how)))
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()

    async def close(self) -> None:
        """Fail what is under way with ClosedError and free all sockets. Closing twice is harmless."""
        self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        await self.close()

    def _begin(self, transaction: Transaction, how: _How) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def done(outcome: bytes | Exception) -> None:
            if future.done():  # cancelled by its caller
                return
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        self._submit(transaction, how, done)
        return future

    async def _settle(self, transaction: Transaction, how: _How) -> Answer | ScorewireError:
        try:
            return unpack_answer(await self._begin(transaction, how))
        except ScorewireError as error:
            return error


def _outcome(future: Future[bytes]) -> Answer | ScorewireError:
    try:
        return unpack_answer(future.result())
    except ScorewireError as error:
        return error
