"""Canaries that grow by a schedule and return by themselves, judged by whichever node looks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest

from governance.audit import entries, verify
from governance.canary import finish, set_percent
from governance.canary import stop as stop_canary
from governance.canary_steps import Canary, steps
from governance.canary_watch import act, look, report, standing
from governance.changes import rollback
from governance.database import Connection, connect
from governance.errors import ApprovalNeededError, GateError, PolicyError, PromotionRefusedError
from governance.freezes import freeze, thaw
from governance.history import history
from governance.policy import read_policy, set_policy
from governance.promotion import decide, promote
from governance.proposals import add_approver
from governance.releases import current_release
from governance.rollouts import acknowledge, rollouts
from models.histogram import bucket, merge
from tests.governance.conftest import enter
from tests.governance.test_canary import current
from tests.governance.test_canary import look as view_of

SCHEDULE = (1.0, 25.0, 100.0)
GATES = {"min_observations": 200, "max_error_rate": 0.01, "max_latency_ratio": 1.5, "max_psi": 0.2}


def counts(
    requests: int, *, failed: int = 0, ms: float = 1.0, shift: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """What a node counts: scores of a beta distribution, times around some milliseconds."""
    rng = np.random.default_rng(seed)
    answered = requests - failed
    return {
        "requests": requests,
        "errors": {"bad_transaction": failed} if failed else {},
        "latency": merge({bucket(one): 1} for one in rng.lognormal(np.log(ms * 1e3), 0.3, answered)),
        "scores": merge({bucket(one): 1} for one in rng.beta(1 + shift, 8, answered)),
    }


@pytest.fixture
def begun(connection: Connection, stages: dict[str, str]) -> int:
    """A canary with a schedule and gates, whose steps need no time; return its number."""
    promote(connection, environment="qa", stages=stages, by="ann")
    set_policy(connection, "qa", read_policy({"canary": GATES}), by="olga", reason="x")
    return start(connection, stages)


def start(connection: Connection, stages: dict[str, str], **more: Any) -> int:
    plan = Canary(SCHEDULE[0], "customer", SCHEDULE, **more)
    return promote(connection, environment="qa", stages=stages, by="ann", canary=plan).release.number


def tell(connection: Connection, canary: dict[str, Any], champion: dict[str, Any], node: str = "p-0") -> None:
    found = standing(connection, "qa")
    assert found is not None
    both = {"canary": canary, "champion": champion}
    report(connection, "qa", number=found.release, step=found.step, node_id=node, counts=both)


def percent(connection: Connection) -> float | None:
    found = standing(connection, "qa")
    return found.percent if found else None


def outcomes(connection: Connection) -> list[tuple[float, str]]:
    return [(one["percent"], one["outcome"]) for one in reversed(steps(connection, "qa"))]


def test_a_good_canary_grows_to_the_end_by_itself(dsn: str, connection: Connection, begun: int) -> None:
    for asked, follows in zip(SCHEDULE, (*SCHEDULE[1:], None), strict=True):
        view = view_of(dsn)
        assert view.canary is not None
        assert (view.canary.percent, view.canary.watched) == (asked, True)
        # Not before it was seen often enough.
        assert act(connection, "qa", by="p-0") == ""
        # At 100 percent the champion has none, and is taken from before.
        tell(connection, counts(250), counts(2000 if asked < 100 else 0, seed=1))
        found = standing(connection, "qa")
        assert found is not None
        assert {one.state for one in found.judgements} == {"holds"}
        assert found.follows == follows
        assert act(connection, "qa", by="p-0")
    assert current(connection) == begun
    assert standing(connection, "qa") is None
    assert outcomes(connection) == [(1, "grew"), (25, "grew"), (100, "finished")]
    assert all(one["figures"]["canary"]["requests"] == 250 for one in steps(connection, "qa"))
    assert [tenure.number for tenure in history(connection, "qa")] == [2, 1]
    assert "PSI" not in history(connection, "qa")[0].comment
    assert "canary 2 becomes current after 100 %" in history(connection, "qa")[0].comment
    assert rollback(connection, "qa", by="bob", reason="x").release.number == 1
    verify(connection)


@pytest.mark.parametrize(
    ("canary", "gate"),
    [
        (counts(400, shift=2.0), "max_psi"),
        (counts(400, ms=3.0), "max_latency_ratio"),
        (counts(400, failed=20), "max_error_rate"),
        # So many that chance is no explanation: it need not be seen 200 times.
        (counts(30, failed=30), "max_error_rate"),
    ],
)
def test_a_broken_gate_ends_it_at_once_with_its_figures(
    dsn: str, connection: Connection, begun: int, canary: dict[str, Any], gate: str
) -> None:
    tell(connection, canary, counts(2000, failed=5, seed=1))
    said = act(connection, "qa", by="p-0")
    assert f"canary {begun} has returned at 1 %: {gate}:" in said
    assert view_of(dsn).canary is None
    assert current(connection) == 1
    (step,) = steps(connection, "qa")
    assert step["outcome"] == "returned"
    assert step["figures"]["canary"]["requests"] == canary["requests"]
    last = list(entries(connection, environment="qa"))[-1].facts
    assert (last["actor"], last["what"]) == ("p-0", "environment")
    assert last["reason"] == said
    assert "is allowed" in said
    verify(connection)


def test_chance_ends_nothing(connection: Connection, begun: int) -> None:
    # A fault or two in a few, a slow one, and few scores.
    tell(connection, counts(25, failed=2, ms=3.0, shift=2.0), counts(2000, seed=1))
    assert act(connection, "qa", by="p-0") == ""
    assert percent(connection) == 1
    found = standing(connection, "qa")
    assert found is not None
    assert {one.state for one in found.judgements} == {"waits"}
    assert "25 of 200 transactions" in found.held_up
    assert found.release == begun


def test_it_grows_no_sooner_than_its_time(connection: Connection, stages: dict[str, str]) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    start(connection, stages, step_s=3600)
    assert act(connection, "qa", by="p-0") == ""
    found = standing(connection, "qa")
    assert found is not None
    assert found.due is not None
    assert (found.due - found.since).total_seconds() == 3600
    # Without a policy nothing is asked of it, and nothing ends it.
    assert found.judgements == ()


def test_what_nodes_counted_is_added_and_outlives_them(connection: Connection, begun: int) -> None:
    del begun
    # Said twice is counted once.
    for _ in range(2):
        tell(connection, counts(150), counts(900, seed=1), node="p-0")
    tell(connection, counts(150, seed=2), counts(900, seed=3), node="p-1")
    found = standing(connection, "qa")
    assert found is not None
    assert (found.figures.nodes, found.figures.canary.requests, found.figures.champion.requests) == (
        2,
        300,
        1800,
    )
    assert act(connection, "qa", by="p-1")


def test_two_nodes_that_judge_at_once_let_it_grow_once(dsn: str, connection: Connection, begun: int) -> None:
    del begun
    tell(connection, counts(250), counts(2000, seed=1))
    together, said = threading.Barrier(6), []

    def judge(name: str) -> None:
        with connect(dsn) as own:
            together.wait()
            said.append(act(own, "qa", by=name))

    threads = [threading.Thread(target=judge, args=(f"p-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said)[:5] == [""] * 5
    assert outcomes(connection) == [(1, "grew"), (25, "")]


def test_hundreds_of_nodes_look_as_often_as_one(connection: Connection, begun: int) -> None:
    del begun
    tell(connection, counts(250), counts(2000, seed=1))
    assert look(connection, "qa", by="p-0")
    tell(connection, counts(250), counts(2000, seed=1))
    assert look(connection, "qa", by="p-1") == ""
    give_up_at = time.monotonic() + 20
    while not (said := look(connection, "qa", by="p-1")):
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    assert "grows from 25 to 100" in said


def test_growth_waits_for_a_thaw_a_window_and_a_rollout_and_a_return_for_nothing(
    connection: Connection, stages: dict[str, str], begun: int
) -> None:
    tell(connection, counts(250), counts(2000, seed=1))
    freeze(connection, "qa", by="olga", reason="Black Friday")
    assert act(connection, "qa", by="p-0") == ""
    found = standing(connection, "qa")
    assert found is not None
    assert "frozen by olga: Black Friday" in found.held_up
    thaw(connection, "qa", by="olga")
    closed = {"opens": "00:00", "closes": "00:00:00.000001", "days": []}
    set_policy(connection, "qa", read_policy({"canary": GATES, "windows": [closed]}), by="o", reason="x")
    assert act(connection, "qa", by="p-0") == ""
    set_policy(connection, "qa", read_policy({"canary": GATES}), by="o", reason="x")
    enter(connection, "p-0")
    promote(connection, environment="qa", stages=stages, by="bob")
    assert act(connection, "qa", by="p-0") == ""
    freeze(connection, "qa", by="olga", reason="again")
    tell(connection, counts(400, failed=100), counts(2000, seed=1))
    assert f"canary {begun} has returned" in act(connection, "qa", by="p-0")


def test_a_hand_on_it_is_a_step_of_its_own_and_nothing_follows_from_nothing(
    connection: Connection, begun: int
) -> None:
    del begun
    tell(connection, counts(250), counts(2000, seed=1))
    set_percent(connection, "qa", 10, by="ann", reason="carefully")
    assert act(connection, "qa", by="p-0") == ""
    tell(connection, counts(250), counts(2000, seed=1))
    assert "grows from 10 to 25 %" in act(connection, "qa", by="p-0")
    set_percent(connection, "qa", 0, by="ann", reason="alerts")
    tell(connection, counts(250), counts(2000, seed=1))
    assert act(connection, "qa", by="p-0") == ""
    found = standing(connection, "qa")
    assert found is not None
    assert found.due is None
    stop_canary(connection, "qa", by="ann", reason="x")
    assert outcomes(connection) == [(1, "changed"), (10, "grew"), (25, "changed"), (0, "ended")]
    assert act(connection, "qa", by="p-0") == ""


def test_one_that_was_told_so_stays(connection: Connection, stages: dict[str, str]) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    start(connection, stages, stays=True)
    while act(connection, "qa", by="p-0"):
        pass
    assert percent(connection) == 100
    assert current(connection) == 1


def test_a_node_that_refuses_at_the_end_leaves_it_a_canary_and_is_asked_once(
    connection: Connection, stages: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    number = start(connection, stages)
    enter(connection, "p-0")
    while act(connection, "qa", by="p-0"):
        pass
    opened = rollouts(connection, "qa")[0]
    assert (opened.release.number, opened.state, opened.kind) == (number, "preparing", "promotion")
    acknowledge(connection, opened.id, "p-0", ready=False, reason="no memory")
    assert act(connection, "qa", by="p-0") == ""
    found = standing(connection, "qa")
    assert found is not None
    assert "nodes refused" in found.held_up
    assert len(rollouts(connection, "qa")) == 3


def test_a_node_may_grow_a_canary_and_open_no_other_rollout(
    connection: Connection, stages: dict[str, str], begun: int
) -> None:
    connection.execute("SET ROLE scorewire_node")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO rollout (environment, number, deadline) VALUES ('qa', 1, clock_timestamp())"
            )
        for _ in SCHEDULE:
            tell(connection, counts(250), counts(2000, seed=1))
            assert act(connection, "qa", by="p-0")
        with pytest.raises(psycopg.errors.RaiseException, match="no canary of qa was asked"):
            connection.execute("SELECT finish_canary('qa', 30, 'p-0', 'again')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM canary_step")
    finally:
        connection.execute("RESET ROLE")
    assert current(connection) == begun
    # Nor one that grows by hand.
    promote(connection, environment="qa", stages=stages, by="ann", canary=Canary(5))
    with pytest.raises(psycopg.errors.RaiseException, match="no canary of qa was asked"):
        connection.execute("SELECT finish_canary('qa', 30, 'p-0', 'x')")


def test_a_promoter_starts_grows_and_ends_canaries_with_that_role_alone(
    connection: Connection, stages: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    connection.execute("SET ROLE scorewire_promoter")
    try:
        start(connection, stages)
        set_percent(connection, "qa", 10, by="ann", reason="x")
        stop_canary(connection, "qa", by="ann", reason="x")
        number = start(connection, stages)
        finish(connection, "qa", by="ann", reason="x", prepare_s=30)
    finally:
        connection.execute("RESET ROLE")
    assert current(connection) == number


def test_a_policy_has_the_schedule_and_may_ask_for_a_canary(
    connection: Connection, stages: dict[str, str]
) -> None:
    policy = {"canary": {"required": True, "schedule": [5, 50], "step_minutes": 10}, "approvals": {"risk": 1}}
    promote(connection, environment="qa", stages=stages, by="ann")
    set_policy(connection, "qa", read_policy(policy), by="olga", reason="x")
    add_approver(connection, "rita", "risk", by="olga")
    with pytest.raises(GateError, match=r"canary\.required"):
        promote(connection, environment="qa", stages=stages, by="ann")
    with pytest.raises(PromotionRefusedError, match="the policy has a schedule: 5, 50 %, 10 minutes each"):
        start(connection, stages)
    with pytest.raises(ApprovalNeededError) as caught:
        promote(connection, environment="qa", stages=stages, by="ann", canary=Canary(1.0))
    decide(connection, caught.value.proposal, person="rita", role="risk", approves=True)
    found = standing(connection, "qa")
    assert found is not None
    assert (found.plan.schedule, found.plan.step_s, found.follows) == ((5, 50), 600, 5)
    assert current_release(connection, "qa") is not None


@pytest.mark.parametrize("schedule", [(5.0, 1.0), (1.0, 1.0), (0.0, 5.0), (5.0, 101.0), (float("nan"),)])
def test_a_schedule_grows(schedule: tuple[float, ...]) -> None:
    with pytest.raises(PromotionRefusedError):
        Canary(1.0, schedule=schedule)
    if 101.0 not in schedule:
        with pytest.raises(PolicyError):
            read_policy({"canary": {"schedule": schedule}})


def test_steps_that_are_over_stay_as_they_ended(connection: Connection, begun: int) -> None:
    stop_canary(connection, "qa", by="ann", reason="x")
    change: Callable[[str], Any] = lambda sql: connection.execute(sql.encode())  # noqa: E731
    for sql in (
        "UPDATE canary_step SET outcome = 'finished'",
        "DELETE FROM canary_step",
        "TRUNCATE canary_step",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
            change(sql)
    assert steps(connection, "qa")[0]["number"] == begun
