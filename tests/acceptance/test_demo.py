"""The demo, as a new user runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.conftest import wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A place for the demo's files, to see afterwards whether any is left."""
    with tempfile.TemporaryDirectory(prefix="scorewire-test-") as directory:
        yield Path(directory)


def start_demo(temporary: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "run.py", "demo", "--http-port", "0", *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def left_behind(temporary: Path) -> list[str]:
    processes = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] and str(temporary) in " ".join(process.info["cmdline"])
    ]
    return [*processes, *(str(file) for file in temporary.iterdir())]


def asked_as_the_readme_says(door: str) -> str:
    """Run README's line for a demo that runs, with its port in place of the usual one."""
    (line,) = re.findall(r"<!-- demo over HTTP -->\n```bash\n(.*?)\n```", (ROOT / "README.md").read_text())
    assert "http://127.0.0.1:7221/" in line
    told = line.replace("http://127.0.0.1:7221", door).replace("curl ", "curl -s --fail-with-body ")
    done = subprocess.run(["bash", "-c", told], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_the_demo_ends_with_its_facts_and_leaves_nothing_behind(temporary: Path) -> None:
    demo = start_demo(temporary, "--json", "--seconds", "9", "--rate", "70")
    assert demo.stderr is not None
    door = ""
    for line in demo.stderr:
        if found := re.search(r"over HTTP as well, at (http://[0-9.:]+)", line):
            door = found.group(1)
            break
    assert json.loads(asked_as_the_readme_says(door))["id"] == "42"
    out, err = demo.communicate(timeout=170)
    assert demo.returncode == 0, err
    facts = json.loads(out)
    expected = (
        "transactions failed mismatched p50_ms p99_ms p999_ms swap_ms killed releases kept rescored over_http"
    )
    assert list(facts) == expected.split()
    assert facts["transactions"] >= 590
    assert (facts["failed"], facts["mismatched"]) == (0, 0)
    assert 0 < facts["p50_ms"] <= facts["p99_ms"] <= facts["p999_ms"]
    assert facts["swap_ms"] > 0
    assert facts["killed"].startswith("scorer")
    assert set(facts["releases"]) == {"1", "2"}
    assert sum(facts["releases"].values()) == facts["transactions"]
    assert (facts["kept"], facts["rescored"], facts["over_http"]) == (facts["transactions"], "same", "same")
    assert not left_behind(temporary)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("moment", "number"),
    [("starting 2 preprocessors", signal.SIGINT), ("killed", signal.SIGINT), ("registered", signal.SIGTERM)],
)
def test_an_interrupt_stops_everything_and_leaves_nothing_behind(
    temporary: Path, moment: str, number: signal.Signals
) -> None:
    demo = start_demo(temporary, "--json", "--seconds", "9", "--rate", "50")
    assert demo.stderr is not None
    for line in demo.stderr:
        if moment in line:
            break
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode not in (0, None)
    # A node whose start the interrupt fell into sees by itself that its launcher has ended.
    wait_until(lambda: not left_behind(temporary), f"nothing left: {left_behind(temporary)}", 15.0)
