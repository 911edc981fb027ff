"""A supervisor in the manner of Erlang/OTP (`supervisor.erl`).

It starts its children in order, restarts those that end, and gives up when that happens too often, so that
its own supervisor, or the process, acts.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pykka

from actors import notify
from actors.blackbox import BlackBox
from actors.child import Child, Ending, Exit, life_of
from actors.errors import EscalationError, StartFailedError
from actors.node_watchdog import NodeWatchdog

logger = logging.getLogger(__name__)

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
Restart = Literal["permanent", "transient", "temporary"]

#: Seconds that a watched actor may be at one message.
HUNG_S = 10.0
#: Exit codes of a process.
STOPPED, ESCALATED, BOOT_FAILED = 0, 1, 3


@dataclass(frozen=True)
class ChildSpec:
    """How a child is started, restarted and stopped.

    Attributes:
        id: its name among its siblings.
        start: starts it and returns its reference; called again for each restart.
        restart: `permanent` children are always restarted, `transient` ones when they crash, `temporary`
            ones never.
        start_s: seconds that its on_start may take.
        shutdown_s: seconds that it may take to stop.
    """

    id: str
    start: Callable[[], pykka.ActorRef[Any]]
    restart: Restart = "permanent"
    start_s: float = 30.0
    shutdown_s: float = 5.0


@dataclass(frozen=True)
class ChildState:
    """What a supervisor knows of a child.

    Attributes:
        id: its name.
        alive: whether it lives.
        restarts: how often it was restarted.
        last_exit: how it ended last; None if it never did.
    """

    id: str
    alive: bool
    restarts: int
    last_exit: Exit | None


@dataclass(frozen=True)
class _Ended:
    """The message that a child has ended."""

    id: str
    ref: pykka.ActorRef[Any]


@dataclass(frozen=True)
class WhichChildren:
    """The message that asks for the ChildState of each child, in their order."""


class Supervisor(Child):
    """Keeps its children alive.

    Args:
        children: what to start, in this order; stopped in the opposite one.
        strategy: `one_for_one` restarts the child that ended, `one_for_all` all of them, `rest_for_one` that
            one and those that were started after it.
        max_restarts: restarts within period_s that are borne; one more is an EscalationError, which ends
            this supervisor after its children.
        period_s: seconds, on the monotonic clock.

    A child that cannot start makes this supervisor's own start fail; at a restart it counts as one more
    restart, as in OTP.
    """

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        strategy: Strategy = "one_for_one",
        max_restarts: int = 3,
        period_s: float = 5.0,
    ) -> None:
        super().__init__()
        if len({spec.id for spec in children}) != len(children):
            raise ValueError("two children have the same id")
        self._specs = list(children)
        self._strategy = strategy
        self._max_restarts = max_restarts
        self._period_s = period_s
        self._alive: dict[str, pykka.ActorRef[Any]] = {}
        self._restarts: dict[str, int] = dict.fromkeys((spec.id for spec in children), 0)
        self._last_exit: dict[str, Exit] = {}
        self._recent: deque[float] = deque()

    def on_start(self) -> None:
        """Start all children in order; if one fails, stop those before it."""
        try:
            for spec in self._specs:
                self._start(spec)
        except BaseException:
            self._stop_children(self._specs)
            raise

    def on_stop(self) -> None:
        """Stop all children in the opposite order."""
        self._stop_children(self._specs)

    def on_failure(self, *_: object) -> None:
        """Stop all children: an escalation leaves none behind."""
        self._stop_children(self._specs)

    def on_receive(self, message: Any) -> Any:
        """Take the end of a child, or a question about them."""
        if isinstance(message, _Ended):
            self._take_end(message)
            return None
        if isinstance(message, WhichChildren):
            return tuple(
                ChildState(
                    spec.id, spec.id in self._alive, self._restarts[spec.id], self._last_exit.get(spec.id)
                )
                for spec in self._specs
            )
        return super().on_receive(message)

    def _start(self, spec: ChildSpec) -> None:
        ref = spec.start()
        life = life_of(ref)
        if not life.started.wait(spec.start_s):
            ref.stop(block=False)
            raise StartFailedError(f"{spec.id} did not start within {spec.start_s} s")
        if life.exit is not None and life.exit.ending is Ending.START_FAILED:
            self._last_exit[spec.id] = life.exit
            raise StartFailedError(f"{spec.id} could not start: {life.exit.error!r}") from life.exit.error
        self._alive[spec.id] = ref
        # Told, not called: the child's thread must not run the supervisor's code.
        life.watch(lambda: _tell(self.actor_ref, _Ended(spec.id, ref)))

    def _take_end(self, message: _Ended) -> None:
        if self._alive.get(message.id) is not message.ref:
            return  # stopped by this supervisor, or already replaced
        del self._alive[message.id]
        ended = life_of(message.ref).exit or Exit(Ending.NORMAL)
        self._last_exit[message.id] = ended
        spec = next(spec for spec in self._specs if spec.id == message.id)
        logger.warning("%s ended (%s)", spec.id, ended)
        if spec.restart == "permanent" or (spec.restart == "transient" and ended.ending is not Ending.NORMAL):
            self._restart(spec)

    def _restart(self, spec: ChildSpec) -> None:
        """Restart what the strategy says, again and again until it starts or the intensity is exceeded."""
        affected = self._affected(spec)
        while True:
            self._count_restart(spec)
            self._stop_children(affected)
            try:
                for one in affected:
                    self._start(one)
                    self._restarts[one.id] += 1
            except StartFailedError as error:
                logger.warning("restart failed: %s", error)
            else:
                return

    def _affected(self, spec: ChildSpec) -> list[ChildSpec]:
        if self._strategy == "one_for_one":
            return [spec]
        first = 0 if self._strategy == "one_for_all" else self._specs.index(spec)
        rest = self._specs[first:]
        return [one for one in rest if one is spec or one.restart != "temporary" or one.id in self._alive]

    def _count_restart(self, spec: ChildSpec) -> None:
        now = time.monotonic()
        self._recent.append(now)
        while self._recent[0] < now - self._period_s:
            self._recent.popleft()
        if len(self._recent) > self._max_restarts:
            raise EscalationError(
                f"{len(self._recent)} restarts within {self._period_s} s, the last of {spec.id} "
                f"({self._last_exit.get(spec.id)})",
            )

    def _stop_children(self, specs: Sequence[ChildSpec]) -> None:
        for spec in reversed(specs):
            ref = self._alive.pop(spec.id, None)
            if ref is None:
                continue
            _stop(ref)
            if life_of(ref).ended.wait(spec.shutdown_s):
                self._last_exit[spec.id] = life_of(ref).exit or Exit(Ending.NORMAL)
            else:
                # A thread cannot be killed; it is a daemon, and the process's end will end it.
                logger.error(
                    "%s hangs: it did not stop within %s s and is left behind", spec.id, spec.shutdown_s
                )


def _tell(ref: pykka.ActorRef[Any], message: object) -> None:
    try:
        ref.tell(message)
    except pykka.ActorDeadError:
        logger.debug("nobody is left to be told %s", message)


def _stop(ref: pykka.ActorRef[Any]) -> None:
    try:
        ref.stop(block=False)
    except pykka.ActorDeadError:
        logger.debug("%s had ended already", ref)


def run_top(
    start: Callable[[], pykka.ActorRef[Any]],
    *,
    shutdown_s: float = 20.0,
    hung_s: float = HUNG_S,
    ready: Callable[[], bool] = lambda: True,
    box: BlackBox | None = None,
) -> int:
    """Run a supervisor at the top of a process until it ends, or SIGTERM or SIGINT says so.

    Call it from the main thread. The signal handler only sets an event; all work is done here.

    Args:
        start: starts the supervisor.
        shutdown_s: seconds that an orderly stop may take.
        hung_s: seconds that a watched actor may be at one message, before the process ends with HUNG.
        ready: says whether the process can do its work; told to whoever started it.
        box: takes the stacks of a process that hangs.

    Returns:
        the process's exit code: STOPPED as asked, ESCALATED, or BOOT_FAILED.
    """
    asked, wake = threading.Event(), threading.Event()

    def ask(*_: object) -> None:
        asked.set()
        wake.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    watchdog = NodeWatchdog(hung_s, ready, box)
    try:
        ref = start()
        life = life_of(ref)
        life.watch(wake.set)
        watchdog.start()
        while not wake.wait(1.0):  # with a limit, so that Python runs its signal handlers
            pass
        watchdog.stop()
        notify.tell(notify.STOPPING)
        if asked.is_set() and not life.ended.is_set():
            _stop(ref)
            if not life.ended.wait(shutdown_s):
                logger.error("the stop took over %s s: ending all the same", shutdown_s)
                return ESCALATED
        return _exit_code(life.exit)
    finally:
        watchdog.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(ended: Exit | None) -> int:
    if ended is None or ended.ending is Ending.NORMAL:
        return STOPPED
    logger.error("the node ends: %s", ended)
    return BOOT_FAILED if ended.ending is Ending.START_FAILED else ESCALATED
