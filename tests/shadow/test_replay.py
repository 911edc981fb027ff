"""Replays: the past from Kafka, the database and files, cut into parts, each result once."""

from __future__ import annotations

import itertools
import json
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from actors.config import KafkaSettings
from governance import replays, shadows, transactions
from governance.errors import ShadowRefusedError
from governance.transactions import Transaction
from run import app
from shadow.record import LiveRecord
from shadow.replay_sources import PART_RECORDS, database_places, kafka_places, parquet_places, record_of
from shadow.replaying import ReplayWorker
from tests.shadow.world import World, build

NOW = float(int(time.time()))


@pytest.fixture
def world(dsn: str, kafka: KafkaSettings, tmp_path: Path) -> World:
    return build(dsn, kafka, tmp_path)


def replay(world: World, source: str, *words: str, code: int = 0) -> dict[str, Any]:
    """Replay the last hour for the shadow `one`."""
    since = datetime.fromtimestamp(NOW - 3600, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    command = ["shadow", "replay", "one", "--from", since, "--source", source, "--processes", "1", "--json"]
    done = CliRunner().invoke(app, [*command, *words, "--config", str(world.file)])
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def past(world: World, count: int) -> list[LiveRecord]:
    """Return records of the last hours, a minute between them; 60 of them lie in the last hour."""
    records = world.records(range(count))
    return [replace(record, at=NOW - 60 * number - 30) for number, record in enumerate(records)]


def kept(record: LiveRecord) -> Transaction:
    assert record.decision is not None
    return Transaction(
        environment=record.environment,
        id=record.id,
        at=datetime.fromtimestamp(record.at, UTC),
        node=record.node,
        seq=record.seq,
        release=record.release,
        outcome=record.decision["outcome"],
        reasons=tuple(record.decision["reasons"]),
        scores=record.scores,
        features=record.features,
        fields=record.transaction,
        us=record.us,
    )


def test_the_last_hour_is_replayed_from_each_source_and_counted_once(world: World, tmp_path: Path) -> None:
    shadow = world.start("one", model="other")
    with world.connect() as connection:
        shadows.stop(connection, "test", "one", by="ann")  # it need not run
    records = past(world, 100)
    world.send([*records, *records[:10]])
    found = replay(world, "kafka")
    assert (found["read"], found["fresh"], found["failed"]) == (70, 60, 0)
    assert world.counted()["one"] == (60, 60)

    with world.connect() as connection:
        answers = [kept(record) for record in records]
        transactions.make_days(connection, "test", *transactions.days_of(answers))
        transactions.store(connection, answers)
    written = CliRunner().invoke(
        app,
        [
            "shadow",
            "archive",
            str(tmp_path / "past"),
            "--from",
            "2026-01-01",
            "--json",
            "--config",
            str(world.file),
        ],
    )
    assert json.loads(written.stdout)["records"] == 110, written.output
    since, until = datetime.fromtimestamp(NOW - 3600, UTC), datetime.fromtimestamp(NOW, UTC)
    both: tuple[tuple[replays.Source, list[dict[str, Any]]], ...] = (
        ("database", database_places(since, until)),
        ("parquet", parquet_places(tmp_path / "past")),
    )
    for source, places in both:
        with world.connect() as connection:
            number = replays.ask(connection, shadow, source, since, until, places, by="ann")
            ReplayWorker(world.settings, "worker", threading.Event(), replay=number).run(until_done=True)
            again = replays.progress(connection, number)
        # The archive has what the topic has: ten of the records twice.
        assert (again.read, again.fresh, again.failed) == (60 if source == "database" else 70, 0, 0)
    assert world.counted()["one"] == (60, 60)
    with world.connect() as connection:
        ids = connection.execute("SELECT transaction_id AS id FROM shadow_result").fetchall()
    assert {row["id"] for row in ids} == {record.id for record in records[:60]}


def test_what_the_database_keeps_is_the_record_that_it_came_from(world: World) -> None:
    (record,) = past(world, 1)
    assert record_of(kept(record), record.pipeline) == replace(record, nodes={})


def test_parts_are_taken_one_by_one_and_those_of_the_dead_again(world: World) -> None:
    shadow = world.start("one")
    since, until = datetime(2026, 5, 4, tzinfo=UTC), datetime(2026, 5, 5, 12, tzinfo=UTC)
    with world.connect() as connection:
        number = replays.ask(
            connection, shadow, "database", since, until, database_places(since, until), by="ann"
        )
        taken = [replays.claim(connection, "test", f"node-{n}") for n in range(13)]
        assert [part.number for part in taken if part] == list(range(12))
        first = taken[0]
        assert first is not None
        assert replays.beat(connection, first, "node-0", 5, 5)
        connection.execute("UPDATE shadow_replay_part SET beat_at = beat_at - interval '1 minute'")
        again = replays.claim(connection, "test", "other")
        assert again is not None
        assert (again.replay, again.number) == (number, 0)
        assert not replays.beat(connection, first, "node-0", 6, 6)  # it is another's by now
        replays.finish(connection, again, "other")
        assert replays.progress(connection, number).done == 1
        replays.finish(connection, first, "node-0", "no such file")
        found = replays.progress(connection, number)
        assert (found.over, found.failed, found.reason) == (True, 11, "no such file")
        shadows.retire(connection, "test", "one", by="ann", reason="enough")
        with pytest.raises(ShadowRefusedError, match="retired"):
            replays.ask(
                connection, shadows.find_shadow(connection, "test", "one"), "kafka", since, until, [], by="a"
            )


def test_time_is_cut_along_days_and_nothing_is_left_out() -> None:
    since, until = datetime(2026, 5, 4, 5, 30, tzinfo=UTC), datetime(2026, 5, 24, 1, tzinfo=UTC)
    places = database_places(since, until)
    assert (places[0]["since"], places[-1]["until"]) == (since.isoformat(), until.isoformat())
    assert all(a["until"] == b["since"] for a, b in itertools.pairwise(places))
    assert len(places) == 21
    assert len(database_places(until - timedelta(hours=1), until)) == 1
    assert PART_RECORDS > 1000


def test_a_replay_of_what_fails_says_so(world: World, tmp_path: Path) -> None:
    world.start("one", model="other")
    (record,) = past(world, 1)
    table = pa.table({"record": [replace(record, features={}).pack()] * 1200})
    pq.write_table(table, tmp_path / "bad.parquet")
    found = replay(world, str(tmp_path), code=1)
    assert "it refuses every transaction" in found["reason"]


def test_a_worker_stops_in_the_middle_and_another_goes_on(world: World) -> None:
    shadow = world.start("one", model="other")
    records = [replace(record, at=NOW - 10) for record in world.records(range(300))]
    world.send(records)
    stop = threading.Event()
    stop.set()
    since, until = (datetime.fromtimestamp(NOW + shift, UTC) for shift in (-60, 60))
    with world.connect() as connection:
        places = kafka_places(world.kafka, "test", since, until)
        number = replays.ask(connection, shadow, "kafka", since, until, places, by="ann")
    ReplayWorker(world.settings, "stopped", stop).run()
    ReplayWorker(world.settings, "free", threading.Event()).run(until_done=True)
    with world.connect() as connection:
        found = replays.progress(connection, number)
    assert (found.over, found.failed, found.read, found.fresh) == (True, 0, 300, 300)
