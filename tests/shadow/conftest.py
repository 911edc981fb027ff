"""A broker for the tests of this room: the one that KAFKA_BOOTSTRAP_SERVERS names, or an embedded one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

import pytest

from actors.config import KafkaSettings
from shadow.broker import EmbeddedBroker

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def broker_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    named = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield KafkaSettings(bootstrap_servers=named, partitions=4, replication=1)
        return
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.settings


@pytest.fixture
def kafka(broker_settings: KafkaSettings) -> KafkaSettings:
    """Topics of one's own on the shared broker."""
    prefix = f"test-{os.getpid()}-{next(_numbers)}"
    return broker_settings.model_copy(update={"topic_prefix": prefix})


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return _wait_until


def _wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    import time

    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.02)
