"""An answer is traced three releases later, and computed again; what hides fields says so."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from actors.rescore import load_pipeline, rescore
from examples.card_payments import PAYMENT_SPEC, simulate
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.trace import Trace, trace
from governance.transactions import find
from models.importers import import_model
from models.spec import load_spec
from shadow.broker import EmbeddedBroker
from tests.acceptance.conftest import System, start_system, wait_until
from transport.client import Answer, Client

ROOT = Path(__file__).parents[2]
RULES = """
name = "card-decisions"
version = 1
[[rules]]
when = "score > 0.5 || tx.amount > 100.0"
decide = "review"
reason = "looks.wrong"
"""


@pytest.fixture(scope="module")
def kept(directory: Path) -> Iterator[System]:
    """A system whose answers are kept: with a tee and a sink."""
    with (
        EmbeddedPostgres(directory / "postgres") as postgres,
        EmbeddedBroker(directory / "broker") as broker,
    ):
        migrate(postgres.dsn)
        kafka = (
            f"[kafka]\nbootstrap_servers = '{broker.bootstrap_servers}'\npartitions = 2\nreplication = 1\n"
            "options = {'session.timeout.ms' = '6000'}\n[tee]\nhash_key = 'a secret'\n"
        )
        system = start_system(directory, postgres, preprocessors=1, scorers=1, more=kafka)
        try:
            system.wait_for_nodes()
            yield system
        finally:
            system.host.stop()


@pytest.fixture(scope="module")
def answered(kept: System) -> list[tuple[dict[str, Any], Answer]]:
    """Payments with their answers, each of another release: one hides fields, one decides nothing."""
    payments, labels = simulate(n=1_000, seed=3)
    spec = load_spec(PAYMENT_SPEC)
    x = spec.matrix(payments)
    hiding = kept.directory / "hiding.toml"
    hiding.write_text(_hiding(PAYMENT_SPEC.read_text()))
    rules = kept.directory / "rules.toml"
    rules.write_text(RULES)
    decision = kept.register(rules, "decision_rules", "card-decisions")
    found = []
    for number, (file, decides) in enumerate(
        [(PAYMENT_SPEC, True), (hiding, True), (PAYMENT_SPEC, False), (hiding, False)]
    ):
        forest = RandomForestClassifier(5, random_state=number).fit(x, labels)
        path = kept.directory / f"forest-{number}.bundle"
        import_model(forest, path, feature_names=list(spec.feature_names))
        stages = {
            "features": kept.register(file, "feature_spec", f"spec-{number}"),
            "model": kept.register(path, "bundle", f"forest-{number}"),
            **({"decision": decision} if decides else {}),
        }
        settled = kept.promote(**stages)
        assert settled.state == "active", settled
        payment = {**payments[number], "id": f"payment-{number}"}
        with Client(kept.addresses(), deadline=10.0) as client:
            found.append((payment, client.score(payment)))
    with connect(kept.settings.dsn) as connection:
        for payment, _ in found:
            wait_until(partial(find, connection, "test", payment["id"]), "an answer in the database")
    return found


def _hiding(text: str) -> str:
    """Return a spec with a field whose hash is stored, and one that is dropped."""
    hashed = text.replace("[fields.amount]\n", '[fields.amount]\nstore = "hash"\n', 1)
    assert hashed != text
    return hashed.replace("version = ", "version = 1", 1)


def run(kept: System, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "run.py", *arguments, f"--config={kept.file}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_an_answer_is_traced_and_computed_again_three_releases_later(
    kept: System, answered: list[tuple[dict[str, Any], Answer]]
) -> None:
    payment, answer = answered[0]
    code, said = run(kept, "trace", payment["id"], "--rescore", "--json")
    assert code == 0, said
    (told,) = json.loads(said)["answers"]
    assert told["release"]["number"] == answer.trace.release == 1
    assert told["scores"] == answer.scores
    assert told["transaction"] == payment
    assert answer.decision is not None
    assert told["decision"]["outcome"] == answer.decision.outcome
    assert {one["stage"]: one["digest"] for one in told["artifacts"]} == answer.trace.pipeline
    assert told["nodes"] == answer.trace.nodes
    assert told["us"] == answer.trace.us
    assert told["release"]["created_by"] == "test"
    spec = load_spec(PAYMENT_SPEC)
    assert list(told["features"]["features"]) == list(spec.feature_names)
    assert told["rescored"]["same"] is True
    assert {one["what"]: one["same"] for one in told["rescored"]["checks"]} == {
        "features": True,
        "scores": True,
        "decision": True,
    }
    code, said = run(kept, "trace", payment["id"], "--rescore")
    assert code == 0, said
    assert said.count("the same to the bit") == 3
    assert "forest-0" in said


def test_hidden_fields_are_hashed_and_what_needs_them_is_not_computed(
    kept: System, answered: list[tuple[dict[str, Any], Answer]]
) -> None:
    payment, _ = answered[1]
    found = traced(kept, payment["id"])
    assert found.transaction.fields["amount"] != payment["amount"]
    assert len(found.transaction.fields["amount"]) == 32
    with connect(kept.settings.dsn) as connection:
        again = rescore(load_pipeline(connection, kept.settings, found), found.transaction)
    assert {check.what: check.same for check in again.checks} == {
        "features": None,
        "scores": True,
        "decision": None,
    }
    assert again.same
    assert all("amount" in check.detail for check in again.checks if check.same is None)


def traced(kept: System, id_: str) -> Trace:
    with connect(kept.settings.dsn) as connection:
        (found,) = trace(connection, "test", id_)
    return found


def test_what_is_not_the_same_is_told(kept: System, answered: list[tuple[dict[str, Any], Answer]]) -> None:
    found = traced(kept, answered[0][0]["id"])
    one = found.transaction
    with connect(kept.settings.dsn) as connection:
        evaluator = load_pipeline(connection, kept.settings, found)
    name, value = next(iter(one.scores.items()))
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    (nearest,) = struct.unpack("<d", struct.pack("<q", bits + 1))
    for changed, what in (
        (replace(one, scores={**one.scores, name: nearest}), "scores"),
        (replace(one, scores=dict(list(one.scores.items())[::-1])), "scores"),
        (replace(one, outcome="decline"), "decision"),
        (replace(one, fields={**one.fields, "amount": 5e6}), "features"),
    ):
        again = rescore(evaluator, changed)
        assert not again.same
        assert what in {check.what for check in again.checks if check.same is False}


def test_labels_come_back_and_become_precision_and_recall(
    kept: System, answered: list[tuple[dict[str, Any], Answer]], tmp_path: Path
) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("id,label,source\npayment-0,1,chargeback\npayment-1,0,review\nbroken,perhaps,\n")
    code, said = run(kept, "labels", "import", str(file), "--json")
    assert code == 1
    assert "line 4" in said
    assert json.loads(said.splitlines()[0])["added"] == 2
    code, said = run(kept, "labels", "report", "--json")
    assert code == 0, said
    first = next(one for one in json.loads(said)["releases"] if one["release"] == 1)
    decision = answered[0][1].decision
    assert decision is not None
    flagged = decision.outcome != "approve"
    assert (first["labels"], first["positives"]) == (1, 1)
    assert (first["flagged"], first["hits"]) == (flagged, flagged)
    assert "chargeback" in run(kept, "trace", "payment-0")[1]


def test_what_is_not_kept_is_told_and_status_shows_the_stream(
    kept: System, answered: list[tuple[dict[str, Any], Answer]]
) -> None:
    assert answered
    code, said = run(kept, "trace", "no-such-transaction")
    assert code == 2
    assert "has no answer to" in said
    code, said = run(kept, "status", "--json")
    roles = {node["role"]: node["counters"] for node in json.loads(said)["streams"]}
    assert set(roles) == {"tee", "sink"}
    code, said = run(kept, "retention", "set", "30", "--reason", "a test")
    assert code == 0, said
    assert "30 days" in run(kept, "retention", "show")[1]
