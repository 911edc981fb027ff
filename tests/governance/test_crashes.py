"""A process that is killed between any two statements of a change leaves nothing half done."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from governance.audit import verify
from governance.canary import canary
from governance.canary_steps import Canary, steps
from governance.canary_watch import act, report
from governance.changes import rollback
from governance.database import Connection, connect
from governance.errors import ApprovalNeededError
from governance.policy import Policy, read_policy, set_policy
from governance.promotion import decide, promote
from governance.proposals import add_approver, proposals
from governance.releases import current_release, releases
from governance.rollouts import acknowledge, rollouts, settle
from tests.governance.conftest import enter

#: More statements than any change has.
MOST = 60
Change = Callable[[Connection], None]


def die_before(number: int, dsn: str, change: Change) -> None:
    """Make a change, and die by kill -9 before its statement of that number (in a process of its own)."""
    execute, count = psycopg.Connection.execute, 0

    def counted(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return execute(self, *arguments, **more)

    with connect(dsn) as connection:
        psycopg.Connection.execute = counted  # type: ignore[method-assign]
        change(connection)
    os._exit(0)


def deaths(dsn: str, change: Change, check: Callable[[], bool]) -> int:
    """Kill a change before each of its statements in turn, until it comes through.

    Args:
        dsn: the database.
        change: made by each process anew.
        check: looks at what is there after each death; says whether the change is made.

    Returns:
        how many died.
    """
    context = multiprocessing.get_context("fork")
    for number in range(1, MOST):
        process = context.Process(target=die_before, args=(number, dsn, change))
        process.start()
        process.join(30)
        done = check()
        if process.exitcode == 0:
            assert done
            return number - 1
        assert process.exitcode == -signal.SIGKILL
        if done:
            return number
    raise AssertionError("it never came through")


def test_a_promotion_is_made_whole_or_not_at_all(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    def change(own: Connection) -> None:
        promote(own, environment="qa", stages=stages, by="ann")

    def check() -> bool:
        verify(connection)
        found = releases(connection, "qa")
        assert len(found) == len(rollouts(connection, "qa")) <= 1
        assert (current_release(connection, "qa") is not None) == bool(found)
        assert all(release.slots["champion"].stages == stages for release in found)
        return bool(found)

    assert deaths(dsn, change, check) > 5


def test_an_approval_that_releases_is_made_whole_or_not_at_all(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    set_policy(connection, "qa", Policy(approvals={"risk": 1}), by="olga", reason="x")
    add_approver(connection, "rita", "risk", by="olga")
    with pytest.raises(ApprovalNeededError):
        promote(connection, environment="qa", stages=stages, by="ann")

    def change(own: Connection) -> None:
        decide(own, 1, person="rita", role="risk", approves=True)

    def check() -> bool:
        verify(connection)
        (found,) = proposals(connection, "qa")
        released = found.state == "released"
        assert len(releases(connection, "qa")) == len(found.approvals) == int(released)
        return released

    assert deaths(dsn, change, check) > 5


def test_the_last_word_of_a_rollout_is_taken_whole_or_not_at_all(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "scorer-0")
    found = promote(connection, environment="qa", stages=stages, by="ann")

    def change(own: Connection) -> None:
        acknowledge(own, found.id, "scorer-0", ready=True, reason="")

    def check() -> bool:
        verify(connection)
        (now,) = rollouts(connection, "qa")
        active = now.state == "active"
        assert now.nodes == {"scorer-0": True if active else None}
        assert (current_release(connection, "qa") is not None) == active
        return active

    assert deaths(dsn, change, check) > 3


@pytest.mark.parametrize(
    ("failed", "schedule", "made"),
    [(30, (5.0, 50.0), "returned"), (0, (5.0, 50.0), "grew"), (0, (5.0,), "finished")],
)
def test_a_look_at_a_canary_returns_grows_or_finishes_it_whole_or_not_at_all(
    dsn: str,
    connection: Connection,
    stages: dict[str, str],
    failed: int,
    schedule: tuple[float, ...],
    made: str,
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    policy = {"canary": {"min_observations": 20, "max_error_rate": 0.01}}
    set_policy(connection, "qa", read_policy(policy), by="olga", reason="x")
    promote(connection, environment="qa", stages=stages, by="ann", canary=Canary(5.0, schedule=schedule))
    side: dict[str, Any] = {"latency": {}, "scores": {}}
    counts = {
        "canary": {"requests": 30, "errors": {"internal": failed}, **side},
        "champion": {"requests": 30, "errors": {}, **side},
    }
    report(connection, "qa", number=2, step=1, node_id="p-0", counts=counts)

    def change(own: Connection) -> None:
        act(own, "qa", by="p-0")

    def check() -> bool:
        verify(connection)
        found = {one["step"]: one["outcome"] for one in steps(connection, "qa")}
        now, beside = current_release(connection, "qa"), canary(connection, "qa")
        assert now is not None
        if found == {1: ""}:
            assert (now.number, beside and beside["percent"]) == (1, 5)
            assert len(rollouts(connection, "qa")) == 2
            return False
        assert found == ({1: made, 2: ""} if made == "grew" else {1: made})
        assert (beside and beside["percent"]) == (50 if made == "grew" else None)
        assert now.number == (2 if made == "finished" else 1)
        return True

    assert deaths(dsn, change, check) > 8


def test_a_rollback_is_made_whole_or_not_at_all(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    for _ in range(2):
        promote(connection, environment="qa", stages=stages, by="ann")
    enter(connection, "scorer-0")
    promote(connection, environment="qa", stages=stages, by="ann")

    def change(own: Connection) -> None:
        rollback(own, "qa", by="bob", reason="alerts")

    def check() -> bool:
        verify(connection)
        newest, *_ = rollouts(connection, "qa")
        back = newest.kind == "rollback"
        states = [rollout.state for rollout in rollouts(connection, "qa")]
        assert states == (["preparing", "abandoned"] if back else ["preparing"]) + ["active"] * 2
        return back

    assert deaths(dsn, change, check) > 5
    # Whoever made it is gone; the nodes end it.
    acknowledge(connection, rollouts(connection, "qa")[0].id, "scorer-0", ready=True, reason="")
    settle(connection, "qa")
    current = current_release(connection, "qa")
    assert current is not None
    assert current.number == 1
