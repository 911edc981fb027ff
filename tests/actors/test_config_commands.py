"""`run.py config`, --set on every command, and a host whose nodes hold what its `up` was told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import run
from actors.config_commands import MARK

ROOT = Path(__file__).parents[2]
SECRET = "hunter2"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "scorewire.toml"
    file.write_text(
        f'dsn = "postgresql://me:{SECRET}@db.internal:5433/scores?sslmode=require"\n[scorer]\nnodes = 3\n'
        f'[kafka]\nbootstrap_servers = "a:1"\noptions = {{"sasl.password" = "{SECRET}"}}\n'
    )
    return file


def told(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(run.app, ["config", *arguments])
    assert done.exit_code == code, done.output
    assert SECRET not in done.output
    return done.output


def test_show_says_each_value_and_where_it_came_from(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCOREWIRE_SINK__BATCH", "70")
    monkeypatch.setenv("SCOREWIRE_TEE__HASH_KEY", SECRET)
    said = ("show", f"--config={config}", "--set=environment=qa")
    shown = json.loads(told(*said, "--json"))
    values = {row["key"]: (row["value"], row["source"]) for row in shown["values"]}
    assert values["environment"] == ("qa", "--set environment")
    assert values["scorer.nodes"] == (3, f"{config}:3")
    assert values["sink.batch"] == (70, "SCOREWIRE_SINK__BATCH")
    assert values["preprocessor.port"] == (7301, "default")
    assert values["haproxy"] == (None, "default")
    assert values["tee.hash_key"] == ("(secret)", "SCOREWIRE_TEE__HASH_KEY")
    assert values['kafka.options."sasl.password"'] == ("(secret)", f"{config}:6")
    where, source = values["dsn"]
    assert where == "host=db.internal port=5433 dbname=scores user=me sslmode=require"
    assert source == f"{config}:1"
    text = told(*said)
    assert f"scorer.nodes = 3 {' ' * 10}" in text
    assert text.count("\n") == len(shown["values"])


def test_check_says_all_that_is_wrong(config: Path) -> None:
    assert "5 keys set" in told("check", f"--config={config}", "--set=sink.batch=9")
    assert json.loads(told("check", f"--config={config}", "--json")) == {"valid": True, "problems": []}
    wrong = ("check", f"--config={config}", "--set=sink.batsch=9", "--set=scorer.nodes=x")
    found = json.loads(told(*wrong, "--json", code=2))
    assert not found["valid"]
    assert [(one["key"], one["source"]) for one in found["problems"]] == [
        ("scorer.nodes", "--set scorer.nodes"),
        ("sink.batsch", "--set sink.batsch"),
    ]
    lines = told(*wrong, code=2).splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("did you mean sink.batch?")


def test_the_page_of_the_configuration_is_what_the_models_say(tmp_path: Path) -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    assert page.partition(MARK)[2] == told("docs"), "run.py config docs --into docs/configuration.md"
    copy = tmp_path / "page.md"
    copy.write_text(page + "something old\n")
    told("docs", f"--into={copy}")
    assert copy.read_text() == page


def test_what_the_page_shows_is_so(tmp_path: Path) -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    (commands,) = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (example,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for name in ("scorewire-dsn", "kafka", "scorewire-hash-key"):
        (tmp_path / name).write_text(f"host=db password={name}\n")
    (tmp_path / "scorewire.toml").write_text(example.replace("/run/secrets", str(tmp_path)))
    script = f'set -eu\nrun.py() {{ {sys.executable} {ROOT}/run.py "$@"; }}\n{commands}'
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "password" not in done.stdout.replace("sasl.password", "")
    assert f"{tmp_path}/scorewire-dsn, which scorewire.toml:1 names" in done.stdout


def test_every_command_that_reads_the_configuration_takes_set() -> None:
    def walk(command: Any, name: str) -> None:
        for word, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {word}")
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--set" in options) == ("--config" in options), name
        seen.append("--set" in options)

    seen: list[bool] = []
    walk(typer.main.get_command(run.app), "run.py")
    assert sum(seen) > 30
    # What one command was told does not hold for the next.
    assert (
        CliRunner()
        .invoke(run.app, ["status", "--set", "nonsense=1", "--config=deploy/scorewire.toml"])
        .exit_code
        == 2
    )
    assert "in order" in told("check", f"--config={ROOT}/deploy/scorewire.toml")


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 100  # the first start of a checkout compiles
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def test_nodes_hold_what_up_was_told_and_write_no_secret(tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(f"host=127.0.0.1 port=9 user=me password={SECRET}")
    (tmp_path / "scorewire.toml").write_text(f"""dsn_file = "dsn"
logs = "by-file"
cache = "cache"
[scorer]
nodes = 1
[kafka]
bootstrap_servers = "127.0.0.1:9"
[kafka.options]
"security.protocol" = "SASL_PLAINTEXT"
"sasl.mechanism" = "PLAIN"
"sasl.username" = "me"
"sasl.password" = "{SECRET}"
""")
    command = [sys.executable, str(ROOT / "run.py"), "up", "--set=logs=by-set", "--set=sink.nodes=0"]
    variables = {
        "SCOREWIRE_PREPROCESSOR__NODES": "0",
        "SCOREWIRE_LOGS": "by-variable",
        "SCOREWIRE_TEE__HASH_KEY": SECRET,
    }
    with (tmp_path / "up.log").open("w") as log:
        up = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **variables}, stdout=log, stderr=log)
    try:
        # Each node opens its black box where it believes that logs are.
        wait_until(lambda: len(list((tmp_path / "by-set").glob("*.ring"))) == 2)
        wait_until(lambda: "127.0.0.1" in (tmp_path / "by-set/scorer-0.log").read_text())
        wait_until(lambda: "127.0.0.1" in (tmp_path / "by-set/tee-0.log").read_text())
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(30)
    assert {path.name for path in tmp_path.glob("by-*")} == {"by-set"}
    texts = [
        path.read_bytes()
        for path in (*(tmp_path / "by-set").rglob("*"), tmp_path / "up.log")
        if path.is_file()
    ]
    assert len(texts) >= 5
    assert not [text for text in texts if SECRET.encode() in text]
