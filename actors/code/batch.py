"""Calls a code package for many requests at once and waits for them: for prepare, shadows and rescoring."""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Sequence
from typing import Any, Self

from actors.code.stage import CodeStage
from actors.code.workers import CodeWorkers
from transport.client.errors import DeadlineExceededError, ScorewireError
from transport.client.loop import Loop

#: What came of one request: the stage's result, or why there is none.
Outcome = Any | ScorewireError


class CodeBatch:
    """The synchronous face of a code package's workers. Use it from one thread at a time, and close it.

    Args:
        stage: the package.
        count: workers that take requests.
        spares: further workers that are ready to follow.
    """

    def __init__(self, stage: CodeStage, *, count: int = 1, spares: int = 0) -> None:
        self._loop = Loop()
        self.workers = CodeWorkers(self._loop, stage, count=count, spares=spares)

    def run(self, payloads: Sequence[bytes], timeout_s: float) -> list[Outcome]:
        """Work on all requests; return their outcomes in the same order.

        Args:
            payloads: what the stage is called with, as actors.code.calls packs it.
            timeout_s: seconds for all of them; what is not answered by then is a DeadlineExceededError.
        """
        outcomes: list[Outcome] = [_NOTHING] * len(payloads)
        give_up_at = time.monotonic() + timeout_s
        feed = iter(enumerate(payloads))
        left, asked, exhausted = len(payloads), 0, not payloads

        def keep(place: int) -> Callable[[Any], None]:
            def done(outcome: Outcome) -> None:
                nonlocal left, asked
                if outcomes[place] is _NOTHING:
                    outcomes[place] = outcome
                    left -= 1
                    asked -= 1

            return done

        while left and time.monotonic() < give_up_at:
            # A window, so that a long batch is not refused for its length.
            while asked < _WINDOW and not exhausted:
                place, payload = next(feed, (-1, b""))
                exhausted = place < 0
                if not exhausted:
                    asked += 1
                    self.workers.submit(payload, give_up_at, keep(place))
            self._wait(give_up_at)
        late = DeadlineExceededError(f"{self.workers.stage.name} did not answer within {timeout_s:g} s")
        for place, outcome in enumerate(outcomes):
            if outcome is _NOTHING:
                outcomes[place] = late
        return outcomes

    def wait_ready(self, timeout_s: float, count: int = 1) -> bool:
        """Wait until `count` workers have loaded the package; False if one failed to, or time is up."""
        give_up_at = time.monotonic() + timeout_s
        while self.workers.ready() < count and not self.workers.start_failure:
            if time.monotonic() > give_up_at:
                return False
            self._wait(give_up_at)
        return not self.workers.start_failure

    def close(self) -> None:
        """Put ready workers by for whoever calls the package next, and end the others."""
        self.workers.release()
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()

    def _wait(self, give_up_at: float) -> None:
        timer = _Until(give_up_at)
        self._loop.add(timer)
        self._loop.sleep_ahead()
        for source in self._loop.wait():
            source.pump()
        self._loop.remove(timer)


class _Until:
    """A source that is due once, so that a wait ends."""

    def __init__(self, at: float) -> None:
        self._at = at

    def due(self) -> float:
        return self._at

    def pump(self) -> None:
        """Nothing is to be done."""


_NOTHING: Any = object()
_WINDOW = 512
