"""Shadow nodes on a real broker and a real database: each result once, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pyarrow.parquet as pq
import pytest

from actors.config import KafkaSettings
from governance import shadows
from shadow.kafka import consumer, topic
from shadow.node import ShadowNode
from shadow.process import PROGRAM
from tests.shadow import hostile
from tests.shadow.world import World, build


@pytest.fixture
def world(dsn: str, kafka: KafkaSettings, tmp_path: Path) -> World:
    more: dict[str, Any] = {"results_topic": True, "parquet": str(tmp_path / "files")}
    return build(dsn, kafka, tmp_path, cpu_s=1, cpu_ms_record=1, hang_s=1, **more)


@contextlib.contextmanager
def running(world: World, index: int = 0, program: Sequence[str] = PROGRAM) -> Iterator[ShadowNode]:
    """Run a node in a thread; it must end well."""
    node = ShadowNode(world.settings, index, program)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(node.run()))
    thread.start()
    try:
        yield node
    finally:
        node.stop()
        thread.join(60)
    assert codes == [0]


def messages(world: World, what: str, count: int) -> list[Any]:
    """Return the messages of a topic; wait until there are so many."""
    receiver = consumer(world.kafka, "undertaker")
    receiver.subscribe([topic(world.kafka, "test", what)])
    found: list[Any] = []
    for _ in range(100):
        for message in receiver.consume(500, 0.2):
            assert message.error() is None, message.error()
            found.append(message)
        if len(found) >= count:
            break
    receiver.close()
    return found


def values(world: World, what: str, count: int) -> list[bytes]:
    return [message.value() for message in messages(world, what, count)]


def letters(world: World, count: int) -> list[dict[str, str]]:
    """Return the headers of the dead letters."""
    found = messages(world, "dead", count)
    return [{name: value.decode() for name, value in message.headers()} for message in found]


def test_several_shadows_evaluate_one_stream_and_each_result_is_there_once(
    world: World, wait_until: Callable[..., None], tmp_path: Path
) -> None:
    world.start("one", model="other")
    world.start("two", features="log", decision="lenient")
    world.start("part", decision="lenient", sample=0.25)
    old = msgpack.unpackb(world.records([500])[0].pack())
    for name in ("nodes", "us", "canary"):  # as a version wrote it that did not have them
        del old[name]
    stream = world.records(range(500))
    with running(world):
        world.send([*stream, *reversed(stream[:100]), msgpack.packb({**old, "added_later": 1})])
        wait_until(lambda: world.counted()["one"] == (501, 501), "501 results")
        wait_until(lambda: world.counted()["two"] == (501, 501), "501 results")
    expected = {f"tx-{number}" for number in range(501)}
    in_topic = {
        (one["shadow"], one["transaction_id"]) for one in map(json.loads, values(world, "shadow", 1002))
    }
    assert {id_ for shadow, id_ in in_topic if shadow == 1} == expected
    files = [pq.read_table(file).to_pylist() for file in (tmp_path / "files").glob("*.parquet")]
    assert {row["transaction_id"] for rows in files for row in rows if row["shadow"] == 2} == expected
    share, summed = world.counted()["part"]
    assert share == summed
    assert 70 < share < 180
    with world.connect() as connection:
        row = connection.execute(
            "SELECT count(*) AS n, max(position) AS far FROM shadow_progress WHERE environment = 'test'"
        ).fetchone()
        assert row is not None
        assert row["n"] > 0
        assert connection.execute("SELECT * FROM shadow_node").fetchall() == []  # it took its leave


def test_records_that_cannot_be_used_are_laid_aside_with_the_reason(
    world: World, wait_until: Callable[..., None]
) -> None:
    world.start("one", features="log")
    good = world.records(range(20))
    world.send(
        [
            *good[:10],
            b"junk",
            replace(good[10], environment="elsewhere"),
            replace(good[11], id="x" * 2000),
            replace(good[12], transaction={"id": "tx-12"}),
            *good[13:],
        ]
    )
    with running(world):
        wait_until(lambda: world.counted()["one"] == (17, 17), "17 results")
    found = letters(world, 4)
    assert len(found) == 4
    reasons = sorted((letter["shadow"], letter["reason"][:30]) for letter in found)
    assert [shadow for shadow, _ in reasons] == ["", "", "", "one"]
    assert any("not msgpack" in letter["reason"] or "map" in letter["reason"] for letter in found)
    assert "amount" in reasons[3][1]


def test_a_candidate_that_dies_of_a_record_costs_that_record_alone(
    world: World, wait_until: Callable[..., None]
) -> None:
    world.start("one", model="other")
    stream = world.records(range(40))
    deadly = replace(stream[20], transaction={**stream[20].transaction, "do": "die"})
    world.send([*stream[:20], deadly, *stream[21:]])
    with running(world, program=hostile.PROGRAM):
        wait_until(lambda: world.counted()["one"] == (39, 39), "39 results")
    (letter,) = letters(world, 1)
    assert (letter["shadow"], "SIGKILL" in letter["reason"]) == ("one", True)


def test_a_shadow_that_always_dies_is_suspended_and_the_others_go_on(
    world: World, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE", "exit")
    world.start("bad", model="other")
    with running(world, program=hostile.PROGRAM):
        world.send(world.records(range(30)))
        wait_until(lambda: world.states()["bad"][0] == "suspended", "its suspension")
        assert "exit code 3" in world.states()["bad"][1]
        monkeypatch.delenv("HOSTILE")  # whoever answers for it has mended it
        with world.connect() as connection:
            shadows.resume(connection, "test", "bad", by="ann")
        world.start("good", decision="lenient")
        wait_until(lambda: len(world.states()) == 2, "both")
        world.send(world.records(range(30, 60)))
        wait_until(lambda: world.counted()["bad"][0] == 30, "30 results after it was mended")
        wait_until(lambda: world.counted()["good"][0] == 30, "30 results of the other")
