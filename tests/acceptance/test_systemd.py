"""The units of systemd are ones that systemd takes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed here")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    names = []
    for unit in UNITS:
        text = unit.read_text()
        assert "WatchdogSec=" in text
        assert "Type=notify" in text
        # Where it is installed is the operator's; here is what can be run.
        text = text.replace("/opt/scorewire/.venv/bin/python", sys.executable).replace("User=scorewire\n", "")
        name = unit.name.replace("@.", "@0.")
        (tmp_path / name).write_text(text)
        names.append(str(tmp_path / name))
    assert len(names) == 4
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "scorewire" not in done.stderr, done.stderr
