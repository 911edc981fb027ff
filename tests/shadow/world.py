"""An environment with a champion, candidates beside it, and the live records of its answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from actors.config import KafkaSettings, Settings, load_settings
from actors.evaluation import Evaluator
from actors.loading import PipelineLoader
from governance import shadows
from governance.artifacts import Kind, register
from governance.database import Connection, connect
from governance.promotion import promote
from governance.shadows import Shadow
from models.importers import import_model
from shadow.kafka import producer, topic
from shadow.record import LiveRecord

SPEC = """
name = "{name}"
version = 1
id = "id"
[fields.amount]
type = "number"
[fields.age]
type = "number"
missing = 0
[fields.secret]
type = "any"
store = "drop"
[[features]]
name = "amount"
kind = "{kind}"
field = "amount"
[[features]]
name = "age"
kind = "numeric"
field = "age"
"""
RULES = """
name = "rules"
version = 1
[[rules]]
when = "score >= {limit}"
decide = "decline"
reason = "high"
"""


@dataclass
class World:
    """What the tests of shadow nodes need: a database, a broker's topics, artifacts, records."""

    settings: Settings
    file: Path
    digests: dict[str, str] = field(default_factory=dict)
    _champion: Evaluator | None = None

    @property
    def kafka(self) -> KafkaSettings:
        assert self.settings.kafka is not None
        return self.settings.kafka

    @property
    def pipeline(self) -> dict[str, str]:
        return {stage: self.digests[stage] for stage in ("features", "model", "decision")}

    def connect(self) -> Connection:
        return connect(self.settings.dsn)

    def start(self, name: str = "one", *, sample: float = 1.0, **overrides: str) -> Shadow:
        """Start a shadow; overrides name what `build` has registered."""
        chosen = {stage: self.digests[what] for stage, what in (overrides or {"model": "other"}).items()}
        with self.connect() as connection:
            return shadows.start(connection, self.settings.environment, name, chosen, by="ann", sample=sample)

    def records(self, numbers: Sequence[int], **more: Any) -> list[LiveRecord]:
        """Return the live records of transactions, evaluated as the champion does."""
        if self._champion is None:
            with self.connect() as connection:
                loader = PipelineLoader(self.settings.cache, self.settings)
                self._champion = loader.load(connection, self.pipeline)
        champion, found = self._champion, []
        transactions = [transaction(number) for number in numbers]
        vectors = [champion.vectors(one) for one in transactions]
        for number, tx, vector, scores in zip(
            numbers, transactions, vectors, champion.score(champion.rows(vectors)), strict=True
        ):
            decision = champion.decide(scores, tx)
            assert decision is not None
            facts: dict[str, Any] = {
                "id": tx["id"],
                "node": "preprocessor-0@h/1",
                "seq": number + 1,
                "at": time.time(),
                "release": 1,
                "environment": self.settings.environment,
                "pipeline": self.pipeline,
                "transaction": tx,
                "features": vector,
                "scores": scores,
                "decision": {"outcome": decision.outcome, "reasons": list(decision.reasons)},
                "us": {"features": 30, "kernel": 20, "decision": 5, "total": 300},
            }
            found.append(LiveRecord(**{**facts, **more}))
        return found

    def send(self, records: Sequence[LiveRecord | bytes]) -> None:
        """Send records to the live topic as the tee does, and wait until the broker has them."""
        sender = producer(self.kafka)
        name = topic(self.kafka, self.settings.environment, "live")
        for record in records:
            body = record if isinstance(record, bytes) else record.pack()
            key = b"raw" if isinstance(record, bytes) else record.id.encode()
            while True:
                try:
                    sender.produce(name, key=key, value=body)
                    break
                except BufferError:
                    sender.poll(0.1)
            sender.poll(0)
        assert sender.flush(30) == 0

    def counted(self) -> dict[str, tuple[int, int]]:
        """Return each shadow's rows in the table and in the summary."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT name, (SELECT count(*) FROM shadow_result r WHERE r.shadow = s.id) AS rows,"
                " (SELECT coalesce(sum((document ->> 'n')::bigint), 0) FROM shadow_summary m"
                "  WHERE m.shadow = s.id) AS summed FROM shadow s ORDER BY id"
            ).fetchall()
        return {row["name"]: (row["rows"], int(row["summed"])) for row in rows}

    def states(self) -> dict[str, tuple[str, str]]:
        with self.connect() as connection:
            found = shadows.shadows(connection, self.settings.environment)
        return {shadow.name: (shadow.state, shadow.state_reason) for shadow in found}


def transaction(number: int) -> dict[str, Any]:
    return {"id": f"tx-{number}", "amount": float(number % 100), "age": number % 7, "channel": "online"}


def build(dsn: str, kafka: KafkaSettings, directory: Path, *, live: int = 0, **shadow: Any) -> World:
    """Make an environment `test` whose champion is promoted, and register candidates.

    Without live nodes records are made here; with some, these answer, and are found in the database.
    """
    file = directory / "scorewire.toml"
    facts = {"environment": "test", "dsn": dsn}
    facts |= {name: str(directory / name) for name in ("cache", "logs")}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in facts.items())
    text += "[kafka]\n" + "".join(_lines(kafka.model_dump(exclude={"options"})))
    text += "[kafka.options]\n" + "".join(_lines(kafka.options))
    text += "[shadow]\n" + "".join(_lines({"batch": 200, **shadow}))
    text += (
        f"[preprocessor]\nnodes = {live}\nport = 0\n[scorer]\nnodes = {live}\nactors = 1\n[sink]\nnodes = 0\n"
    )
    file.write_text(text)
    world = World(load_settings(file), file)
    with world.connect() as connection:
        for name, path, kind in _files(directory):
            world.digests[name] = register(connection, path, kind=kind, name=name, by="ann").digest
        promote(connection, environment="test", stages=world.pipeline, by="ann")
    return world


def _lines(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, value in facts.items():
        yield f"{json.dumps(name)} = {json.dumps(value)}\n"


def _files(directory: Path) -> Iterator[tuple[str, Path, Kind]]:
    x = np.random.default_rng(0).uniform(0, 100, (300, 2)).astype(np.float32)
    for name, seed in (("model", 0), ("other", 1)):
        forest = RandomForestClassifier(5, max_depth=4, random_state=seed)
        forest.fit(x, (x[:, 0] > 50 + 10 * seed).astype(int))
        path = directory / f"{name}.bundle"
        import_model(forest, path, feature_names=["amount", "age"])
        yield name, path, "bundle"
    texts = {
        "features": SPEC.format(name="first", kind="numeric"),
        "log": SPEC.format(name="log", kind="log1p"),
        "prying": SPEC.format(name="prying", kind="numeric")
        .replace('type = "any"\nstore = "drop"', 'type = "number"')
        .replace('field = "age"', 'field = "secret"'),
        "prying rules": RULES.format(limit="0.9 || tx.secret > 1.0"),
        "decision": RULES.format(limit=0.9),
        "lenient": RULES.format(limit=0.2),
    }
    for name, text in texts.items():
        path = directory / f"{name}.toml"
        path.write_text(text)
        yield name, path, "decision_rules" if "rules" in text else "feature_spec"
