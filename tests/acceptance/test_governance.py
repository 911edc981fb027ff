"""Governance from the command line: from a signed model to an approved release, back again, and the audit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner, Result

import run
from governance.canary_watch import report
from governance.database import connect
from governance.training import fingerprint, register_model

Run = Callable[..., Result]

SPEC = """
name = "first"
version = {version}
[fields.a]
type = "number"
[[features]]
name = "a"
kind = "numeric"
field = "a"
"""


@pytest.fixture
def invoke(tmp_path: Path, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("COLUMNS", "200")
    config = tmp_path / "scorewire.toml"
    config.write_text(f"environment = 'production'\ndsn = '{dsn}'\n")

    def invoke(*arguments: object, code: int = 0) -> Result:
        own = [] if arguments[0] == "keys" else ["--config", config]
        result = CliRunner().invoke(run.app, [str(part) for part in (*arguments, *own)])
        assert result.exit_code == code, result.output + result.stderr
        return result

    return invoke


def told(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def model(dsn: str, tmp_path: Path) -> str:
    """Train a model and register it as a training pipeline does; return its digest."""
    (tmp_path / "spec.toml").write_text(SPEC.format(version=1))
    x = np.arange(40, dtype=np.float32).reshape(-1, 1)
    forest = RandomForestClassifier(2, random_state=0).fit(x, np.arange(40) % 2)
    return register_model(
        forest,
        name="fraud",
        spec=tmp_path / "spec.toml",
        data=(x, ["a"]),
        metrics={"auc": 0.93},
        training_run="run-7",
        model_card="# Fraud\nKnows nothing of gift cards.",
        by="trainer",
        dsn=dsn,
    ).digest


def test_a_training_pipeline_registers_its_model_with_all_that_is_known_of_it(dsn: str, model: str) -> None:
    with connect(dsn) as connection:
        row = connection.execute("SELECT * FROM artifact WHERE digest = %s", (model,)).fetchone()
    assert row is not None
    assert row["registered_by"] == "trainer"
    provenance = row["provenance"]
    assert provenance["metrics"] == {"auc": 0.93}
    assert provenance["parameters"]["n_estimators"] == 2
    assert provenance["training_run"] == "run-7"
    assert provenance["library_versions"]["scikit-learn"]
    assert provenance["model_card"].startswith("# Fraud")
    x = np.arange(40, dtype=np.float32).reshape(-1, 1)
    assert provenance["data"] == fingerprint(x, ["a"]).model_dump(mode="json")
    assert provenance["data"]["digest"] == hashlib.sha256(x.astype("<f8").tobytes()).hexdigest()


@pytest.mark.usefixtures("model")
def test_a_model_lives_from_its_signature_to_its_end(invoke: Run, tmp_path: Path) -> None:
    invoke("register", tmp_path / "spec.toml", "--name", "payments")

    # The rules: signed, good, approved by one of risk who did not promote it.
    policy = tmp_path / "policy.toml"
    policy.write_text(
        "signed = true\n[approvals]\nrisk = 1\n[metrics.auc]\nmin = 0.9\n"
        "[[windows]]\nzone = 'Europe/Berlin'\n"
    )
    invoke("policy", "set", policy, "--reason", "audit finding 7", "--by", "olga")
    assert told(invoke("policy", "show", "--json"))["approvals"] == {"risk": 1}
    assert "risk" in invoke("policy", "show").stdout
    invoke("approvers", "add", "rita", "risk", "--by", "olga")
    invoke("approvers", "add", "rob", "risk", "--by", "olga")
    invoke("approvers", "remove", "rob", "risk", "--by", "olga")
    assert told(invoke("approvers", "list", "--json"))["approvers"] == [{"person": "rita", "role": "risk"}]

    promote = ("promote", "--model", "fraud", "--features", "payments", "--by", "ann", "--json")
    assert "signed: without a signature" in " ".join(invoke(*promote, code=2).stderr.split())
    key = tmp_path / "release.pem"
    public = told(invoke("keys", "new", key, "--json"))["public_key"]
    assert invoke("keys", "show", key).stdout.strip() == public
    for artifact in ("fraud", "payments"):
        invoke("sign", artifact, "--key", key, "--name", "release-2026", "--by", "ann")

    waiting = told(invoke(*promote))
    assert waiting == {"proposal": 1, "state": "open"}
    assert "1 risk" in invoke("proposals").stdout
    assert "1 proposals wait" in invoke("status").stdout
    assert "is released: release 1 is active" in invoke("approve", 1, "--role", "risk", "--by", "rita").stdout
    assert told(invoke("proposals", "--all", "--json"))["proposals"][0]["state"] == "released"

    # A second version, rejected; then approved in a proposal of its own.
    (tmp_path / "spec2.toml").write_text(SPEC.format(version=2))
    invoke("register", tmp_path / "spec2.toml", "--name", "payments")
    invoke("sign", "payments", "--key", key, "--name", "release-2026")
    again = ("promote", "--features", "payments", "--by", "ann", "--json")
    second = told(invoke(*again))["proposal"]
    rejected = told(
        invoke("reject", second, "--role", "risk", "--reason", "no lift", "--by", "rita", "--json")
    )
    assert rejected["state"] == "rejected"
    third = told(invoke(*again))["proposal"]
    done = told(invoke("approve", third, "--role", "risk", "--by", "rita", "--json"))
    assert (done["state"], done["number"], done["rollout"]["state"]) == ("released", 2, "active")

    # The way back, while frozen.
    invoke("freeze", "--reason", "Black Friday", "--by", "olga")
    assert "Black Friday" in " ".join(invoke(*promote, code=2).stderr.split())
    assert "by olga: Black Friday" in invoke("status").stdout
    assert told(invoke("status", "--json"))["frozen"]["reason"] == "Black Friday"
    back = told(invoke("rollback", "--reason", "alerts doubled", "--by", "bob", "--json"))
    assert (back["state"], back["release"], back["kind"]) == ("active", 1, "rollback")
    invoke("thaw", "--by", "olga")

    # What anybody may ask years later.
    served = told(invoke("history", "--json"))["history"]
    assert [tenure["number"] for tenure in served] == [1, 2, 1]
    assert served[1]["approved_by"] == ["rita"]
    assert "alerts doubled" in invoke("history").stdout
    assert told(invoke("history", "--at", "2999-01-01", "--json"))["release"]["number"] == 1
    (difference,) = told(invoke("diff", 1, 2, "--json"))["differences"]
    assert difference["stage"] == "features"
    assert "version: 2" in invoke("diff", 1, 2).stdout
    assert "no release 9" in invoke("diff", 1, 9, code=2).stderr


@pytest.mark.usefixtures("model")
def test_a_canary_is_started_grown_and_finished_or_stopped(invoke: Run, tmp_path: Path) -> None:
    invoke("register", tmp_path / "spec.toml", "--name", "payments")
    promote = ("promote", "--model", "fraud", "--features", "payments", "--json")
    invoke(*promote)
    begun = told(invoke(*promote, "--canary", 5, "--canary-key", "customer"))
    assert (begun["kind"], begun["state"], begun["percent"], begun["key"]) == (
        "canary",
        "active",
        5,
        "customer",
    )
    assert "canary: release 2, for 5 % of keys (customer)" in invoke("status").stdout
    invoke("canary", "set", 25, "--reason", "no alerts")
    assert told(invoke("status", "--json"))["canary"] == {"release": 2, "percent": 25, "key": "customer"}
    assert told(invoke("canary", "finish", "--json"))["release"] == 2
    assert told(invoke("status", "--json"))["canary"] is None
    invoke(*promote, "--canary", 5)
    assert told(invoke("canary", "stop", "--reason", "drift", "--json"))["stopped"] == 3
    assert told(invoke("status", "--json"))["release"]["number"] == 2
    assert "no percentage" in invoke(*promote, "--canary", 500, code=2).stderr
    assert "has no canary" in invoke("canary", "set", 5, code=2).stderr


@pytest.mark.usefixtures("model")
def test_a_canary_with_a_schedule_is_looked_at(invoke: Run, tmp_path: Path, dsn: str) -> None:
    invoke("register", tmp_path / "spec.toml", "--name", "payments")
    (tmp_path / "policy.toml").write_text("[canary]\nmin_observations = 10\nmax_error_rate = 0.01\n")
    invoke("policy", "set", tmp_path / "policy.toml", "--reason", "x")
    promote = ("promote", "--model", "fraud", "--features", "payments", "--json")
    invoke(*promote)
    assert "production has no canary" in invoke("canary", "status").stdout
    begun = told(invoke(*promote, "--schedule", "1,5,25", "--step-minutes", 30, "--stay"))
    assert (begun["percent"], begun["schedule"], begun["step_s"], begun["stays"]) == (
        1,
        [1, 5, 25],
        1800,
        True,
    )
    side = {"requests": 8, "errors": {"internal": 1}, "latency": {"400": 7}, "scores": {"290": 7}}
    counts = {"canary": side, "champion": {**side, "requests": 800, "errors": {}}, "keyless": 3}
    with connect(dsn) as connection:
        report(connection, "production", number=2, step=1, node_id="p-0", counts=counts)
    told_now = told(invoke("canary", "status", "--json"))
    assert told_now["canary"]["figures"]["canary"]["error_rate"] == 1 / 8
    assert told_now["steps"][0]["outcome"] == ""
    shown = " ".join(invoke("canary", "status").stdout.split())
    for part in (
        "it grows to 5 %",
        "8 of 10 transactions",
        "12.50%",
        "internal",
        "max_error_rate",
        "3 trans",
    ):
        assert part in shown, part
    assert "no schedule" in invoke(*promote, "--schedule", "a,b", code=2).stderr
    assert "a schedule grows" in invoke(*promote, "--schedule", "5,1", code=2).stderr


@pytest.mark.usefixtures("model")
def test_further_scores_are_promoted_by_name_and_dropped(invoke: Run, tmp_path: Path) -> None:
    invoke("register", tmp_path / "spec.toml", "--name", "payments")
    plain = ("promote", "--model", "fraud", "--features", "payments", "--json")
    invoke(*plain, "--model", "ato=fraud", "--features", "ato=payments", "--model", "mule=fraud")
    stages = told(invoke("status", "--json"))["release"]["slots"]["champion"]["stages"]
    assert set(stages) == {"model", "features", "model:ato", "features:ato", "model:mule"}
    invoke("promote", "--drop", "model:ato", "--drop", "model:mule", "--json")
    stages = told(invoke("status", "--json"))["release"]["slots"]["champion"]["stages"]
    assert set(stages) == {"model", "features"}
    for wrong, says in (
        (("--model", "fraud", "--model", "fraud"), "each stage can be named once"),
        (("--drop", "model:ato"), "no stage model:ato to drop"),
        (("--drop", "score"), "no stage 'score'"),
    ):
        assert says in " ".join(invoke("promote", *wrong, code=2).stderr.split())


def test_nobody_approves_their_own_proposal(invoke: Run, model: str, tmp_path: Path) -> None:
    invoke("register", tmp_path / "spec.toml", "--name", "payments")
    (tmp_path / "policy.toml").write_text("[approvals]\nrisk = 1\n")
    invoke("policy", "set", tmp_path / "policy.toml", "--reason", "x")
    invoke("approvers", "add", "ann", "risk")
    invoke("promote", "--model", model, "--features", "payments", "--by", "ann")
    refused = invoke("approve", 1, "--role", "risk", "--by", "ann", code=2)
    assert "ann may not approve a proposal of their own" in " ".join(refused.stderr.split())


def test_the_audit_log_is_verified_listed_and_exported(
    invoke: Run, model: str, dsn: str, tmp_path: Path
) -> None:
    invoke("freeze", "--reason", "holidays", "--by", "olga")
    good = told(invoke("audit", "verify", "--json"))
    assert good["verified"]
    assert good["entries"] == int(good["anchor"].partition(":")[0])
    invoke("thaw")
    invoke("audit", "verify", "--anchor", good["anchor"])
    assert "no anchor" in invoke("audit", "verify", "--anchor", "x", code=2).stderr
    assert "holidays" in invoke("audit", "list").stdout
    entries = told(invoke("audit", "list", "--all", "--json"))["entries"]
    assert entries[0]["after"]["digest"] == model

    invoke("audit", "export", "--out", tmp_path / "audit.jsonl")
    found = bytes(32)
    for line in (tmp_path / "audit.jsonl").read_text().splitlines():
        row = json.loads(line)
        found = hashlib.sha256(found + row["entry"].encode()).digest()
        assert row["hash"] == found.hex()
    assert len(invoke("audit", "export", "--after", 1).stdout.splitlines()) == len(entries) - 1

    with connect(dsn) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE audit SET entry = replace(entry, 'holidays', 'x')")
    broken = invoke("audit", "verify", code=1)
    assert "BROKEN: entry" in broken.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("policy", "set", "none.toml", "--reason", "x"), "cannot be read"),
        (("rollback", "--reason", "x"), "no release yet"),
        (("rollback", "--reason", " "), "say why"),
        (("freeze", "--reason", ""), "say why"),
        (("thaw",), "not frozen"),
        (("approve", "9", "--role", "risk"), "no proposal 9"),
        (("sign", "nobody", "--key", "none.pem", "--name", "x"), "nothing is registered"),
        (("keys", "show", "none.pem"), "no private key"),
        (("history", "--at", "2020-01-01"), "served no release yet"),
        (("register", __file__, "--provenance", "none.toml"), "cannot be read"),
    ],
)
def test_a_mistake_is_a_sentence(invoke: Run, arguments: Any, says: str) -> None:
    assert says in " ".join(invoke(*arguments, code=2).stderr.split())
