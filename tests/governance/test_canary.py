"""Canaries: prepared by all nodes, given to some keys, grown, finished, or stopped."""

from __future__ import annotations

from typing import Any

import pytest

from governance.audit import verify
from governance.canary import Canary, finish, set_percent, stop
from governance.changes import rollback
from governance.database import Connection
from governance.errors import ApprovalNeededError, FrozenError, GateError, PromotionRefusedError
from governance.freezes import freeze
from governance.history import history
from governance.policy import read_policy, set_policy
from governance.promotion import decide, promote
from governance.proposals import add_approver
from governance.releases import current_release
from governance.rollouts import acknowledge
from governance.watcher import View, Watcher
from tests.governance.conftest import enter


def look(dsn: str) -> View:
    watcher = Watcher(dsn, "qa")
    try:
        view = watcher.pump()
        assert view is not None, watcher.reason
        return view
    finally:
        watcher.close()


def current(connection: Connection) -> int | None:
    found = current_release(connection, "qa")
    return found.number if found else None


@pytest.fixture
def served(connection: Connection, stages: dict[str, str]) -> dict[str, str]:
    promote(connection, environment="qa", stages=stages, by="ann")
    return stages


def start(connection: Connection, stages: dict[str, str], percent: float = 5.0, **more: Any) -> int:
    canary = Canary(percent, "customer")
    found = promote(connection, environment="qa", stages=stages, by="ann", canary=canary, **more)
    return found.release.number


def test_a_canary_is_beside_the_current_release_once_all_nodes_hold_it(
    dsn: str, connection: Connection, served: dict[str, str]
) -> None:
    enter(connection, "scorer-0")
    rollout = promote(connection, environment="qa", stages=served, by="ann", canary=Canary(5.0, "customer"))
    view = look(dsn)
    assert view.canary is None
    assert view.coming is not None
    assert (view.coming.kind, view.coming.percent, view.coming.key) == ("canary", 5.0, "customer")
    acknowledge(connection, rollout.id, "scorer-0", ready=True, reason="")
    view = look(dsn)
    assert view.canary is not None
    assert (view.canary.release.number, view.canary.percent, view.canary.key) == (2, 5.0, "customer")
    assert current(connection) == 1
    # It has not served: history, the way back and the next environment's gate know nothing of it.
    assert [tenure.number for tenure in history(connection, "qa")] == [1]
    with pytest.raises(PromotionRefusedError, match="release 2 was active"):
        rollback(connection, "qa", by="bob", reason="x", to=2)
    verify(connection)


def test_each_step_of_a_canary_is_news_for_those_who_stamp_it(
    dsn: str, connection: Connection, served: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=served, by="ann", canary=Canary(5.0))
    told = [look(dsn).activation]
    set_percent(connection, "qa", 5.0, by="ann", reason="no change")
    assert look(dsn).activation == told[0]
    set_percent(connection, "qa", 20.0, by="ann", reason="it does well")
    told.append(look(dsn).activation)
    stop(connection, "qa", by="ann", reason="enough")
    told.append(look(dsn).activation)
    assert told == sorted(set(told))


def test_a_canary_that_a_node_refuses_is_none(
    dsn: str, connection: Connection, served: dict[str, str]
) -> None:
    enter(connection, "scorer-0")
    rollout = promote(connection, environment="qa", stages=served, by="ann", canary=Canary(5.0))
    acknowledge(connection, rollout.id, "scorer-0", ready=False, reason="too large")
    assert look(dsn).canary is None


def test_it_grows_and_becomes_current(dsn: str, connection: Connection, served: dict[str, str]) -> None:
    number = start(connection, served)
    set_percent(connection, "qa", 50, by="ann", reason="no alerts")
    view = look(dsn)
    assert view.canary is not None
    assert view.canary.percent == 50
    finish(connection, "qa", by="ann", reason="all well", prepare_s=30)
    assert current(connection) == number
    assert look(dsn).canary is None
    assert history(connection, "qa")[0].kind == "promotion"
    assert rollback(connection, "qa", by="bob", reason="x").release.number == 1


def test_it_is_stopped_and_ends_with_whatever_becomes_current(
    dsn: str, connection: Connection, served: dict[str, str]
) -> None:
    number = start(connection, served)
    assert stop(connection, "qa", by="ann", reason="drift") == number
    assert look(dsn).canary is None
    start(connection, served)
    promote(connection, environment="qa", stages=served, by="ann")
    assert look(dsn).canary is None
    start(connection, served)
    rollback(connection, "qa", by="bob", reason="x")
    assert look(dsn).canary is None
    assert current(connection) == 1


def test_without_a_canary_or_a_percentage_nothing_happens(
    connection: Connection, stages: dict[str, str]
) -> None:
    with pytest.raises(PromotionRefusedError, match="beside a current one"):
        start(connection, stages)
    promote(connection, environment="qa", stages=stages, by="ann")
    for change in (
        lambda: set_percent(connection, "qa", 5, by="ann", reason="x"),
        lambda: finish(connection, "qa", by="ann", reason="x", prepare_s=30),
        lambda: stop(connection, "qa", by="ann", reason="x"),
    ):
        with pytest.raises(PromotionRefusedError, match="has no canary"):
            change()
    start(connection, stages)
    for wrong in (-1, 101, float("nan")):
        with pytest.raises(PromotionRefusedError, match="no percentage"):
            set_percent(connection, "qa", wrong, by="ann", reason="x")


def test_a_canary_passes_the_gates_and_the_people_like_any_promotion(
    dsn: str, connection: Connection, served: dict[str, str]
) -> None:
    set_policy(connection, "qa", read_policy({"after": ["integration"]}), by="olga", reason="x")
    with pytest.raises(GateError):
        start(connection, served)
    set_policy(connection, "qa", read_policy({"approvals": {"risk": 1}}), by="olga", reason="x")
    add_approver(connection, "rita", "risk", by="olga")
    with pytest.raises(ApprovalNeededError) as caught:
        start(connection, served)
    decide(connection, caught.value.proposal, person="rita", role="risk", approves=True)
    view = look(dsn)
    assert view.canary is not None
    assert view.canary.percent == 5
    assert current(connection) == 1


def test_a_frozen_environment_lets_a_canary_shrink_and_not_grow(
    dsn: str, connection: Connection, served: dict[str, str]
) -> None:
    start(connection, served)
    freeze(connection, "qa", by="olga", reason="Black Friday")
    with pytest.raises(FrozenError):
        set_percent(connection, "qa", 50, by="ann", reason="x")
    with pytest.raises(FrozenError):
        finish(connection, "qa", by="ann", reason="x", prepare_s=30)
    set_percent(connection, "qa", 0, by="ann", reason="alerts")
    view = look(dsn)
    assert view.canary is not None
    assert view.canary.percent == 0
    stop(connection, "qa", by="ann", reason="alerts")
