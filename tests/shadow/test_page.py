"""The page of shadows: its commands run, in their order."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from actors.config import KafkaSettings
from tests.shadow.test_commands import fill
from tests.shadow.world import build

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(240)
def test_the_commands_of_the_page_run(dsn: str, tmp_path: Path) -> None:
    world = build(dsn, KafkaSettings(bootstrap_servers="127.0.0.1:9"), tmp_path)
    page = (ROOT / "docs/shadow.md").read_text()
    # The page's names are those of somebody else's artifacts.
    page = page.replace("fraud-v2", "other").replace("careful-rules", "lenient")
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    run(blocks[0], tmp_path)
    for shadow in (1, 2):
        fill(world, shadow, 1200)
    output = run("".join(blocks[1:]), tmp_path)
    assert "release 2 is active" in output
    assert (tmp_path / "bold.html").read_text().startswith("<!")
    assert {name: state for name, (state, _) in world.states().items()} == {
        "bold": "promoted",
        "careful": "retired",
        "late": "running",
    }


def run(script: str, directory: Path) -> str:
    """Run commands where scorewire.toml is; return what they print."""
    whole = f'set -eu\nrun.py() {{ {sys.executable} {ROOT}/run.py "$@"; }}\n{script}'
    done = subprocess.run(
        ["bash", "-c", whole], cwd=directory, capture_output=True, text=True, check=False, timeout=220
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
