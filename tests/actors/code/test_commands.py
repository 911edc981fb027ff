"""`code new` and `code check`: a package to begin with that holds, and what a node would say of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from actors.code.commands import app
from tests.models.code.wheels import build

FUNCTIONS = {"features": "features", "decision": "decide", "model": "score"}


def invoke(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert result.exit_code == code, result.output + result.stderr
    return result


@pytest.mark.parametrize("stage", FUNCTIONS)
def test_a_new_package_would_be_taken(tmp_path: Path, stage: str) -> None:
    made = json.loads(invoke("new", "mine", "--stage", stage, "--directory", tmp_path, "--json").stdout)
    assert len(made["files"]) == 3
    root = tmp_path / "mine" / "mine"
    wheel = build(
        tmp_path / "wheels",
        (root / "__init__.py").read_text(),
        (root / "scorewire.toml").read_text(),
        name="mine",
        group=f"scorewire.{stage}",
        target=FUNCTIONS[stage],
    )
    facts = json.loads(invoke("check", wheel, "--json").stdout)
    assert (facts["stage"], facts["package"], facts["version"]) == (stage, "mine", "1.0")
    assert facts["call_us_p99"] >= facts["call_us_p50"] > 0
    assert "mine 1.0 would be taken" in " ".join(invoke("check", wheel).stdout.split())


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("import nothing_like_that", (), "CodeStartError: pack 1.0 does not load: ModuleNotFoundError"),
        ("def features(t): return [1, 2]", (), "GoldenMismatchError: pack 1.0: golden 0: 'double' is 1.0"),
        (
            "import time\ndef features(t):\n    time.sleep(0.3)\n    return [4, 1]",
            ("--budget-ms", 20),
            "budget_ms (20 ms)",
        ),
        (
            "x = bytearray(1 << 28)\ndef features(t): return [4, 1]",
            ("--memory-mb", 200),
            "does not load: MemoryError",
        ),
        ("while True: pass", ("--start-s", 0.3), "did not load within code.start_s"),
    ],
)
def test_what_a_node_would_refuse_is_a_sentence(
    tmp_path: Path, source: str, options: tuple[object, ...], says: str
) -> None:
    said = " ".join(invoke("check", build(tmp_path, source), *options, code=2).stderr.split())
    assert "would be refused" in said
    assert says in said


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    for arguments, says in (
        (("new", "json"), "no name for a package"),
        (("new", "My-Package"), "no name for a package"),
        (("new", "mine", "--stage", "scores"), "there is no stage 'scores'"),
        (("check", tmp_path / "none.whl"), "cannot be read"),
        (("check", __file__), "no wheel"),
    ):
        assert says in " ".join(invoke(*arguments, code=2).stderr.split())
    invoke("new", "mine", "--directory", tmp_path)
    assert "cannot be written" in " ".join(
        invoke("new", "mine", "--directory", tmp_path, code=2).stderr.split()
    )
