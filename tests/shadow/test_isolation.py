"""A broken candidate cannot touch live scoring: own processes, own limits, and it is given up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.config import KafkaSettings
from actors.host import Host
from governance.database import migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import members
from tests.shadow.world import World, build, transaction
from transport.client import Client

#: A shadow node whose candidates are hostile.
NODE = """
import sys
from pathlib import Path
from actors.config import load_settings
from shadow import node, process
from tests.shadow import hostile
node.PROGRAM = hostile.PROGRAM
node.ShadowNode.__init__.__defaults__ = (hostile.PROGRAM,)
sys.exit(node.run_shadow_node(load_settings(Path(sys.argv[1])), 0))
"""


@pytest.fixture
def world(kafka: KafkaSettings) -> Iterator[World]:
    # Not pytest's own directory, which only its user may enter: PostgreSQL runs as another user than root.
    with tempfile.TemporaryDirectory(prefix="scorewire-test-") as name:
        directory = Path(name)
        with EmbeddedPostgres(directory / "postgres") as postgres:
            migrate(postgres.dsn)
            yield build(
                postgres.dsn, kafka, directory, live=1, nice=1, cpu_s=1, cpu_ms_record=0, memory_mb=300
            )


@pytest.mark.parametrize(("what", "reason"), [("loop", "CPU time"), ("leak", "memory")])
@pytest.mark.timeout(240)
def test_live_answers_go_on_while_a_candidate_goes_wrong(
    world: World, wait_until: Callable[..., None], what: str, reason: str
) -> None:
    world.start("bad", model="other")
    expected = {record.id: record.scores for record in world.records(range(100))}
    with Host(world.settings, world.file):
        wait_until(lambda: len(addresses(world)) == 1, "a preprocessor that is ready", 60)
        command = [sys.executable, "-c", NODE, str(world.file)]
        environment = {**os.environ, "HOSTILE": what}
        with subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2]) as node:
            try:
                world.send(world.records(range(60)) * 8)
                answered = 0
                with Client(addresses(world), deadline=30.0) as client:
                    while world.states()["bad"][0] == "running" or answered < 100:
                        for answer in client.score_many(transaction(n) for n in range(20)):
                            assert not isinstance(answer, Exception), answer
                            assert answer.scores == expected[answer.id]
                            answered += 1
                        time.sleep(0.1)  # live scoring that is busy all the time leaves a candidate nothing
                assert reason in world.states()["bad"][1]
                assert world.counted()["bad"] == (0, 0)
            finally:
                node.terminate()
            assert node.wait(30) == 0


def addresses(world: World) -> list[str]:
    with world.connect() as connection:
        nodes = members(connection, world.settings.environment)
    ready = [one for one in nodes if one.state == "ready"]
    return [e for one in ready if one.role == "preprocessor" and len(ready) >= 2 for e in one.endpoints]
