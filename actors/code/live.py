"""The code packages that an actor calls while it serves: none of its calls waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from actors.code.limits import CodeCrew
from actors.code.stage import CodeStage
from actors.code.workers import CodeWorkers
from transport.client.errors import ScorewireError
from transport.client.loop import Loop
from transport.mailbox import Timer

#: Seconds between two looks for packages that no release uses any more.
_LOOK_S: Final = 1.0


class LiveCode:
    """The workers of an actor, by package. Use it from the actor's thread only.

    Args:
        loop: the actor's loop.
        used: tells which packages the releases that are held now use, by digest.
        crew: the workers of each package.
    """

    def __init__(self, loop: Loop, used: Callable[[], set[str]], crew: CodeCrew) -> None:
        self._loop = loop
        self._used = used
        self._crew = crew
        self._workers: dict[str, CodeWorkers] = {}
        self._timer: Timer | None = None

    def submit(
        self,
        stage: CodeStage,
        payload: bytes,
        deadline: float,
        done: Callable[[Any], None],
        about: Mapping[str, object],
    ) -> None:
        """Call a package; as CodeWorkers.submit."""
        workers = self._workers.get(stage.digest) or self._hire(stage)
        workers.submit(payload, deadline, done, about)

    def gather(
        self,
        calls: Mapping[str, tuple[CodeStage, bytes]],
        deadline: float,
        done: Callable[[dict[str, Any] | ScorewireError], None],
        about: Mapping[str, object],
    ) -> None:
        """Call several packages at once.

        Args:
            calls: name to package and payload; not empty.
            deadline: time.monotonic seconds.
            done: called once: with the results by name when all are in, or with the first error.
            about: transaction and release, for the log.
        """
        found: dict[str, Any] = {}
        over = False

        def take(name: str, outcome: Any) -> None:
            nonlocal over
            if over:
                return
            found[name] = outcome
            if isinstance(outcome, ScorewireError):
                over = True
                done(outcome)
            elif len(found) == len(calls):
                over = True
                done(found)

        for name, (stage, payload) in calls.items():
            self.submit(stage, payload, deadline, partial(take, name), about)

    def counters(self) -> dict[str, dict[str, int]]:
        """Return what was counted of each package, by its name. Safe from any thread."""
        return {workers.stage.name: workers.counters() for workers in list(self._workers.values())}

    def pids(self) -> dict[str, list[int]]:
        """Return the processes of each package, by digest."""
        return {digest: workers.pids() for digest, workers in self._workers.items()}

    def close(self) -> None:
        """Fail what is under way, and end all workers."""
        if self._timer is not None:
            self._loop.remove(self._timer)
        for workers in self._workers.values():
            workers.close()
        self._workers.clear()

    def _hire(self, stage: CodeStage) -> CodeWorkers:
        if self._timer is None:
            self._timer = Timer(_LOOK_S, self._dismiss)
            self._loop.add(self._timer)
        workers = CodeWorkers(self._loop, stage, count=self._crew.workers, spares=self._crew.spares)
        self._workers[stage.digest] = workers
        return workers

    def _dismiss(self) -> None:
        """Let the workers of packages go that no release uses, once they have answered."""
        used = self._used()
        for digest, workers in list(self._workers.items()):
            if digest not in used and not workers.in_flight():
                del self._workers[digest]
                workers.release()
