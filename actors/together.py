"""Vectors that a preprocessor has at hand at once go to a scorer in one message.

A message costs both sides more than a row of a small model does. Nothing waits for others to come: what one
slice of work made is shared out among the scorers that can be asked, up to ROWS a message. What goes wrong
with a message of several is found out by asking for each of its rows alone.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from transport.client import wire
from transport.client.errors import (
    ClosedError,
    DeadlineExceededError,
    NoNodeError,
    OverloadedError,
    ScorewireError,
    UnknownReleaseError,
)
from transport.client.member import MAX_FAILURES
from transport.client.wire import Kind

if TYPE_CHECKING:
    from actors.call import Call
    from transport.client.pool import Pool

#: Rows of one message at most: what a message costs is little by then, and the first row waits for the last.
ROWS: Final = 32
#: Rows share a message, and with it a deadline, whose times left are within a twentieth of each other.
_ALIKE: Final = 20.0
#: What a scorer said of a row: scores, or an error; None where that is not known.
_Part = wire.Body | ScorewireError | None
#: What is as true of each row of a message as of the message.
_OF_ALL: Final = (ClosedError, DeadlineExceededError, NoNodeError, OverloadedError, UnknownReleaseError)


class Together:
    """The vectors of one slice of work.

    Args:
        pool: the scorers.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._gathered: dict[tuple[int, bool, int], list[Call]] = defaultdict(list)

    def add(self, call: Call) -> None:
        """Take a call whose vectors are known."""
        left_s = call.deadline() - time.monotonic()
        alike = int(math.log(left_s) * _ALIKE) if left_s > 0 else 0
        self._gathered[call.loaded.release, call.request.replay, alike].append(call)

    def send(self) -> None:
        """Ask for all that was taken."""
        if not self._gathered:
            return
        gathered = list(self._gathered.values())
        self._gathered.clear()
        ready = 0
        for calls in gathered:
            if len(calls) > 1 and not ready:
                ready = list(self._pool.states().values()).count("ready") or 1
            share = min(ROWS, math.ceil(len(calls) / (ready or 1)))
            for start in range(0, len(calls), share):
                self._ask(calls[start : start + share])

    def _ask(self, calls: list[Call]) -> None:
        call = calls[0]
        if len(calls) == 1:
            self._ask_alone(call, 0)
            return
        joined = {stage: b"".join([one.vectors[stage] for one in calls]) for stage in call.vectors}
        message = call.question(joined, {"rows": len(calls)})
        deadline = min(call.deadline() for call in calls)
        # One of them may be what ends a scorer: the others are not to be asked with it again.
        self._pool.submit(
            Kind.VECTOR,
            message,
            deadline,
            lambda outcome: self._share(calls, outcome),
            failed=MAX_FAILURES - 1,
        )

    def _ask_alone(self, call: Call, failed: int) -> None:
        message = call.question(call.vectors)
        self._pool.submit(Kind.VECTOR, message, call.deadline(), call.done, failed=failed)

    def _share(self, calls: list[Call], outcome: bytes | Exception) -> None:
        """Hand each call its part of what a scorer said."""
        if isinstance(outcome, _OF_ALL):
            for call in calls:
                call.done(outcome)
            return
        parts: Sequence[_Part] = [None] * len(calls)
        if isinstance(outcome, bytes):
            # What a scorer of another version says may have another shape.
            with contextlib.suppress(ScorewireError, TypeError, ValueError):
                parts = _parts(len(calls), outcome)
        for call, part in zip(calls, parts, strict=True):
            if part is None or type(part) is ScorewireError:
                self._ask_alone(call, 1)
            else:
                call.done(part)


def _parts(count: int, frame: bytes) -> Sequence[_Part]:
    """Return what a scorer said of each row."""
    body = wire.unpack_body(frame)
    scores = body.pop("scores", None)
    errors = {place: wire.error_of(told) for place, told in body.pop("errors", ())}
    if not isinstance(scores, list) or len(scores) != count:
        return [None] * count
    return [
        errors.get(place) if found is None else {**body, "scores": found}
        for place, found in enumerate(scores)
    ]
