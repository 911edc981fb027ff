"""Releases and rollouts: all nodes are ready, and only then is a release current."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from governance.artifacts import register
from governance.database import Connection, connect
from governance.errors import PromotionRefusedError, RolloutInProgressError, UnknownRolloutError
from governance.membership import RETURN_S, beat, leave, members, with_silence
from governance.promotion import promote
from governance.releases import current_release, releases
from governance.rollouts import acknowledge, rollout, rollouts, settle, wait_settled, wait_taken_up
from tests.governance.conftest import SPEC, enter, grow_old


def current(connection: Connection) -> int | None:
    found = current_release(connection, "qa")
    return found.number if found else None


def say(connection: Connection, rollout_id: int, node: str, *, ready: bool = True, reason: str = "") -> None:
    acknowledge(connection, rollout_id, node, ready=ready, reason=reason)


def test_a_promotion_without_nodes_is_active_at_once(connection: Connection, stages: dict[str, str]) -> None:
    found = promote(connection, environment="qa", stages=stages, by="ann", comment="first")
    assert found.state == "active"
    release = current_release(connection, "qa")
    assert release is not None
    assert (release.number, release.created_by, release.comment) == (1, "ann", "first")
    assert release.slots["champion"].stages == stages


def test_a_release_is_complete_what_is_not_named_is_kept(
    connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    promote(connection, environment="qa", stages=stages, by="ann", slot="challenger")
    path = tmp_path / "second.toml"
    path.write_text(SPEC.format(name="second"))
    second = register(connection, path, kind="feature_spec", name="second", by="ann").digest
    promote(connection, environment="qa", stages={"features": "second"}, by="ann")
    newest, middle, first = releases(connection, "qa")
    assert (newest.number, middle.number, first.number) == (3, 2, 1)
    assert newest.slots["champion"].stages == {"features": second, "model": stages["model"]}
    assert newest.slots["challenger"].stages == stages


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"features": "m"}, "no feature_spec 'm'"),
        ({"model": "0" * 64}, "no bundle"),
        ({"decision": "m"}, "no decision_rules 'm'"),
        ({"nonsense": "m"}, "no stage 'nonsense'"),
        ({"model": "m"}, "nothing for features"),
    ],
)
@pytest.mark.usefixtures("stages")
def test_a_promotion_that_breaks_a_rule_is_refused_and_leaves_no_release(
    connection: Connection, wrong: dict[str, str], why: str
) -> None:
    with pytest.raises(PromotionRefusedError, match=why):
        promote(connection, environment="qa", stages=wrong, by="ann")
    assert releases(connection, "qa") == []


def test_hostile_names_are_refused_by_the_database(connection: Connection, stages: dict[str, str]) -> None:
    for environment, slot in (("QA; DROP TABLE release", "champion"), ("qa", "shadow:"), ("qa", "'")):
        with pytest.raises(psycopg.errors.CheckViolation):
            promote(connection, environment=environment, stages=stages, by="ann", slot=slot)


def test_a_release_is_current_only_when_the_last_node_is_ready(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "a")
    enter(connection, "b")
    enter(connection, "elsewhere", environment="production")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    assert (opened.state, dict(opened.nodes)) == ("preparing", {"a": None, "b": None})
    say(connection, opened.id, "a")
    assert current(connection) is None
    say(connection, opened.id, "b")
    assert current(connection) == 1
    assert rollout(connection, opened.id).state == "active"


def test_one_refusal_abandons_a_rollout_with_its_reason(
    connection: Connection, stages: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    enter(connection, "a")
    enter(connection, "b")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    say(connection, opened.id, "a", ready=False, reason="golden vector 3 differs")
    settled = rollout(connection, opened.id)
    assert settled.state == "abandoned"
    assert settled.reason == "refused by a: golden vector 3 differs"
    assert current(connection) == 1
    # A late word changes nothing
    say(connection, opened.id, "b")
    assert rollout(connection, opened.id) == settled


def test_a_node_that_falls_silent_is_no_longer_waited_for(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "a")
    enter(connection, "b")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    grow_old(connection, "b")
    say(connection, opened.id, "a")
    assert rollout(connection, opened.id).state == "active"


def heard(connection: Connection, *nodes: str) -> None:
    for node in nodes:
        assert beat(connection, node, state="ready", release=None, endpoints=())


def test_after_an_outage_a_release_waits_for_those_that_have_yet_to_come_back(
    connection: Connection, stages: dict[str, str]
) -> None:
    for name in ("a", "b", "dies meanwhile", "dead before"):
        enter(connection, name)
    grow_old(connection, "dead before")
    for name in ("a", "b", "dies meanwhile", "dead before"):
        grow_old(connection, name, 3600)
    # Nobody is heard: the database was away, for however long
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    assert (opened.state, set(opened.nodes)) == ("preparing", {"a", "b", "dies meanwhile", "dead before"})
    heard(connection, "a")
    say(connection, opened.id, "a")
    assert rollout(connection, opened.id).state == "preparing"
    heard(connection, "b")
    say(connection, opened.id, "b")
    # Who is not back by the time in which all could be is dead
    assert rollout(connection, opened.id).state == "preparing"
    connection.execute("UPDATE member SET back_at = back_at - make_interval(secs => %s)", (RETURN_S,))
    settle(connection, "qa")
    assert rollout(connection, opened.id).state == "active"


def test_a_node_that_fell_silent_before_an_outage_is_not_waited_for(
    connection: Connection, stages: dict[str, str]
) -> None:
    for name in ("a", "b", "dead before"):
        enter(connection, name)
    grow_old(connection, "dead before")
    for name in ("a", "b", "dead before"):
        grow_old(connection, name, 3600)
    heard(connection, "a")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    assert set(opened.nodes) == {"a", "b"}


def test_a_new_node_that_is_first_heard_after_an_outage_forgets_nobody(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "a")
    grow_old(connection, "a", 3600)
    enter(connection, "new")
    enter(connection, "newer")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    assert set(opened.nodes) == {"a", "new", "newer"}


def test_no_release_is_current_while_nobody_of_a_role_is_heard(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "scorer")
    enter(connection, "preprocessor", role="preprocessor")
    grow_old(connection, "scorer")
    opened = promote(connection, environment="qa", stages=stages, by="ann", prepare_s=0.05)
    say(connection, opened.id, "preprocessor")
    settled = wait_settled(connection, opened.id, timeout_s=10)
    assert settled.state == "abandoned"
    assert settled.reason.startswith("not ready by the deadline: scorer (not heard of for 6")
    # Another of its role will do
    enter(connection, "another scorer")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    assert set(opened.nodes) == {"another scorer", "preprocessor"}


def test_a_node_that_leaves_is_no_longer_waited_for(connection: Connection, stages: dict[str, str]) -> None:
    enter(connection, "a")
    enter(connection, "b")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    say(connection, opened.id, "a")
    leave(connection, "b")
    settle(connection, "qa")
    assert rollout(connection, opened.id).state == "active"


def test_a_refusal_counts_even_after_its_node_has_died(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "a")
    enter(connection, "b")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    leave(connection, "b")
    say(connection, opened.id, "b", ready=False, reason="no memory")
    assert rollout(connection, opened.id).state == "abandoned"


def test_a_deadline_abandons_a_rollout_and_names_who_was_missing(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "slow")
    opened = promote(connection, environment="qa", stages=stages, by="ann", prepare_s=0.05)
    settled = wait_settled(connection, opened.id, timeout_s=10)
    assert settled.state == "abandoned"
    assert settled.reason == "not ready by the deadline: slow"
    assert current(connection) is None


def test_an_environment_has_one_rollout_at_a_time(connection: Connection, stages: dict[str, str]) -> None:
    enter(connection, "a")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    with pytest.raises(RolloutInProgressError, match=f"rollout {opened.id}"):
        promote(connection, environment="qa", stages=stages, by="bob")
    assert promote(connection, environment="production", stages=stages, by="bob").state == "active"
    say(connection, opened.id, "a")
    assert [found.state for found in rollouts(connection, "qa")] == ["active"]


def test_promotions_at_once_get_releases_without_a_gap(connection: Connection, dsn: str, stages: Any) -> None:
    results: list[Any] = []

    def one(by: str) -> None:
        with connect(dsn) as mine:
            results.append(promote(mine, environment="qa", stages=stages, by=by))

    threads = [threading.Thread(target=one, args=(f"p{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found.release.number for found in results) == [1, 2, 3, 4, 5, 6]
    assert current(connection) == 6


def test_acknowledgements_at_once_flip_the_release_once(
    connection: Connection, dsn: str, stages: dict[str, str]
) -> None:
    names = [f"n{number}" for number in range(8)]
    for name in names:
        enter(connection, name)
    opened = promote(connection, environment="qa", stages=stages, by="ann")

    def one(name: str) -> None:
        with connect(dsn) as mine:
            say(mine, opened.id, name)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert rollout(connection, opened.id).state == "active"
    assert current(connection) == 1


def test_a_rollout_that_is_over_stays_as_it_ended(connection: Connection, stages: dict[str, str]) -> None:
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    with pytest.raises(psycopg.errors.RaiseException, match="is over"):
        connection.execute(
            "UPDATE rollout SET state = 'preparing', finished_at = NULL WHERE id = %s", (opened.id,)
        )
    with pytest.raises(UnknownRolloutError):
        rollout(connection, 4242)


def test_the_time_until_the_last_node_acts_is_measured(
    connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "a")
    opened = promote(connection, environment="qa", stages=stages, by="ann")
    say(connection, opened.id, "a")
    settled = rollout(connection, opened.id)
    assert wait_taken_up(connection, settled, timeout_s=0.05) is None
    assert beat(connection, "a", state="ready", release=1, endpoints=("tcp://127.0.0.1:1",))
    taken = wait_taken_up(connection, settled)
    assert taken is not None
    assert taken > 0


def test_a_beat_of_a_node_that_is_not_entered_says_so(connection: Connection) -> None:
    assert not beat(connection, "nobody", state="ready", release=None, endpoints=())


def test_only_fresh_nodes_are_members_and_the_long_dead_are_forgotten(connection: Connection) -> None:
    for name in ("a", "b", "c"):
        enter(connection, name)
    grow_old(connection, "b", 60)
    grow_old(connection, "c", 3600)
    assert [node.node_id for node in members(connection, "qa")] == ["a"]
    enter(connection, "d")
    rows = connection.execute("SELECT node_id FROM member ORDER BY node_id").fetchall()
    assert [row["node_id"] for row in rows] == ["a", "b", "d"]


def test_a_node_that_joins_takes_out_the_dead_of_its_host(connection: Connection) -> None:
    import subprocess

    gone = subprocess.Popen(["true"])
    gone.wait()
    enter(connection, "dead", pid=gone.pid)
    enter(connection, "dead elsewhere", pid=gone.pid, host="another")
    enter(connection, "alive")
    enter(connection, "new")
    assert [node.node_id for node in members(connection, "qa")] == ["alive", "dead elsewhere", "new"]


def test_a_node_that_fell_silent_is_told_with_for_how_long(connection: Connection) -> None:
    enter(connection, "a")
    enter(connection, "b")
    grow_old(connection, "b", 60)
    found = {node.node_id: silent_s for node, silent_s in with_silence(connection, "qa")}
    assert found["a"] is None
    assert found["b"] is not None
    assert found["b"] >= 60
    grow_old(connection, "b", 600)
    assert [node.node_id for node, _ in with_silence(connection, "qa")] == ["a"]


def test_of_two_who_promote_at_once_one_wins_and_the_other_reads_why(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    enter(connection, "a")
    together, said = threading.Barrier(4), []

    def promote_as(name: str) -> None:
        with connect(dsn) as own:
            together.wait()
            try:
                promote(own, environment="qa", stages=stages, by=name)
            except RolloutInProgressError as error:
                said.append(str(error))

    threads = [threading.Thread(target=promote_as, args=(f"p{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 3
    assert all("qa is being taken to release 1 (rollout 1), which ends by" in one for one in said)
    assert [one.release.number for one in rollouts(connection, "qa")] == [1]


@pytest.mark.parametrize("name", ["promoter", "node"])
def test_clocks_of_hosts_reorder_nothing(
    dsn: str, connection: Connection, stages: dict[str, str], name: str
) -> None:
    """Hosts whose clocks are days apart promote and acknowledge in turn."""

    def act(skew_s: float) -> None:
        real, patch = time.time, pytest.MonkeyPatch()
        patch.setattr(time, "time", lambda: real() + skew_s)
        patch.setattr(time, "time_ns", lambda: int((real() + skew_s) * 1e9))
        with connect(dsn) as own:
            if name == "promoter":
                promote(own, environment="qa", stages=stages, by=f"{skew_s}")
            else:
                enter(own, f"{skew_s}")
                opened = promote(own, environment="qa", stages=stages, by="ann")
                assert beat(own, f"{skew_s}", state="ready", release=None, endpoints=())
                acknowledge(own, opened.id, f"{skew_s}", ready=True, reason="")
                leave(own, f"{skew_s}")

    for skew_s in (86_400.0, -86_400.0, 0.0, 3e9):
        process = multiprocessing.get_context("fork").Process(target=act, args=(skew_s,))
        process.start()
        process.join(30)
        assert process.exitcode == 0
    found = list(reversed(releases(connection, "qa")))
    assert [one.number for one in found] == [1, 2, 3, 4]
    assert [one.created_at for one in found] == sorted(one.created_at for one in found)
    assert (found[-1].created_at - found[0].created_at).total_seconds() < 60
    current = current_release(connection, "qa")
    assert current is not None
    assert current.number == 4
