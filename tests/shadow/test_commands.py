"""`run.py shadow ...`: from start to promote, and what is refused on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from actors.config import KafkaSettings
from governance.policy import read_policy, set_policy
from governance.shadows import Shadow
from run import app
from shadow.result import ResultRow
from shadow.store import Summarise, store_results
from shadow.summary import fold, merge
from tests.shadow.rows import NOON, result
from tests.shadow.world import World, build

Run = Callable[..., Any]


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> World:
    return build(dsn, KafkaSettings(bootstrap_servers="127.0.0.1:9"), tmp_path)


@pytest.fixture
def run(world: World) -> Run:
    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, ["shadow", *words, "--config", str(world.file)])
        assert done.exit_code == code, done.output
        return json.loads(done.output) if "--json" in words else done.output

    return run


def fill(world: World, shadow: int, count: int) -> None:
    def one(number: int) -> ResultRow:
        at = NOON + timedelta(seconds=number)
        return result(
            number, shadow=shadow, at=at, champion_score=number / count, shadow_score=number / count
        )

    with world.connect() as connection:
        store_results(connection, [one(number) for number in range(count)], Summarise(fold, merge))


def behind(world: World, seconds: float) -> None:
    """Let a node be so far behind the live stream."""
    with world.connect() as connection:
        connection.execute(
            "INSERT INTO shadow_progress (environment, partition, node_id, position, high, behind_s)"
            " VALUES ('test', 0, 'n', 1, 2, %(s)s) ON CONFLICT (environment, partition) DO UPDATE SET"
            " behind_s = %(s)s, at = clock_timestamp()",
            {"s": seconds},
        )


def test_a_shadow_from_start_to_promote(world: World, run: Run) -> None:
    assert "runs: model" in run("start", "one", "--model", "other", "--comment", "try", "--by", "ann")
    assert "has a shadow" in run("start", "one", "--model", "other", code=2)
    listed = run("list", "--json")
    assert [(one["name"], one["state"], one["results"]) for one in listed["shadows"]] == [
        ("one", "running", 0)
    ]
    run("stop", "one")
    assert run("start", "one", "--json")["state"] == "running"
    assert "0 observations, 1000 are asked" in run("promote", "one", code=2)
    fill(world, listed["shadows"][0]["id"], 1200)
    assert "1200" in run("list")
    behind(world, 100.0)
    assert "behind the live stream, 60 are borne" in " ".join(run("promote", "one", code=2).split())
    behind(world, 0.0)
    with world.connect() as connection:
        for asked in (5000, 1000):
            policy = read_policy({"shadow": {"min_observations": asked}})
            set_policy(connection, "test", policy, by="ann", reason="care")
            if asked > 1200:
                assert "1200" in run("promote", "one", code=2)
    done = run("promote", "one", "--by", "eve", "--json")
    assert (done["state"], done["release"]) == ("active", 2)
    (found,) = run("list", "--all", "--json")["shadows"]
    assert (found["state"], found["release"], found["state_by"]) == ("promoted", 2, "eve")
    with world.connect() as connection:
        reports = connection.execute("SELECT id, made_by, figures FROM shadow_report ORDER BY id").fetchall()
        released = connection.execute("SELECT evidence FROM release WHERE number = 2").fetchone()
    assert released == {"evidence": reports[-1]["id"]}
    assert [report["made_by"] for report in reports][-1] == "eve"
    assert reports[-1]["figures"]["figures"]["observations"] == 1200
    assert "nothing of it is left" in run("promote", "one", code=2)


def test_what_no_node_could_run_is_refused_before_it_starts(world: World, run: Run) -> None:
    hidden = run("start", "spy", "--features", "prying", code=2)
    assert "hides secret" in " ".join(hidden.split())
    assert "no bundle" in run("start", "x", "--model", "nothing", code=2)
    assert "names --model" in run("start", "x", code=2)
    assert run("list", "--all", "--json")["shadows"] == []
    del world


def test_a_retired_shadow_leaves_its_name(world: World, run: Run) -> None:
    first: Shadow = world.start("one")
    run("retire", "one", "--reason", "no better")
    assert world.start("one").id != first.id
    assert "no shadow" in run("stop", "two", code=2)
