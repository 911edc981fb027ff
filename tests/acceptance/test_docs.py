"""The documents: their commands run, and they speak of what is there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import lightgbm
import numpy as np
import onnx
import pytest
import xgboost
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from typer.testing import CliRunner

from actors.config import CodeSettings
from examples.card_payments import PAYMENT_SPEC, simulate
from governance.policy import read_policy
from models.code.interface import FeaturesInterface
from models.importers import import_model
from models.spec import load_spec
from run import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))


def blocks(document: str) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.timeout(300)
def test_the_commands_of_the_quickstart_run_in_their_order() -> None:
    # Not pytest's own directory: as root, the quickstart's PostgreSQL runs as another user.
    work = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    try:
        shutil.copytree(ROOT / "examples", work / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        (work / "run.py").symlink_to(ROOT / "run.py")
        script = "set -euxm\n" + "".join(blocks("docs/quickstart.md"))
        python = {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        own = {"SCOREWIRE_PREPROCESSOR__PORT": "0", "SCOREWIRE_CACHE": str(work / "cache")}
        own["SCOREWIRE_LOGS"] = str(work / "logs")
        environment = {**os.environ, **python, **own}
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        answers = [json.loads(line) for line in (work / "answers.jsonl").read_text().splitlines()]
        assert len(answers) == 20_000
        assert all(set(answer["scores"]) == {"0", "1"} for answer in answers)
        left = subprocess.run(["pgrep", "-f", str(work)], capture_output=True, text=True, check=False).stdout
        assert not left, left
    finally:
        shutil.rmtree(work)


def test_the_commands_and_the_code_of_the_page_of_models_run(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    forest = RandomForestClassifier(5, random_state=0).fit(x, y)
    joblib.dump(forest, tmp_path / "forest.joblib")
    lightgbm.train({"verbosity": -1}, lightgbm.Dataset(x, y), 5).save_model(tmp_path / "booster.txt")
    xgboost.train({}, xgboost.DMatrix(x, y), 5).save_model(tmp_path / "booster.json")
    onnx.save(to_onnx(RandomForestRegressor(5, random_state=0).fit(x, y), x[:1]), tmp_path / "trees.onnx")
    script = f'set -eu\nrun.py() {{ {sys.executable} {ROOT}/run.py "$@"; }}\n' + "".join(
        blocks("docs/models.md")
    )
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    # The last import was another model: for the page's code, the forest.
    import_model(forest, tmp_path / "fraud.bundle")
    (code,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/models.md").read_text(), re.MULTILINE | re.DOTALL
    )
    code = code.replace("forest.predict(", "scores = forest.predict(")
    names: dict[str, Any] = {"rows": x}
    with contextlib.chdir(tmp_path):
        exec(code, names)
    assert np.array_equal(names["scores"], forest.predict_proba(x))


def test_the_commands_and_the_code_of_the_page_of_features_run(tmp_path: Path) -> None:
    import pandas as pd
    import skops.io
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    page = (ROOT / "docs/features.md").read_text()
    (text,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "payments.toml").write_text(text)
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        exec(code, names)
    spec, vector = names["spec"], names["vector"]
    shown = dict(zip(spec.feature_names, vector.tolist(), strict=True))
    assert (shown["hour_new_york"], shown["to_mean"], shown["disposable"]) == (17, 3, 1)
    assert names["matrix"].tobytes() == vector.tobytes() * 1000
    # A pipeline, a sample and training data for the commands.
    data = pd.DataFrame({"amount": [1.0, 20, 3, 40] * 20, "kind": ["a", "b", "c", "b"] * 20})
    columns = make_column_transformer((StandardScaler(), ["amount"]), (OneHotEncoder(), ["kind"]))
    model = make_pipeline(columns, RandomForestClassifier(3, random_state=0)).fit(data, data["amount"] > 10)
    skops.io.dump(model, tmp_path / "pipeline.skops")
    joblib.dump(model, tmp_path / "pipeline.joblib")
    data.to_json(tmp_path / "sample.jsonl", orient="records", lines=True)
    (tmp_path / "training.jsonl").write_text((json.dumps(names["payment"]) + "\n") * 20)
    script = f'set -eu\nrun.py() {{ {sys.executable} {ROOT}/run.py "$@"; }}\n' + "".join(
        blocks("docs/features.md")
    )
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert load_spec(tmp_path / "payments.json").profile is not None
    assert json.loads((tmp_path / "payments.schema.json").read_text())["required"][0] == "amount"


def test_every_kind_of_the_vocabulary_stands_on_the_page_of_features() -> None:
    from typing import get_args

    from models.features.vocabulary import AnyKind

    page = (ROOT / "docs/features.md").read_text()
    for kind in get_args(get_args(AnyKind)[0]):
        for word in get_args(kind.model_fields["kind"].annotation):
            assert f"`{word}`" in page, word


def test_the_commands_and_the_code_of_the_page_of_governance_run(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/governance.md").read_text()
    for text in re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        (name,) = re.findall(r"^# ([a-z]+\.toml)", text)
        (tmp_path / name).write_text(text)
        if name != "provenance.toml":
            read_policy(tomllib.loads(text))
    payments, labels = simulate(n=2_000, seed=3)
    spec = load_spec(PAYMENT_SPEC)
    x, names = spec.matrix(payments), list(spec.feature_names)
    model = RandomForestClassifier(5, random_state=0).fit(x, labels)
    trained = datetime.now(UTC).isoformat(timespec="seconds")
    import_model(model, tmp_path / "fraud.bundle", feature_names=names, trained_at=trained)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "scorewire.toml").write_text(f"environment = 'production'\ndsn = '{dsn}'\n")
    script = f'set -eu\nrun.py() {{ {sys.executable} {ROOT}/run.py "$@"; }}\n' + "".join(
        blocks("docs/governance.md")
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "release 1 is active" in done.stdout
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("SCOREWIRE_DSN", dsn)
    with contextlib.chdir(tmp_path):
        exec(code, {"model": model, "x": x, "names": names})


def test_the_commands_of_the_page_of_code_run(dsn: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((100, 2)).astype(np.float32)
    model = RandomForestClassifier(5, random_state=0).fit(x, x[:, 0] > 0.5)
    import_model(model, tmp_path / "payments.bundle", feature_names=["log_amount", "age"])
    (tmp_path / "scorewire.toml").write_text(f"environment = 'production'\ndsn = '{dsn}'\n")
    python = sys.executable
    names = f'run.py() {{ {python} {ROOT}/run.py "$@"; }}\npip() {{ {python} -m pip "$@"; }}\n'
    script = f"set -eu\n{names}" + "".join(blocks("docs/code.md"))
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "payfeatures 0.1.0 would be taken" in done.stdout
    assert "release 1 is active" in done.stdout
    # What the page shows of a declaration and of a configuration is what is read.
    page = (ROOT / "docs/code.md").read_text()
    declared, settings = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    FeaturesInterface.model_validate(tomllib.loads(declared))
    assert CodeSettings(**tomllib.loads(settings)["code"]) == CodeSettings()


def commands_in(document: str) -> set[str]:
    return set(re.findall(r"run\.py ((?:model |code )?[a-z]+)", (ROOT / document).read_text()))


@pytest.mark.parametrize("document", ["README.md", *DOCUMENTS])
def test_every_command_that_a_document_names_has_a_help_worth_reading(document: str) -> None:
    for command in sorted(commands_in(document)):
        done = CliRunner().invoke(app, [*command.split(), "--help"])
        assert done.exit_code == 0, f"{command}: {done.output}"
        assert len(done.output) > 300, command


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", *DOCUMENTS])
def test_links_and_paths_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert ((ROOT / document).parent / target).exists(), target
    for path in re.findall(r"`((?:tests|docs|examples|benchmarks|deploy)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_example_configuration_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.config import load_settings

    monkeypatch.delenv("SCOREWIRE_DSN", raising=False)
    settings = load_settings(ROOT / "deploy" / "scorewire.toml")
    assert (settings.environment, settings.preprocessor.port) == ("production", 7301)
