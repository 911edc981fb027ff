from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from actors.config import KafkaSettings, Settings, TeeSettings
from actors.node import Node


@pytest.fixture
def node_of(request: pytest.FixtureRequest) -> Callable[[Settings, str], Node]:
    def make(settings: Settings, role: str) -> Node:
        node = Node(settings, role, 0)
        request.addfinalizer(lambda: node._context.destroy(linger=0))
        return node

    return make


def settings(directory: Path, rings: Path) -> Settings:
    return Settings(
        dsn="host=nowhere",
        cache=directory / "cache",
        logs=directory / "logs",
        kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"),
        tee=TeeSettings(rings=rings, memory_mb=1),
    )


def test_a_preprocessor_has_a_ring_where_its_tee_looks(
    tmp_path: Path, node_of: Callable[[Settings, str], Node]
) -> None:
    node = node_of(settings(tmp_path, tmp_path / "rings"), "preprocessor")
    ring = node._state.tee
    assert ring is not None
    assert list((tmp_path / "rings" / "production").iterdir()) == [ring.path]
    assert ring.path.stat().st_size > 1e6
    ring.close()
    assert node_of(settings(tmp_path, tmp_path / "rings"), "scorer")._state.tee is None


def test_where_no_ring_can_be_a_preprocessor_starts_all_the_same_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, node_of: Callable[[Settings, str], Node]
) -> None:
    (tmp_path / "file").touch()
    node = node_of(settings(tmp_path, tmp_path / "file"), "preprocessor")
    assert "no answer of this node reaches the tee" in caplog.text
    ring = node._state.tee
    assert ring is not None
    for _ in range(100):
        ring.offer(1.0, 0, b"", bytes(1000), b"", b"")
    assert ring.counters()["dropped"] > 0
    ring.close()
