from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from actors.config import load_settings
from actors.supervisor import BOOT_FAILED
from shadow.roles import SHADOW_ROLES


@pytest.mark.parametrize("role", sorted(SHADOW_ROLES))
def test_a_node_that_is_told_of_no_kafka_cannot_start_and_says_so(
    role: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    (tmp_path / "scorewire.toml").write_text("dsn = 'host=/nowhere'\n")
    with caplog.at_level(logging.ERROR):
        assert SHADOW_ROLES[role](load_settings(tmp_path / "scorewire.toml"), 0, None) == BOOT_FAILED
    assert "[kafka]" in caplog.text
    # Whoever called it works on as before.
    assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)) == before
