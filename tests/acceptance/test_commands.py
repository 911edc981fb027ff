"""The command line: facts as JSON for machines, sentences for people, and no traceback for either."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import pytest
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner, Result

import run
from examples.card_payments import PAYMENT_SPEC, simulate
from models.spec import load_spec
from tests.javascript import HAS_NODE, install, score

Run = Callable[..., Result]


@pytest.fixture
def invoke(tmp_path: Path, dsn: str) -> Run:
    config = tmp_path / "scorewire.toml"
    config.write_text(f"environment = 'qa'\ndsn = '{dsn}'\n")

    def invoke(*arguments: object, code: int = 0) -> Result:
        own = ["--config", config] if arguments[0] != "model" else []
        result = CliRunner().invoke(run.app, [str(part) for part in (*arguments, *own)])
        assert result.exit_code == code, result.output + result.stderr
        return result

    return invoke


@pytest.fixture(scope="module")
def trained() -> Any:
    payments, labels = simulate(n=3_000, seed=3)
    return payments, load_spec(PAYMENT_SPEC).matrix(payments), labels


def test_a_model_goes_from_its_file_to_an_environment(invoke: Run, trained: Any, tmp_path: Path) -> None:
    _, x, labels = trained
    source = tmp_path / "model.txt"
    lightgbm.train({"objective": "binary", "verbosity": -1}, lightgbm.Dataset(x, labels), 10).save_model(
        source
    )
    out = tmp_path / "m.bundle"

    imported = invoke(
        "model", "import", source, "--out", out, "--spec", PAYMENT_SPEC, "--note", "run=7", "--json"
    )
    facts = json.loads(imported.stdout)
    assert facts["library"] == "lightgbm"
    assert facts["notes"] == {"run": "7"}
    assert tuple(facts["feature_names"]) == load_spec(PAYMENT_SPEC).feature_names
    assert json.loads(invoke("model", "inspect", out, "--json").stdout)["digest"] == facts["digest"]
    verified = json.loads(invoke("model", "verify", out, "--digest", facts["digest"], "--json").stdout)
    assert verified["verified"]

    registered = json.loads(invoke("register", out, "--name", "fraud", "--by", "ann", "--json").stdout)
    assert (registered["digest"], registered["registered_by"]) == (facts["digest"], "ann")
    invoke("register", PAYMENT_SPEC, "--name", "payments")
    promoted = json.loads(invoke("promote", "--model", "fraud", "--features", "payments", "--json").stdout)
    assert (promoted["state"], promoted["release"]) == ("active", 1)

    status = json.loads(invoke("status", "--json").stdout)
    assert (status["environment"], status["release"]["number"], status["members"]) == ("qa", 1, [])
    releases = json.loads(invoke("releases", "--json").stdout)["releases"]
    assert releases[0]["slots"]["champion"]["stages"]["model"] == facts["digest"]
    for command in ("status", "releases"):
        assert facts["digest"][:8] in invoke("releases").stdout or command == "status"
        assert "qa" in invoke("status").stdout


def test_a_pickle_is_not_loaded_unless_its_maker_is_trusted(
    invoke: Run, trained: Any, tmp_path: Path
) -> None:
    _, x, labels = trained
    source, out = tmp_path / "model.joblib", tmp_path / "m.bundle"
    joblib.dump(RandomForestClassifier(3, random_state=0).fit(x, labels), source)
    refused = invoke("model", "import", source, "--out", out, code=2)
    assert "--trust-pickle" in refused.stderr
    assert not out.exists()
    trusted = invoke("model", "import", source, "--out", out, "--trust-pickle")
    assert "runs the code" in " ".join(trusted.stderr.split())
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("register", "none.bundle"), "there is no file"),
        (("register", __file__), "no bundle|JSON|header"),
        (("promote", "--model", "nobody", "--features", "nobody"), "no bundle 'nobody' is registered"),
        (("promote",), "--model, --features, --decision"),
        (("model", "inspect", __file__), "header"),
        (("model", "verify", "none.bundle"), "cannot be read"),
        (("model", "import", "none.txt", "--out", "x"), "there is no file"),
        (("model", "import", __file__, "--out", "x", "--trust-pickle"), "kind that is not known"),
        (("node", "dancer"), "no role 'dancer'"),
        (("score", "none.jsonl"), "there is no file"),
    ],
)
def test_a_mistake_is_a_sentence_and_not_a_traceback(invoke: Run, arguments: Any, says: str) -> None:
    import re

    result = invoke(*arguments, code=2)
    assert re.search(says, " ".join(result.stderr.split())), result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_that_is_away_or_without_a_schema_is_named(tmp_path: Path, empty_dsn: str) -> None:
    for dsn, says in (("host=/nowhere", "cannot be reached"), (empty_dsn, "run.py migrate")):
        config = tmp_path / "scorewire.toml"
        config.write_text(f"dsn = '{dsn}'\n")
        result = CliRunner().invoke(run.app, ["status", "--config", str(config)])
        assert result.exit_code == 2
        assert says in " ".join(result.stderr.split())
    result = CliRunner().invoke(run.app, ["score", str(config), "--config", str(config)])
    assert result.exit_code == 2
    assert "--address" in " ".join(result.stderr.split())


def test_a_csv_file_is_scored_and_what_is_refused_is_a_line_of_its_own(
    system: Any, trained: Any, directory: Path
) -> None:
    payments, x, labels = trained
    spec = load_spec(PAYMENT_SPEC)
    from models.importers import import_model

    model = RandomForestClassifier(5, random_state=0).fit(x, labels)
    bundle = import_model(model, directory / "m.bundle", feature_names=list(spec.feature_names))
    features = system.register(PAYMENT_SPEC, "feature_spec", "payments")
    assert (
        system.promote(features=features, model=system.register(bundle.path, "bundle", "m")).state == "active"
    )
    rows = [dict(payment) for payment in payments[:50]]
    rows[7]["amount"] = None
    file, out = directory / "payments.csv", directory / "answers.jsonl"
    with file.open("w", newline="") as sink:
        writer = csv.DictWriter(sink, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    result = CliRunner().invoke(
        run.app, ["score", str(file), "--out", str(out), "--config", str(system.file)]
    )
    assert result.exit_code == 1, result.stderr
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert (answers[7]["error"], answers[7]["field"], answers[7]["rule"]) == (
        "bad_transaction",
        "amount",
        "missing",
    )
    expected = model.predict_proba(x[:50])[:, 1]
    assert all(answers[i]["scores"]["1"] == expected[i] for i in range(50) if i != 7)
    assert [answer["id"] for i, answer in enumerate(answers) if i != 7] == [
        row["id"] for i, row in enumerate(rows) if i != 7
    ]
    if HAS_NODE:  # a client that was written from docs/wire.md gets the same
        found = score(install(directory / "node"), system.addresses(), rows)
        assert (found[7]["error"], found[7]["field"], found[7]["rule"]) == (
            "bad_transaction",
            "amount",
            "missing",
        )
        assert all(found[i]["score"] == expected[i] for i in range(50) if i != 7)
        assert all(dict(found[i]["scores"]) == answers[i]["scores"] for i in range(50) if i != 7)
        assert found[0]["pipeline"] == answers[0]["trace"]["pipeline"]
