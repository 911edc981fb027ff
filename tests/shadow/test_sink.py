from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from sklearn.ensemble import RandomForestClassifier

from actors.config import KafkaSettings, Settings, SinkSettings, load_settings
from examples.card_payments import PAYMENT_SPEC
from governance.artifacts import register
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.promotion import promote
from governance.streams import stream_nodes
from governance.transactions import find
from models.importers import import_model
from models.spec import load_spec
from shadow.kafka import consumer, ensure_topics, producer, topic
from shadow.record import LiveRecord
from shadow.sink import SinkNode

ROOT = Path(__file__).parents[2]
ONE = LiveRecord(
    id="t",
    node="p",
    seq=1,
    at=time.time(),
    release=1,
    environment="qa",
    pipeline={"features": "f", "model": "m"},
    transaction={"amount": 12.5, "note": "a\0b", "raw": b"\xff"},
    nodes={"scorer": "s"},
    features={"features": b"\0\0\x80\x3f"},
    scores={"p0": 0.25, "p1": 0.75},
    decision={"outcome": "review", "reasons": ["r"]},
    us={"total": 5},
)


def environment(dsn: str, directory: Path) -> None:
    """Promote a release in qa, so that the environment is there."""
    spec = load_spec(PAYMENT_SPEC)
    model = RandomForestClassifier(1, max_depth=1).fit(
        [[0.0] * spec.n_features, [1.0] * spec.n_features], [0, 1]
    )
    bundle = import_model(model, directory / "m.bundle", feature_names=list(spec.feature_names))
    with connect(dsn) as connection:
        stages = {
            "features": register(connection, PAYMENT_SPEC, kind="feature_spec", name="f", by="ann").digest,
            "model": register(connection, bundle.path, kind="bundle", name="m", by="ann").digest,
        }
        promote(connection, environment="qa", stages=stages, by="ann")


@pytest.fixture
def settings(dsn: str, kafka: KafkaSettings, tmp_path: Path) -> Settings:
    environment(dsn, tmp_path)
    return configured(dsn, kafka, tmp_path)


def configured(dsn: str, kafka: KafkaSettings, directory: Path) -> Settings:
    file = directory / "scorewire.toml"
    file.write_text(
        f"environment = 'qa'\ndsn = {json.dumps(dsn)}\n[kafka]\nreplication = 1\npartitions = 4\n"
        f"bootstrap_servers = '{kafka.bootstrap_servers}'\ntopic_prefix = '{kafka.topic_prefix}'\n"
        "options = {'session.timeout.ms' = '6000'}\n[sink]\nbatch = 200\n"
    )
    return load_settings(file)


@contextmanager
def sink(settings: Settings) -> Iterator[SinkNode]:
    node = SinkNode(settings, 0)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(node.run()))
    thread.start()
    try:
        yield node
    finally:
        node.stop()
        thread.join()
        assert codes == [0]


def send(settings: Settings, records: list[LiveRecord | bytes]) -> None:
    assert settings.kafka is not None
    names = [topic(settings.kafka, "qa", what) for what in ("live", "dead")]
    ensure_topics(settings.kafka, names)
    sender = producer(settings.kafka)
    for record in records:
        key, value = (b"?", record) if isinstance(record, bytes) else (record.id.encode(), record.pack())
        sender.produce(names[0], key=key, value=value)
        sender.poll(0)
    assert sender.flush(20) == 0


def many(count: int, start: int = 0) -> list[LiveRecord | bytes]:
    return [replace(ONE, id=f"t{n}", seq=n + 1) for n in range(start, start + count)]


def stored(settings: Settings) -> tuple[int, int]:
    """Return how many rows there are, and how many ids."""
    with connect(settings.dsn) as connection:
        row = connection.execute(
            "SELECT count(*) AS n, count(DISTINCT id) AS ids FROM transaction"
        ).fetchone()
    assert row is not None
    return row["n"], row["ids"]


def letters(settings: Settings, count: int) -> list[tuple[bytes, str]]:
    assert settings.kafka is not None
    reader = consumer(settings.kafka, "letters", fetch_wait_max_ms=10)
    name = topic(settings.kafka, "qa", "dead")
    reader.assign([TopicPartition(name, number, 0) for number in range(settings.kafka.partitions)])
    found: list[tuple[bytes, str]] = []
    give_up_at = time.monotonic() + 20
    while len(found) < count and time.monotonic() < give_up_at:
        for message in reader.consume(10, 0.2):
            reason = dict(message.headers())["reason"].decode()
            found.append((message.value(), reason))
    reader.close()
    return found


def test_each_record_is_a_row_once_and_poison_is_laid_aside_with_its_reason(
    settings: Settings, wait_until: Callable[..., None]
) -> None:
    late = replace(ONE, id="late", at=time.time() + 30 * 86_400)
    old = replace(ONE, id="old", at=time.time() - 500 * 86_400)
    zero = replace(ONE, id="zero", node="a\0b")
    other = replace(ONE, id="other", environment="production")
    poison: list[LiveRecord | bytes] = [b"junk", late, zero, other]
    send(settings, [*many(300), *poison, old, *many(300), *many(10, 300)])
    with sink(settings) as node:
        wait_until(lambda: node.counters()["committed"] == 300 + 4 + 1 + 300 + 10, "all are committed")
        counters = node.counters()
        wait_until(lambda: _told(settings).get("stored") == 310, "its word in the database")
    assert stored(settings) == (310, 310)
    assert (counters["stored"], counters["repeated"]) == (310, 300)
    assert (counters["dead"], counters["expired"]) == (4, 1)
    reasons = dict(letters(settings, 4))
    assert "not msgpack" in reasons[b"junk"] or "map" in reasons[b"junk"]
    told = sorted(reasons.values())
    assert sum("answered at" in one for one in told) == 1
    assert sum("cannot be stored" in one for one in told) == 1
    assert sum("production" in one for one in told) == 1
    with connect(settings.dsn) as connection:
        (found,) = find(connection, "qa", "t7")
    assert dict(found.fields) == ONE.transaction
    assert found.scores == ONE.scores
    assert found.features == ONE.features
    assert (found.outcome, found.reasons) == ("review", ("r",))
    assert abs(found.at.timestamp() - ONE.at) < 1e-6
    # It comes back where it was: nothing is read again.
    send(settings, many(5, 310))
    with sink(settings) as node:
        wait_until(lambda: node.counters()["committed"] == 5, "the new ones alone")
    assert stored(settings) == (315, 315)


def _told(settings: Settings) -> dict[str, Any]:
    with connect(settings.dsn) as connection:
        nodes = stream_nodes(connection, "qa")
    return dict(nodes[0].counters) if nodes else {}


def test_a_killed_sink_loses_nothing_and_doubles_nothing(
    settings: Settings, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    send(settings, many(2_000))
    command = [sys.executable, "run.py", "node", "sink", f"--config={tmp_path}/scorewire.toml"]
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        wait_until(lambda: stored(settings)[0] > 0, "the first rows")
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    send(settings, many(100, 2_000))
    with sink(settings):
        wait_until(lambda: stored(settings)[1] == 2_100, "all rows")
    assert stored(settings) == (2_100, 2_100)


def test_a_database_that_is_away_delays_and_loses_nothing(
    kafka: KafkaSettings, wait_until: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="scorewire-sink-") as name:
        directory = Path(name)
        with EmbeddedPostgres(directory / "pg") as postgres:
            migrate(postgres.dsn)
            environment(postgres.dsn, tmp_path_factory.mktemp("m"))
            settings = configured(postgres.dsn, kafka, directory)
            settings = settings.model_copy(update={"sink": SinkSettings(batch=50)})
            send(settings, many(500))
            with sink(settings) as node:
                wait_until(lambda: stored(settings)[0] > 0, "the first rows")
                postgres.kill()
                send(settings, many(500, 500))
                wait_until(lambda: node.counters()["database_away"] > 0, "the sink to notice")
                postgres.start()
                wait_until(lambda: stored(settings)[1] == 1_000, "all rows")
            assert stored(settings) == (1_000, 1_000)
