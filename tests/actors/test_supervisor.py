"""Supervision in the manner of OTP: strategies, restart types, intensity, escalation, order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

from actors.child import Child, Ending, life_of
from actors.errors import EscalationError, StartFailedError
from actors.supervisor import ChildSpec, ChildState, Strategy, Supervisor, WhichChildren

LIMIT_S = 10.0


class Diary:
    """What happened, in order; tests wait on it instead of sleeping."""

    def __init__(self) -> None:
        self._entries: queue.Queue[str] = queue.Queue()

    def write(self, entry: str) -> None:
        self._entries.put(entry)

    def read(self, count: int) -> list[str]:
        return [self._entries.get(timeout=LIMIT_S) for _ in range(count)]

    def is_empty(self) -> bool:
        return self._entries.empty()


class Worker(Child):
    def __init__(self, name: str, diary: Diary, *, fail_start: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.name, self.diary, self.fail_start = name, diary, fail_start

    def on_start(self) -> None:
        if self.fail_start():
            raise RuntimeError(f"{self.name} cannot start")
        self.diary.write(f"+{self.name}")

    def on_stop(self) -> None:
        self.diary.write(f"-{self.name}")

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, BaseException):
            raise message
        if callable(message):
            return message()
        return message


class Team:
    """A supervisor over workers, and hands to hurt them with."""

    def __init__(self) -> None:
        self.diary = Diary()
        self.refs: dict[str, pykka.ActorRef[Any]] = {}
        self.supervisors: list[pykka.ActorRef[Any]] = []

    def spec(self, name: str, *, fail_start: Callable[[], bool] = lambda: False, **more: Any) -> ChildSpec:
        def start() -> pykka.ActorRef[Any]:
            self.refs[name] = Worker.start(name, self.diary, fail_start=fail_start)
            return self.refs[name]

        return ChildSpec(id=name, start=start, **more)

    def supervise(
        self, *specs: ChildSpec, strategy: Strategy = "one_for_one", **more: Any
    ) -> pykka.ActorRef[Any]:
        ref = Supervisor.start(list(specs), strategy=strategy, **more)
        self.supervisors.append(ref)
        assert life_of(ref).started.wait(LIMIT_S)
        return ref

    def crash(self, name: str, error: BaseException | None = None) -> None:
        for supervisor in self.supervisors:
            children(supervisor)  # whatever it is at, it has done: the references are those of now
        self.refs[name].tell(error or ValueError("hurt"))


@pytest.fixture
def team() -> Iterator[Team]:
    team = Team()
    yield team
    for ref in team.supervisors:
        if ref.is_alive():
            ref.stop()
    assert not [ref for ref in team.refs.values() if ref.is_alive()]


def children(supervisor: pykka.ActorRef[Any]) -> dict[str, ChildState]:
    found: Any = supervisor.ask(WhichChildren(), timeout=LIMIT_S)
    return {child.id: child for child in found}


def test_children_start_in_order_and_stop_in_the_opposite_one(team: Team) -> None:
    supervisor = team.supervise(team.spec("a"), team.spec("b"), team.spec("c"))
    assert team.diary.read(3) == ["+a", "+b", "+c"]
    supervisor.stop()
    assert team.diary.read(3) == ["-c", "-b", "-a"]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("one_for_one", ["+b"]),
        ("rest_for_one", ["-c", "+b", "+c"]),
        ("one_for_all", ["-c", "-a", "+a", "+b", "+c"]),
    ],
)
def test_a_crash_restarts_what_the_strategy_says(team: Team, strategy: Strategy, expected: list[str]) -> None:
    supervisor = team.supervise(team.spec("a"), team.spec("b"), team.spec("c"), strategy=strategy)
    team.diary.read(3)
    team.crash("b")
    assert team.diary.read(len(expected)) == expected
    state = children(supervisor)["b"]
    assert (state.alive, state.restarts) == (True, 1)
    assert state.last_exit is not None
    assert state.last_exit.ending is Ending.CRASH


@pytest.mark.parametrize("how", ["crash", "normal"])
@pytest.mark.parametrize(
    ("restart", "restarted"),
    [("permanent", {"crash", "normal"}), ("transient", {"crash"}), ("temporary", set())],
)
def test_a_restart_type_says_which_ends_are_followed_by_a_restart(
    team: Team, restart: Any, restarted: set[str], how: str
) -> None:
    supervisor = team.supervise(team.spec("a", restart=restart), team.spec("witness"))
    team.diary.read(2)
    old = team.refs["a"]
    if how == "crash":
        team.crash("a")
    else:
        old.stop()
        team.diary.read(1)
    assert life_of(old).ended.wait(LIMIT_S)
    if how in restarted:
        assert team.diary.read(1) == ["+a"]
        assert children(supervisor)["a"].alive
    else:
        assert not children(supervisor)["a"].alive
        assert team.diary.is_empty()


def test_one_restart_too_many_ends_the_supervisor_after_its_children(team: Team) -> None:
    supervisor = team.supervise(team.spec("a"), team.spec("b"), max_restarts=2, period_s=60)
    team.diary.read(2)
    for _ in range(2):
        team.crash("b")
        team.diary.read(1)
    team.crash("b")
    assert life_of(supervisor).ended.wait(LIMIT_S)
    ended = life_of(supervisor).exit
    assert ended is not None
    assert isinstance(ended.error, EscalationError)
    assert team.diary.read(1) == ["-a"]


def test_restarts_that_lie_long_back_do_not_count(team: Team) -> None:
    supervisor = team.supervise(team.spec("a"), max_restarts=1, period_s=0.05)
    team.diary.read(1)
    for _ in range(4):
        team.crash("a")
        assert team.diary.read(1) == ["+a"]
        quiet_until = time.monotonic() + 0.06
        while time.monotonic() < quiet_until:
            children(supervisor)
    assert children(supervisor)["a"].restarts == 4


def test_an_escalation_is_a_crash_to_the_supervisor_above(team: Team) -> None:
    inner: list[pykka.ActorRef[Any]] = []

    def start_inner() -> pykka.ActorRef[Any]:
        inner.append(Supervisor.start([team.spec("a")], max_restarts=0, period_s=60))
        return inner[-1]

    outer = team.supervise(ChildSpec("inner", start_inner), team.spec("b"))
    assert team.diary.read(2) == ["+a", "+b"]
    team.crash("a")
    assert team.diary.read(1) == ["+a"]
    state = children(outer)["inner"]
    assert (state.alive, state.restarts, len(inner)) == (True, 1, 2)
    assert state.last_exit is not None
    assert isinstance(state.last_exit.error, EscalationError)


def test_a_child_that_cannot_start_makes_its_supervisor_fail_to_start(team: Team) -> None:
    supervisor = team.supervise(team.spec("a"), team.spec("b", fail_start=lambda: True), team.spec("c"))
    assert life_of(supervisor).ended.wait(LIMIT_S)
    ended = life_of(supervisor).exit
    assert ended is not None
    assert ended.ending is Ending.START_FAILED
    assert isinstance(ended.error, StartFailedError)
    assert "b could not start" in str(ended.error)
    assert team.diary.read(2) == ["+a", "-a"]
    assert team.diary.is_empty()


def test_a_child_that_takes_too_long_to_start_counts_as_failed(team: Team) -> None:
    go_on = threading.Event()
    spec = team.spec("slow", fail_start=lambda: not go_on.wait(LIMIT_S), start_s=0.05)
    supervisor = team.supervise(spec)
    assert life_of(supervisor).ended.wait(LIMIT_S)
    go_on.set()
    ended = life_of(supervisor).exit
    assert ended is not None
    assert "did not start within" in str(ended.error)
    assert life_of(team.refs["slow"]).ended.wait(LIMIT_S)


def test_a_failing_restart_is_tried_again_until_it_starts(team: Team) -> None:
    failures = iter([False, True, True, False])
    supervisor = team.supervise(team.spec("a", fail_start=lambda: next(failures)), max_restarts=5)
    team.diary.read(1)
    team.crash("a")
    assert team.diary.read(1) == ["+a"]
    assert children(supervisor)["a"].alive


def test_a_failing_restart_counts_and_escalates(team: Team) -> None:
    failures = iter([False])
    supervisor = team.supervise(
        team.spec("a", fail_start=lambda: next(failures, True)), max_restarts=3, period_s=60
    )
    team.diary.read(1)
    team.crash("a")
    assert life_of(supervisor).ended.wait(LIMIT_S)
    ended = life_of(supervisor).exit
    assert ended is not None
    assert isinstance(ended.error, EscalationError)


def test_an_exception_of_an_ask_goes_to_the_asker_and_kills_nobody(team: Team) -> None:
    supervisor = team.supervise(team.spec("a"))
    team.diary.read(1)
    with pytest.raises(ValueError, match="mine"):
        team.refs["a"].ask(ValueError("mine"), timeout=LIMIT_S)
    assert team.refs["a"].ask("echo", timeout=LIMIT_S) == "echo"
    assert children(supervisor)["a"].restarts == 0


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_base_exception_is_the_crash_of_one_actor_alone(team: Team, error: BaseException) -> None:
    supervisor = team.supervise(team.spec("a"), team.spec("b"))
    team.diary.read(2)
    team.crash("a", error)
    assert team.diary.read(1) == ["+a"]
    assert children(supervisor)["b"].restarts == 0
    assert team.refs["b"].ask("echo", timeout=LIMIT_S) == "echo"


def test_a_child_that_hangs_is_left_behind_and_holds_up_no_stop(team: Team) -> None:
    release, hangs = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        release.wait(LIMIT_S)

    supervisor = team.supervise(team.spec("a"), team.spec("hung", shutdown_s=0.05), team.spec("c"))
    team.diary.read(3)
    team.refs["hung"].tell(hang)
    assert hangs.wait(LIMIT_S)
    supervisor.stop()
    assert team.diary.read(2) == ["-c", "-a"]
    release.set()
    assert life_of(team.refs["hung"]).ended.wait(LIMIT_S)


def test_children_have_names_of_their_own_and_are_children(team: Team) -> None:
    with pytest.raises(ValueError, match="same id"):
        Supervisor.start([team.spec("a"), team.spec("a")])

    class Stranger(pykka.ThreadingActor):
        pass

    strangers: list[pykka.ActorRef[Any]] = []

    def start() -> pykka.ActorRef[Any]:
        strangers.append(Stranger.start())
        return strangers[-1]

    supervisor = team.supervise(ChildSpec("stranger", start))
    assert life_of(supervisor).ended.wait(LIMIT_S)
    strangers[0].stop()


def test_who_watches_a_life_that_is_over_is_told_at_once(team: Team) -> None:
    ref = Worker.start("a", team.diary)
    ref.stop()
    told = threading.Event()
    life_of(ref).watch(told.set)
    assert told.is_set()
