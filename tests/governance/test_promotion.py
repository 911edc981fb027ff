"""Policies, gates, approvals, freezes, and the way back."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from governance.artifacts import find_any, register
from governance.audit import entries, verify
from governance.changes import retire, rollback
from governance.database import Connection, connect
from governance.errors import (
    ApprovalNeededError,
    ApprovalRefusedError,
    FrozenError,
    GateError,
    PolicyError,
    PromotionRefusedError,
    UnknownProposalError,
    UnknownReleaseError,
)
from governance.freezes import freeze, thaw
from governance.history import diff, history, release_at
from governance.policy import Policy, Window, read_policy, set_policy
from governance.promotion import decide, promote
from governance.proposals import add_approver, proposal, proposals, remove_approver
from governance.releases import current_release, releases
from governance.rollouts import acknowledge, rollouts
from tests.governance.conftest import SPEC, enter


def asking(connection: Connection, document: Mapping[str, Any], environment: str = "qa") -> None:
    set_policy(connection, environment, read_policy(document), by="olga", reason="test")


def another_spec(connection: Connection, tmp_path: Path, name: str = "second") -> str:
    path = tmp_path / f"{name}.toml"
    path.write_text(SPEC.format(name=name))
    return register(connection, path, kind="feature_spec", name=name, by="ann").digest


def current(connection: Connection, environment: str = "qa") -> int | None:
    found = current_release(connection, environment)
    return found.number if found else None


# -- gates


def test_a_pipeline_goes_where_it_was_active_before_and_no_other_does(
    connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    asking(connection, {"after": ["qa"]}, "production")
    with pytest.raises(GateError, match="after: this pipeline was never active in qa"):
        promote(connection, environment="production", stages=stages, by="ann")
    promote(connection, environment="qa", stages=stages, by="ann")
    assert promote(connection, environment="production", stages=stages, by="ann").state == "active"
    other = another_spec(connection, tmp_path)
    with pytest.raises(GateError, match="never active in qa"):
        promote(connection, environment="production", stages={"features": other}, by="ann")
    assert current(connection, "production") == 1


def test_one_that_was_only_prepared_was_not_active(connection: Connection, stages: dict[str, str]) -> None:
    asking(connection, {"after": ["qa"]}, "production")
    enter(connection, "scorer-0")
    rollout = promote(connection, environment="qa", stages=stages, by="ann")
    with pytest.raises(GateError):
        promote(connection, environment="production", stages=stages, by="ann")
    acknowledge(connection, rollout.id, "scorer-0", ready=False, reason="disk full")
    with pytest.raises(GateError):
        promote(connection, environment="production", stages=stages, by="ann")


def test_a_refusal_names_every_gate_with_its_figures(connection: Connection, stages: dict[str, str]) -> None:
    document = {
        "after": ["integration"],
        "signed": True,
        "max_age_days": 30,
        "metrics": {"auc": {"min": 0.9}},
        "windows": [{"days": [], "zone": "Europe/Berlin"}],
    }
    asking(connection, document)
    with pytest.raises(GateError) as caught:
        promote(connection, environment="qa", stages=stages, by="ann")
    for gate in ("windows: it is", "after: ", "signed: without", "max_age_days: ", "metrics.auc: "):
        assert gate in str(caught.value)
    assert releases(connection, "qa") == []


@pytest.mark.parametrize(
    ("bound", "value", "passes"),
    [
        ({"min": 0.9}, 0.9, True),
        ({"min": 0.9}, 0.89, False),
        ({"max": 0.1}, 0.2, False),
        ({"min": 0.5, "max": 0.6}, 0.55, True),
        ({"min": 0.9}, None, False),
    ],
)
def test_a_metric_must_lie_within_its_bounds(
    connection: Connection,
    bundle_file: Path,
    spec_file: Path,
    bound: dict[str, float],
    value: float | None,
    passes: bool,
) -> None:
    metrics = {} if value is None else {"auc": value}
    register(connection, bundle_file, kind="bundle", name="m", by="ann", facts={"metrics": metrics})
    register(connection, spec_file, kind="feature_spec", name="f", by="ann")
    asking(connection, {"metrics": {"auc": bound}})
    stages = {"model": "m", "features": "f"}
    if passes:
        assert promote(connection, environment="qa", stages=stages, by="ann").state == "active"
    else:
        with pytest.raises(GateError, match="auc"):
            promote(connection, environment="qa", stages=stages, by="ann")


@pytest.mark.parametrize(("days", "passes"), [(1, True), (29, True), (31, False), (-1, False)])
def test_a_model_must_be_fresh(
    connection: Connection, spec_file: Path, tmp_path: Path, days: float, passes: bool
) -> None:
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    from models.importers import import_model

    x = np.arange(20, dtype=np.float32).reshape(-1, 1)
    model = RandomForestClassifier(2, random_state=0).fit(x, np.arange(20) % 2)
    trained = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    import_model(model, tmp_path / "m", feature_names=["a"], trained_at=trained)
    register(connection, tmp_path / "m", kind="bundle", name="m", by="ann")
    register(connection, spec_file, kind="feature_spec", name="f", by="ann")
    asking(connection, {"max_age_days": 30})
    stages = {"model": "m", "features": "f"}
    if passes:
        assert promote(connection, environment="qa", stages=stages, by="ann").state == "active"
    else:
        with pytest.raises(GateError, match="days ago"):
            promote(connection, environment="qa", stages=stages, by="ann")


moments = st.integers(1_700_000_000, 1_900_000_000).map(lambda second: datetime.fromtimestamp(second, UTC))


@given(moments, st.times(), st.times())
def test_a_window_over_midnight_and_its_opposite_fill_the_day(moment: datetime, a: Any, b: Any) -> None:
    window, opposite = Window(opens=a, closes=b), Window(opens=b, closes=a)
    assert window.holds(moment) or opposite.holds(moment)


def test_a_window_belongs_to_the_day_on_which_it_opens_in_its_own_zone() -> None:
    night = read_policy(
        {"windows": [{"days": ["fri"], "opens": "22:00", "closes": "02:00", "zone": "Europe/Berlin"}]}
    ).windows[0]
    assert night.holds(datetime(2026, 11, 27, 22, 30, tzinfo=UTC))  # Friday, 23:30 there
    assert night.holds(datetime(2026, 11, 28, 0, 30, tzinfo=UTC))  # Saturday, 01:30 there
    assert not night.holds(datetime(2026, 11, 27, 0, 30, tzinfo=UTC))  # Friday, 01:30 there
    assert not night.holds(datetime(2026, 11, 28, 22, 30, tzinfo=UTC))  # Saturday night


@pytest.mark.parametrize(
    ("document", "key"),
    [
        ({"aproval": {}}, "aproval"),
        ({"approvals": {"risk": 0}}, "approvals.risk"),
        ({"windows": [{"zone": "Mars/Olympus"}]}, "Mars/Olympus"),
        ({"metrics": {"auc": {"least": 1}}}, "metrics.auc.least"),
        ({"max_age_days": -1}, "max_age_days"),
        ([], "dictionary"),
    ],
)
def test_a_policy_that_is_not_valid_names_the_key(document: Any, key: str) -> None:
    with pytest.raises(PolicyError, match=key):
        read_policy(document)


# -- approvals


@pytest.fixture
def approvers(connection: Connection) -> None:
    for person, role in (("ann", "risk"), ("rita", "risk"), ("rob", "risk"), ("ed", "engineering")):
        add_approver(connection, person, role, by="olga")


def propose(connection: Connection, stages: Mapping[str, str]) -> int:
    with pytest.raises(ApprovalNeededError) as caught:
        promote(connection, environment="qa", stages=stages, by="ann", comment="better")
    return caught.value.proposal


@pytest.mark.usefixtures("approvers")
def test_a_promotion_waits_for_all_whom_the_policy_names(
    connection: Connection, stages: dict[str, str]
) -> None:
    asking(connection, {"approvals": {"risk": 2, "engineering": 1}})
    number = propose(connection, stages)
    assert decide(connection, number, person="rita", role="risk", approves=True).needed == {
        "risk": 1,
        "engineering": 1,
    }
    decide(connection, number, person="ed", role="engineering", approves=True)
    assert current(connection) is None
    done = decide(connection, number, person="rob", role="risk", approves=True, comment="looked at drift")
    assert (done.state, done.number) == ("released", 1)
    assert current(connection) == 1
    (tenure,) = history(connection, "qa")
    assert (tenure.proposed_by, tenure.approved_by) == ("ann", ("rita", "ed", "rob"))
    assert proposals(connection, "qa", only_open=True) == []
    verify(connection)


@pytest.mark.usefixtures("approvers")
def test_one_who_rejects_ends_it(connection: Connection, stages: dict[str, str]) -> None:
    asking(connection, {"approvals": {"risk": 1}})
    number = propose(connection, stages)
    done = decide(connection, number, person="rita", role="risk", approves=False, comment="no lift")
    assert done.state == "rejected"
    with pytest.raises(ApprovalRefusedError, match="rejected"):
        decide(connection, number, person="rob", role="risk", approves=True)
    assert current(connection) is None


@pytest.mark.usefixtures("approvers")
def test_whoever_promotes_may_not_approve_it_unless_the_policy_says_so(
    connection: Connection, stages: dict[str, str]
) -> None:
    asking(connection, {"approvals": {"risk": 1}})
    number = propose(connection, stages)
    with pytest.raises(ApprovalRefusedError, match="ann may not approve a proposal of their own"):
        decide(connection, number, person="ann", role="risk", approves=True)
    asking(connection, {"approvals": {"risk": 1}, "own_approval": True})
    assert decide(connection, number, person="ann", role="risk", approves=True).state == "released"


@pytest.mark.parametrize(
    ("person", "role", "why"),
    [
        ("ed", "risk", "ed is no approver of the role risk"),
        ("nobody", "risk", "nobody is no approver"),
        ("ed", "engineering", "asks for 2 risk, not for engineering"),
        ("rita", "risk", "before"),
    ],
)
@pytest.mark.usefixtures("approvers")
def test_a_word_that_does_not_count_is_refused(
    connection: Connection, stages: dict[str, str], person: str, role: str, why: str
) -> None:
    asking(connection, {"approvals": {"risk": 2}})
    number = propose(connection, stages)
    decide(connection, number, person="rita", role="risk", approves=True)
    with pytest.raises(ApprovalRefusedError, match=why):
        decide(connection, number, person=person, role=role, approves=True)
    assert list(proposal(connection, number).approvals) == ["rita"]


@pytest.mark.usefixtures("approvers")
def test_somebody_who_is_no_approver_any_more_does_not_count(
    connection: Connection, stages: dict[str, str]
) -> None:
    asking(connection, {"approvals": {"risk": 1}})
    number = propose(connection, stages)
    remove_approver(connection, "rita", "risk", by="olga")
    with pytest.raises(ApprovalRefusedError, match="no approver"):
        decide(connection, number, person="rita", role="risk", approves=True)
    with pytest.raises(UnknownProposalError):
        decide(connection, 99, person="rob", role="risk", approves=True)


@pytest.mark.usefixtures("approvers")
def test_gates_are_asked_again_when_the_last_one_approves(
    connection: Connection, stages: dict[str, str]
) -> None:
    asking(connection, {"approvals": {"risk": 1}})
    number = propose(connection, stages)
    freeze(connection, "qa", by="olga", reason="Black Friday")
    with pytest.raises(FrozenError, match="Black Friday"):
        decide(connection, number, person="rita", role="risk", approves=True)
    assert proposal(connection, number).approvals == {}
    thaw(connection, "qa", by="olga")
    assert decide(connection, number, person="rita", role="risk", approves=True).state == "released"


@pytest.mark.usefixtures("approvers")
def test_the_database_itself_lets_no_release_in_without_approvals(
    connection: Connection, stages: dict[str, str]
) -> None:
    asking(connection, {"approvals": {"risk": 1}})
    propose(connection, stages)
    for role in ("promoter", "approver"):
        connection.execute(f"SET ROLE scorewire_{role}".encode())
        with pytest.raises(psycopg.errors.RaiseException, match="lacks approvals"):
            connection.execute(
                "INSERT INTO release (environment, number, created_by) VALUES ('qa', 1, 'ann')"
            )
        connection.execute("RESET ROLE")
    with pytest.raises(psycopg.errors.RaiseException, match="no rollout"):
        connection.execute("UPDATE environment SET current = 7")


@pytest.mark.usefixtures("approvers")
def test_people_work_with_their_roles_alone(connection: Connection, stages: dict[str, str]) -> None:
    connection.execute("SET ROLE scorewire_owner")
    asking(connection, {"approvals": {"risk": 1}})
    connection.execute("SET ROLE scorewire_promoter")
    number = propose(connection, stages)
    connection.execute("SET ROLE scorewire_approver")
    assert decide(connection, number, person="rita", role="risk", approves=True).state == "released"
    connection.execute("SET ROLE scorewire_auditor")
    verify(connection)


@pytest.mark.usefixtures("approvers")
def test_of_two_who_approve_at_once_one_releases(
    dsn: str, connection: Connection, stages: dict[str, str]
) -> None:
    asking(connection, {"approvals": {"risk": 2}})
    number = propose(connection, stages)

    def approve(person: str) -> None:
        with connect(dsn) as own:
            decide(own, number, person=person, role="risk", approves=True)

    threads = [threading.Thread(target=approve, args=(person,)) for person in ("rita", "rob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert proposal(connection, number).state == "released"
    assert [release.number for release in releases(connection, "qa")] == [1]


# -- freeze


def test_a_frozen_environment_takes_no_promotion_and_says_why(
    connection: Connection, stages: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    freeze(connection, "qa", by="olga", reason="Black Friday")
    with pytest.raises(FrozenError, match="by olga: Black Friday"):
        promote(connection, environment="qa", stages=stages, by="ann")
    with pytest.raises(PromotionRefusedError, match="frozen already"):
        freeze(connection, "qa", by="olga", reason="again")
    thaw(connection, "qa", by="olga")
    with pytest.raises(PromotionRefusedError, match="not frozen"):
        thaw(connection, "qa", by="olga")
    assert promote(connection, environment="qa", stages=stages, by="ann").release.number == 2


# -- the way back


def test_an_environment_is_led_back_to_the_release_before(
    connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    other = another_spec(connection, tmp_path)
    promote(connection, environment="qa", stages={"features": other}, by="ann")
    freeze(connection, "qa", by="olga", reason="incident")
    back = rollback(connection, "qa", by="bob", reason="alerts doubled")
    assert (back.kind, back.state, back.release.number) == ("rollback", "active", 1)
    assert current(connection) == 1
    newest, middle, first = history(connection, "qa")
    assert (newest.number, newest.kind, newest.started_by, newest.comment) == (
        1,
        "rollback",
        "bob",
        "alerts doubled",
    )
    assert (middle.until, first.until) == (newest.since, middle.since)
    (difference,) = diff(connection, "qa", 1, 2)
    assert (difference.slot, difference.stage) == ("champion", "features")
    assert difference.after
    assert (difference.after["digest"], difference.after["name"]) == (other, "second")
    # And forth again, since that was active before as well.
    assert rollback(connection, "qa", by="bob", reason="it was the network").release.number == 2


def test_any_earlier_release_can_be_named(connection: Connection, stages: dict[str, str]) -> None:
    for _ in range(4):
        promote(connection, environment="qa", stages=stages, by="ann")
    assert rollback(connection, "qa", by="bob", reason="far back", to=2).release.number == 2
    assert current(connection) == 2


def test_the_way_back_ends_a_rollout_that_is_preparing(
    connection: Connection, stages: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    promote(connection, environment="qa", stages=stages, by="ann")
    enter(connection, "scorer-0")
    promote(connection, environment="qa", stages=stages, by="ann")
    back = rollback(connection, "qa", by="bob", reason="alerts doubled")
    abandoned = rollouts(connection, "qa")[1]
    assert abandoned.state == "abandoned"
    assert "bob leads back to release 1" in abandoned.reason
    acknowledge(connection, back.id, "scorer-0", ready=True, reason="")
    assert current(connection) == 1


@pytest.mark.parametrize(
    ("to", "reason", "why"),
    [
        (None, " ", "say why"),
        (2, "x", "serves release 2 already"),
        (3, "x", "release 3 was active"),
        (9, "x", "release 9"),
    ],
)
def test_there_is_no_way_back_to_what_was_never_active(
    connection: Connection, stages: dict[str, str], to: int | None, reason: str, why: str
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    promote(connection, environment="qa", stages=stages, by="ann")
    enter(connection, "scorer-0")
    refused = promote(connection, environment="qa", stages=stages, by="ann")
    acknowledge(connection, refused.id, "scorer-0", ready=False, reason="too large")
    with pytest.raises(PromotionRefusedError, match=why):
        rollback(connection, "qa", by="bob", reason=reason, to=to)
    assert current(connection) == 2


def test_without_a_release_there_is_no_way_back(connection: Connection) -> None:
    with pytest.raises(PromotionRefusedError, match="no release yet"):
        rollback(connection, "qa", by="bob", reason="x")


def test_what_was_served_at_any_moment_is_known(connection: Connection, stages: dict[str, str]) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    promote(connection, environment="qa", stages=stages, by="ann")
    first = history(connection, "qa")[0].since
    promote(connection, environment="qa", stages=stages, by="ann")
    second = history(connection, "qa")[0].since
    assert release_at(connection, "qa", first).number == 1
    assert release_at(connection, "qa", second).number == 2
    with pytest.raises(UnknownReleaseError):
        release_at(connection, "qa", before)
    with pytest.raises(UnknownReleaseError):
        diff(connection, "qa", 1, 9)


def test_policies_keep_all_of_their_versions(connection: Connection) -> None:
    assert set_policy(connection, "qa", Policy(), by="olga", reason="none") == 1
    assert set_policy(connection, "qa", Policy(signed=True), by="olga", reason="audit finding 7") == 2
    said = [entry.facts for entry in entries(connection) if entry.facts["what"] == "policy"]
    assert [one["reason"] for one in said] == ["none", "audit finding 7"]


def test_what_is_retired_serves_on_and_is_promoted_no_more(
    connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    promote(connection, environment="qa", stages=stages, by="ann")
    model = find_any(connection, stages["model"])
    assert retire(connection, model, by="olga", reason="biased") == ("qa",)
    assert current(connection) == 1
    with pytest.raises(PromotionRefusedError, match="retired by olga: biased"):
        promote(connection, environment="production", stages=stages, by="ann")
    with pytest.raises(PromotionRefusedError, match="retired already"):
        retire(connection, model, by="olga", reason="again")
    with pytest.raises(PromotionRefusedError, match="say why"):
        retire(connection, model, by="olga", reason="")
    # Other stages may still change, and the way back stays open.
    promote(connection, environment="qa", stages={"features": another_spec(connection, tmp_path)}, by="ann")
    assert rollback(connection, "qa", by="bob", reason="worse").release.number == 1
