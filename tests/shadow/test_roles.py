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
    told = why_it_cannot_start(role, "", tmp_path, caplog)
    assert "needs Kafka: name one in [kafka]" in told


@pytest.mark.parametrize("role", sorted(SHADOW_ROLES))
@pytest.mark.parametrize(
    ("option", "value"),
    [("no.such.thing", "1"), ("queue.buffering.max.ms", "soon"), ("fetch.min.bytes", "few")],
)
def test_a_node_whose_kafka_has_an_option_that_there_is_not_cannot_start_and_names_it(
    role: str, option: str, value: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kafka = f"[kafka]\nbootstrap_servers = '127.0.0.1:9'\noptions = {{ '{option}' = '{value}' }}\n"
    told = why_it_cannot_start(role, kafka, tmp_path, caplog)
    assert "see options in [kafka]" in told
    assert option in told


def why_it_cannot_start(role: str, kafka: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> str:
    before = os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)
    (tmp_path / "scorewire.toml").write_text(f"dsn = 'host=/nowhere'\n{kafka}")
    with caplog.at_level(logging.ERROR):
        assert SHADOW_ROLES[role](load_settings(tmp_path / "scorewire.toml"), 0, None) == BOOT_FAILED
    # Whoever called it works on as before.
    assert (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)) == before
    return caplog.text
