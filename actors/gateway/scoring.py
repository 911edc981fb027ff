"""JSON transactions: one, or a batch of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from actors.config import GatewaySettings
from actors.gateway.errors import body_of
from actors.gateway.how import LEAST_MS, How, Priority, pack, read_how
from actors.gateway.message import HttpRequest, HttpResponse, Reader, json_response
from actors.gateway.upstream import Outcome, Upstream
from transport.client.answer import read_answer
from transport.client.errors import ScorewireError, TooLargeError
from transport.client.wire import Kind

#: Transactions of one batch that are under way at a time.
WINDOW = 64

DeadlineMs = Annotated[
    float, msgspec.Meta(ge=LEAST_MS, description="Milliseconds from now until an answer is of no more use.")
]
#: In JSON 3.0 is an integer as well.
ReleaseNumber = Annotated[
    float, msgspec.Meta(ge=1, le=2**31 - 1, multiple_of=1, description="A release that nodes hold.")
]


class ScoreBody(msgspec.Struct, forbid_unknown_fields=True):
    """One transaction, and how it is to be scored."""

    transaction: dict[str, Any]
    deadline_ms: DeadlineMs | None = None
    release: ReleaseNumber | None = None
    priority: Priority | None = None


class BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    """Transactions that are scored each for itself; the deadline is for all of them."""

    transactions: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]
    deadline_ms: DeadlineMs | None = None
    release: ReleaseNumber | None = None
    priority: Priority | None = None


class Scoring:
    """Answers `/v1/score` and `/v1/score/batch`.

    Args:
        upstream: whom to ask.
        limits: what a request may ask for.
    """

    def __init__(self, upstream: Upstream, limits: GatewaySettings) -> None:
        self._upstream = upstream
        self._limits = limits
        self._one, self._batch = Reader(ScoreBody), Reader(BatchBody)

    async def score(self, request: HttpRequest) -> HttpResponse:
        """Score one transaction.

        Raises:
            ScorewireError: the request is at fault, or cannot be answered.
        """
        body: ScoreBody = self._one.read(request.body)
        how = read_how(self._limits, request, body.deadline_ms, body.release, body.priority)
        packed = pack(body.transaction, how)
        newest = how.release is None
        frame = await self._upstream.ask(Kind.SCORE, packed, how.deadline, newest=newest)
        return json_response(read_answer(frame))

    async def batch(self, request: HttpRequest) -> HttpResponse:
        """Score a batch: one that is refused harms no other.

        Raises:
            ScorewireError: the request itself is at fault.
        """
        body: BatchBody = self._batch.read(request.body)
        if len(body.transactions) > self._limits.rows:
            detail = (
                f"a batch may have {self._limits.rows} transactions, this one has {len(body.transactions)}"
            )
            raise TooLargeError(detail, field="transactions", rule="rows")
        how = read_how(self._limits, request, body.deadline_ms, body.release, body.priority)
        packed = [_packed(one, how) for one in body.transactions]
        newest = how.release is None
        outcomes = await self._upstream.ask_many(Kind.SCORE, packed, how.deadline, WINDOW, newest=newest)
        return json_response({"results": [_told(outcome) for outcome in outcomes]})


def _packed(transaction: dict[str, Any], how: How) -> bytes | ScorewireError:
    try:
        return pack(transaction, how)
    except ScorewireError as error:
        return error


def _told(outcome: Outcome) -> dict[str, Any]:
    return body_of(outcome) if isinstance(outcome, ScorewireError) else read_answer(outcome)
