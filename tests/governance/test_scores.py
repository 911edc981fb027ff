"""Named scores in governance: their stages, what may be dropped, and the gates that look at each model."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from governance.artifacts import kind_of_stage, register, split_stage
from governance.changes import rollback
from governance.database import Connection
from governance.errors import ApprovalNeededError, GateError, PromotionRefusedError, UnknownStageError
from governance.history import diff
from governance.policy import read_policy, set_policy
from governance.promotion import decide, promote
from governance.proposals import add_approver, proposal
from governance.releases import current_release
from tests.governance.conftest import SPEC


@pytest.fixture
def named(connection: Connection, stages: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The pipeline, with a score `ato` that has features of its own."""
    (tmp_path / "ato.toml").write_text(SPEC.format(name="ato"))
    spec = register(connection, tmp_path / "ato.toml", kind="feature_spec", name="ato", by="ann")
    return {**stages, "model:ato": stages["model"], "features:ato": spec.digest}


def held(connection: Connection) -> dict[str, str]:
    found = current_release(connection, "qa")
    assert found is not None
    return dict(found.slots["champion"].stages)


def test_a_stage_says_which_artifacts_it_takes() -> None:
    code = "code_package"
    assert kind_of_stage("features") == kind_of_stage("features:ato") == ("feature_spec", code)
    assert kind_of_stage("model:a_1") == ("bundle", code)
    assert kind_of_stage("decision") == ("decision_rules", code)
    assert split_stage("model:ato") == ("model", "ato")
    assert split_stage("model") == ("model", "")
    for wrong in (
        "",
        "score",
        "model:",
        "model:A",
        "model:1a",
        "model:" + "a" * 32,
        "decision:x",
        "model:a:b",
    ):
        with pytest.raises(UnknownStageError, match="no stage"):
            kind_of_stage(wrong)


def test_a_release_has_them_and_keeps_them_until_they_are_dropped(
    connection: Connection, stages: dict[str, str], named: dict[str, str]
) -> None:
    promote(connection, environment="qa", stages=named, by="ann")
    assert held(connection) == named
    promote(connection, environment="qa", stages={"model": "m"}, by="ann")
    assert held(connection) == named
    # The features of a score go with its model.
    promote(connection, environment="qa", stages={"model:ato": None}, by="ann")
    assert held(connection) == stages
    assert [one.stage for one in diff(connection, "qa", 2, 3)] == ["features:ato", "model:ato"]
    rollback(connection, "qa", by="bob", reason="x")
    assert held(connection) == named
    promote(connection, environment="qa", stages={"features:ato": None}, by="ann")
    assert held(connection) == {**stages, "model:ato": stages["model"]}


def test_what_makes_no_pipeline_is_refused(connection: Connection, named: dict[str, str]) -> None:
    def refused(says: str, **stages: str | None) -> None:
        with pytest.raises(PromotionRefusedError, match=says):
            promote(
                connection,
                environment="qa",
                stages={k.replace("_", ":"): v for k, v in stages.items()},
                by="a",
            )

    refused("nothing for features, model", model_ato=named["model"])
    promote(connection, environment="qa", stages=named, by="ann")
    refused("no model:mule that takes them", features_mule=named["features"])
    refused("no stage decision to drop", decision=None)
    refused("nothing for model", model=None)
    refused("stage model:mule: no bundle", model_mule=named["features"])
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO release_stage VALUES ('qa', 1, 'champion', 'model:A', %s)", (named["model"],)
        )


def test_a_drop_waits_for_people_like_any_promotion(connection: Connection, named: dict[str, str]) -> None:
    promote(connection, environment="qa", stages=named, by="ann")
    set_policy(connection, "qa", read_policy({"approvals": {"risk": 1}}), by="olga", reason="x")
    add_approver(connection, "rita", "risk", by="olga")
    with pytest.raises(ApprovalNeededError) as caught:
        promote(connection, environment="qa", stages={"model:ato": None}, by="ann")
    assert proposal(connection, caught.value.proposal).stages == {"model:ato": None}
    decide(connection, caught.value.proposal, person="rita", role="risk", approves=True)
    assert set(held(connection)) == {"features", "model"}


def test_gates_ask_each_model(connection: Connection, named: dict[str, str], tmp_path: Path) -> None:
    # The same bytes with another name would be the same artifact: one with metrics is made anew.
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    from models.importers import import_model

    x = np.arange(20, dtype=np.float32).reshape(-1, 1)
    model = RandomForestClassifier(3, random_state=1).fit(x, np.arange(20) % 2)
    import_model(model, tmp_path / "n.bundle", feature_names=["a"], trained_at="2020-01-01T00:00:00+00:00")
    facts = {"metrics": {"auc": 0.8}}
    old = register(connection, tmp_path / "n.bundle", kind="bundle", name="n", by="ann", facts=facts).digest
    policy = {"metrics": {"ato.auc": {"min": 0.9}}, "max_age_days": 90}
    set_policy(connection, "qa", read_policy(policy), by="olga", reason="x")
    with pytest.raises(GateError) as caught:
        promote(connection, environment="qa", stages={**named, "model:ato": old}, by="ann")
    said = str(caught.value)
    assert "metrics.ato.auc: ato.auc is 0.8, asked is at least 0.9" in said
    assert "the bundle of model does not say when it was trained" in said
    assert "model:ato was trained" in said
