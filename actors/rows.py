"""The rows that a scorer has before it, and how each is answered: by itself, or with those it came with.

A preprocessor that has several vectors at hand sends them in one message (`together.py`). They are scored and
answered as one, until one of them is at fault: then each is looked at alone, and is a row like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from actors.evaluation import FEATURES, Vectors
from transport.client import wire
from transport.client.errors import ProtocolError, ScorewireError
from transport.listener import Listener, Request

#: Rows that one message may have.
MOST_ROWS = 1024


class Row:
    """A vector that came in a message of its own.

    Args:
        listener: through which it came.
        request: the message.
        vectors: features stage to vector.
        count: how many vectors there are.
    """

    __slots__ = ("_listener", "count", "request", "vectors")

    def __init__(self, listener: Listener, request: Request, vectors: Vectors, count: int = 1) -> None:
        self._listener = listener
        self.request = request
        self.vectors = vectors
        self.count = count

    def alone(self) -> list[Row]:
        """Return each vector as a row of its own."""
        return [self]

    def answer(self, scores: Sequence[Mapping[str, float]], more: Mapping[str, Any]) -> None:
        """Answer with the scores of each vector; `more` stands beside them."""
        self._listener.answer(self.request, wire.pack_body({"scores": scores[0], **more}))

    def refuse(self, error: ScorewireError) -> None:
        """Answer with an error."""
        self._listener.refuse(self.request, error)

    def fail(self, error: Exception) -> None:
        """Answer with `internal`, so that it is asked elsewhere."""
        self._listener.fail(self.request, error)


class _Company:
    """What has become of the rows of one message so far."""

    def __init__(self, listener: Listener, request: Request, count: int) -> None:
        self._listener = listener
        self._request = request
        self._scores: list[Mapping[str, float] | None] = [None] * count
        self._errors: dict[int, ScorewireError] = {}
        self._more: Mapping[str, Any] = {}
        self._open = set(range(count))

    def settle(
        self, place: int, scores: Mapping[str, float] | None, more: Mapping[str, Any], error: Any = None
    ) -> None:
        """Take what has become of a row, once; with the last, answer the message."""
        if place not in self._open:
            return
        self._open.remove(place)
        self._scores[place] = scores
        self._more = more or self._more
        if error is not None:
            self._errors[place] = error
        if not self._open:
            self._send()

    def _send(self) -> None:
        packed = {place: wire.pack_error(error) for place, error in sorted(self._errors.items())}
        if len(packed) == len(self._scores) and len(set(packed.values())) == 1:
            # Nothing is said of one row alone: the message as a whole may find a better answer elsewhere.
            self._listener.refuse(self._request, self._errors[0])
            return
        told = [[place, wire.error_body(self._errors[place])] for place in packed]
        errors = {"errors": told} if told else {}
        self._listener.answer(self._request, wire.pack_body({"scores": self._scores, **self._more, **errors}))


class CompanyRow(Row):
    """A vector that came with others, and is looked at alone.

    Args:
        company: what has become of them.
        place: its place among them.
    """

    __slots__ = ("_company", "_place")

    def __init__(
        self, listener: Listener, request: Request, vectors: Vectors, company: _Company, place: int
    ) -> None:
        super().__init__(listener, request, vectors)
        self._company = company
        self._place = place

    def answer(self, scores: Sequence[Mapping[str, float]], more: Mapping[str, Any]) -> None:
        """Answer with its scores, once those beside it are settled."""
        self._company.settle(self._place, scores[0], more)

    def refuse(self, error: ScorewireError) -> None:
        """Answer with an error, once those beside it are settled."""
        self._company.settle(self._place, None, {}, error)

    def fail(self, error: Exception) -> None:
        """Answer with `internal`, once those beside it are settled."""
        self.refuse(ScorewireError(f"{type(error).__name__}: {error}"))


class Rows(Row):
    """Vectors that came in one message, and are scored and answered as one as long as none is at fault."""

    __slots__ = ()

    def alone(self) -> list[Row]:
        """Return each of them as a row of its own; the last that is settled has the one answer leave."""
        company, count = _Company(self._listener, self.request, self.count), self.count
        found: list[Row] = []
        for place in range(count):
            own = {
                stage: vector[place * len(vector) // count : (place + 1) * len(vector) // count]
                for stage, vector in self.vectors.items()
            }
            found.append(CompanyRow(self._listener, self.request, own, company, place))
        return found

    def answer(self, scores: Sequence[Mapping[str, float]], more: Mapping[str, Any]) -> None:
        """Answer with the scores of all."""
        self._listener.answer(self.request, wire.pack_body({"scores": scores, **more}))


def rows_of(listener: Listener, request: Request, body: Mapping[str, Any]) -> Row:
    """Return the row of a message, or its rows.

    Raises:
        ProtocolError: it has no vectors, or vectors that cannot be shared out.
    """
    vectors = _vectors(body)
    count = body.get("rows")
    if count is None:
        return Row(listener, request, vectors)
    if not isinstance(count, int) or not 0 < count <= MOST_ROWS:
        raise ProtocolError(f"a message has 1 to {MOST_ROWS} rows, got {count!r}", field="rows", rule="range")
    if any(len(vector) % count for vector in vectors.values()):
        raise ProtocolError(f"vectors of {count} rows have equal parts", field="rows", rule="length")
    return Rows(listener, request, vectors, count)


def _vectors(body: Mapping[str, Any]) -> Vectors:
    """Return features stage to vector: `vector` is that of the stage `features`, `vectors` has all."""
    vector = body.get("vector")
    if isinstance(vector, bytes):
        return {FEATURES: vector}
    vectors = body.get("vectors")
    if not isinstance(vectors, dict) or not all(isinstance(one, bytes) for one in vectors.values()):
        field = "vector" if vectors is None else "vectors"
        raise ProtocolError("a vector is raw little-endian float32", field=field, rule="type")
    return vectors
