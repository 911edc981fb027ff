"""Gates that ask for a shadow's report on the very change, and for labelled decisions of the pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from governance.artifacts import register
from governance.audit import verify
from governance.database import Connection
from governance.errors import ApprovalNeededError, GateError, PromotionRefusedError
from governance.policy import read_policy, set_policy
from governance.promotion import decide, promote
from governance.proposals import add_approver, proposal
from governance.releases import current_release
from governance.shadows import Shadow
from governance.shadows import start as start_shadow
from tests.governance.conftest import SPEC

FIGURES = {"observations": 5000.0, "agreement_exact": 0.995, "auc_gain_low": 0.002}
POLICY = {
    "shadow": {
        "min_observations": 1000,
        "max_age_hours": 24,
        "figures": {"agreement_exact": {"min": 0.99}, "auc_gain_low": {"min": 0}},
    }
}


@pytest.fixture
def served(connection: Connection, stages: dict[str, str]) -> dict[str, str]:
    promote(connection, environment="qa", stages=stages, by="ann")
    set_policy(connection, "qa", read_policy(POLICY), by="olga", reason="x")
    return stages


@pytest.fixture
def tried(connection: Connection, served: dict[str, str], tmp_path: Path) -> Shadow:
    """A shadow that tries another version of the features."""
    (tmp_path / "second.toml").write_text(SPEC.format(name="second"))
    register(connection, tmp_path / "second.toml", kind="feature_spec", name="second", by="ann")
    # What it names and is served anyway is no change.
    overrides = {"features": "second", "model": served["model"]}
    return start_shadow(connection, "qa", "second", overrides, by="ann")


def take_down(connection: Connection, shadow: Shadow, **more: float | None) -> int:
    figures = {name: value for name, value in {**FIGURES, **more}.items() if value is not None}
    row = connection.execute(
        "INSERT INTO shadow_report (shadow, made_by, figures) VALUES (%s, 'ann', %s) RETURNING id",
        (shadow.id, json.dumps({"figures": figures, "parts": {}})),
    ).fetchone()
    assert row is not None
    return int(row["id"])


def promote_it(connection: Connection, **more: Any) -> None:
    promote(connection, environment="qa", stages={"features": "second"}, by="ann", **more)


def test_a_report_within_the_limits_lets_it_through_and_the_release_names_it(
    connection: Connection, tried: Shadow
) -> None:
    with pytest.raises(GateError, match=r"no shadow that tried this very change.*shadow start NAME"):
        promote_it(connection)
    take_down(connection, tried, observations=10)
    newest = take_down(connection, tried)
    promote_it(connection)
    found = current_release(connection, "qa")
    assert found is not None
    assert found.evidence == newest
    verify(connection)


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ({"observations": 999.0}, "shadow.min_observations: report .* has 999 observations"),
        ({"agreement_exact": 0.95}, "agreement_exact is 0.95 in report .* asked is at least 0.99"),
        ({"auc_gain_low": None}, "auc_gain_low is not known"),
    ],
)
def test_a_report_beyond_a_limit_is_told_with_its_figure(
    connection: Connection, tried: Shadow, figures: dict[str, float | None], says: str
) -> None:
    take_down(connection, tried)
    take_down(connection, tried, **figures)
    with pytest.raises(GateError, match=says):
        promote_it(connection)


def test_a_report_on_something_else_or_of_old_is_no_evidence(
    connection: Connection, served: dict[str, str], tried: Shadow, tmp_path: Path
) -> None:
    report = take_down(connection, tried)
    (tmp_path / "third.toml").write_text(SPEC.format(name="third"))
    register(connection, tmp_path / "third.toml", kind="feature_spec", name="third", by="ann")
    with pytest.raises(GateError, match="no shadow that tried this very change"):
        promote(connection, environment="qa", stages={"features": "third"}, by="ann")
    with pytest.raises(PromotionRefusedError, match="shadow second, which tried something else: features"):
        promote(connection, environment="qa", stages={"features": "third"}, by="ann", evidence=report)
    with pytest.raises(PromotionRefusedError, match="no report 99"):
        promote_it(connection, evidence=99)
    # A score that is added as well is more than the shadow tried.
    with pytest.raises(GateError):
        promote(
            connection,
            environment="qa",
            stages={"features": "second", "model:ato": served["model"]},
            by="ann",
        )
    set_policy(
        connection, "qa", read_policy({"shadow": {"max_age_hours": 1e-9}}), by="olga", reason="impossible"
    )
    with pytest.raises(GateError, match=r"is 0\.0 hours old"):
        promote_it(connection)
    connection.execute("INSERT INTO environment (name) VALUES ('production')")
    sql = "INSERT INTO release (environment, number, created_by, evidence) VALUES ('production', 1, 'x', %s)"
    with pytest.raises(psycopg.errors.RaiseException, match="of no shadow of production"):
        connection.execute(sql, (report,))
    # What changes nothing needs no evidence.
    promote(connection, environment="qa", stages=served, by="ann")


def test_a_proposal_is_approved_by_the_report_that_it_was_made_with(
    connection: Connection, tried: Shadow
) -> None:
    policy = {**POLICY, "approvals": {"risk": 1}}
    set_policy(connection, "qa", read_policy(policy), by="olga", reason="x")
    add_approver(connection, "rita", "risk", by="olga")
    report = take_down(connection, tried)
    with pytest.raises(ApprovalNeededError) as caught:
        promote_it(connection)
    take_down(connection, tried, agreement_exact=0.5)
    assert proposal(connection, caught.value.proposal).evidence == report
    decide(connection, caught.value.proposal, person="rita", role="risk", approves=True)
    found = current_release(connection, "qa")
    assert found is not None
    assert found.evidence == report


def test_labelled_decisions_of_the_very_pipeline_are_asked_for(
    connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "d.toml").write_text(
        "name = 'd'\nversion = 1\n[[rules]]\nwhen = 'score > 0.5'\ndecide = 'review'\nreason = 'r'\n"
    )
    register(connection, tmp_path / "d.toml", kind="decision_rules", name="d", by="ann")
    whole = {**stages, "decision": "d"}
    promote(connection, environment="qa", stages=whole, by="ann")
    policy = {
        "after": ["qa"],
        "labelled": {"min_labels": 4, "precision": {"min": 0.6}, "recall": {"min": 0.5}},
    }
    set_policy(connection, "production", read_policy(policy), by="olga", reason="x")
    connection.execute("SELECT make_transaction_days('qa', current_date - 1, current_date + 1)")

    def decided(number: int, outcome: str, *, positive: bool) -> None:
        connection.execute(
            "INSERT INTO transaction VALUES ('qa', %(id)s, clock_timestamp(), 'p', %(n)s, 1, false,"
            " %(outcome)s, '{}', '{1}', '{0.5}', '{}', '{}', '{}', '{}', '{}')",
            {"id": f"t{number}", "n": number, "outcome": outcome},
        )
        connection.execute(
            "INSERT INTO label (environment, transaction_id, positive, source, labelled_at, imported_by)"
            " VALUES ('qa', %s, %s, 'review', clock_timestamp(), 'x')",
            (f"t{number}", positive),
        )

    def to_production() -> None:
        promote(connection, environment="production", stages=whole, by="ann")

    decided(1, "review", positive=True)
    decided(2, "decline", positive=False)
    decided(3, "approve", positive=True)
    with pytest.raises(GateError) as caught:
        to_production()
    said = str(caught.value)
    assert "labelled.min_labels: 3 decisions of this pipeline in qa have labels, asked are at least 4" in said
    assert "labelled.precision: precision of this pipeline in qa is 0.5000" in said
    assert "labelled.recall" not in said
    for number in (4, 5):
        decided(number, "decline", positive=True)
    to_production()
