"""Shadows whose stage is code, from start to promotion and back: through Kafka, with real nodes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner

import run
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.policy import read_policy, set_policy
from governance.signing import new_key
from governance.transactions import find
from models.importers import import_model
from shadow.broker import EmbeddedBroker
from tests.acceptance.conftest import System, start_system, wait_until
from tests.models.code.wheels import build
from transport.client import Answer, Client

SPEC = """
name = "plain"
version = 1
id = "id"
[fields.amount]
type = "number"
[[features]]
name = "amount"
kind = "numeric"
field = "amount"
"""
RULES = """
name = "rules"
version = 1
[[rules]]
when = "score >= 0.9"
decide = "decline"
reason = "high"
"""
FEATURES = """
def features(transaction):
    if transaction["amount"] == 13:
        raise ValueError("no thirteen")
    return [100 - transaction["amount"]]
"""
MODEL = """
def score(rows):
    return rows / 200
"""
DECIDE = """
def decide(transaction, scores):
    return ("review", ["odd"]) if transaction["amount"] % 2 else ("approve", [])
"""
FEATURES_SAYS = """
id = "id"
features = ["amount"]
[[golden]]
transaction = { amount = 30 }
vector = [70]
"""
MODEL_SAYS = """
features = ["amount"]
outputs = ["score"]
[[golden]]
vector = [50]
scores = [0.25]
"""
DECIDE_SAYS = """
reasons = ["odd"]
[[golden]]
transaction = { amount = 3 }
scores = { score = 0.5 }
outcome = "review"
reasons = ["odd"]
"""
#: Stage to source, entry point, and what the package says of itself.
PACKAGES = {
    "features": (FEATURES, "features", FEATURES_SAYS),
    "model": (MODEL, "score", MODEL_SAYS),
    "decision": (DECIDE, "decide", DECIDE_SAYS),
}
SENT = 200


@dataclass
class World:
    """A system with shadow nodes, a champion, and code for each of its stages."""

    system: System
    client: Client
    model: RandomForestClassifier
    digests: dict[str, str]

    def told(self, *words: object, code: int = 0) -> Any:
        """Run a command, and return what it says."""
        config = ("--config", self.system.file, "--json")
        done = CliRunner().invoke(run.app, [str(word) for word in (*words, *config)])
        assert done.exit_code == code, done.output + done.stderr
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.output + done.stderr

    def signed(self, file: Path, name: str) -> str:
        self.digests[name] = self.told("register", file, "--name", name)["digest"]
        key = ("--key", self.system.directory / "release.pem", "--name", "release")
        self.told("sign", name, *key)
        return name

    def score(self, amount: float, number: int = 0) -> Answer:
        return self.client.score({"id": f"tx-{number}", "amount": amount})


@pytest.fixture(scope="module")
def world(directory: Path) -> Iterator[World]:
    public = new_key(directory / "release.pem")
    with (
        pytest.MonkeyPatch.context() as patch,
        EmbeddedPostgres(directory / "postgres") as postgres,
        EmbeddedBroker(directory / "broker") as broker,
    ):
        patch.setenv("SCOREWIRE_TRUSTED_KEYS", json.dumps({"release": public}))
        migrate(postgres.dsn)
        kafka = (
            f"[kafka]\nbootstrap_servers = '{broker.bootstrap_servers}'\npartitions = 2\nreplication = 1\n"
        )
        more = kafka + "[shadow]\nnodes = 1\n"
        system = start_system(directory, postgres, preprocessors=1, scorers=1, more=more)
        try:
            system.wait_for_nodes()
            with Client(system.addresses(), deadline=10.0) as client:
                yield champion(system, client)
        finally:
            system.host.stop()


def champion(system: System, client: Client) -> World:
    x = np.linspace(0, 100, 300, dtype=np.float32).reshape(-1, 1)
    model = RandomForestClassifier(5, max_depth=4, random_state=0).fit(x, x[:, 0] > 50)
    world = World(system, client, model, {})
    path = system.directory / "m.bundle"
    import_model(model, path, feature_names=["amount"])
    for name, text in (("plain", SPEC), ("rules", RULES)):
        file = system.directory / f"{name}.toml"
        file.write_text(text)
        world.signed(file, name)
    world.signed(path, "forest")
    stages = ("--features", "plain", "--model", "forest", "--decision", "rules")
    assert world.told("promote", *stages)["state"] == "active"
    for stage, (source, target, declared) in PACKAGES.items():
        more = {"group": f"scorewire.{stage}", "target": target, "name": f"code_{stage}"}
        world.signed(build(system.directory / "wheels", source, declared, **more), f"code-{stage}")
    return world


@pytest.mark.timeout(240)
def test_code_is_shadowed_judged_promoted_and_led_back(world: World) -> None:
    # Given a shadow of each stage, started before the transactions come
    for stage in PACKAGES:
        started = world.told("shadow", "start", stage, f"--{stage}", f"code-{stage}")
        assert started["overrides"] == {stage: world.digests[f"code-{stage}"]}
    with connect(world.system.settings.dsn) as connection:
        asked = {"min_observations": SENT - 2, "figures": {"failed": {"max": 5}}}
        set_policy(connection, "test", read_policy({"shadow": asked}), by="ann", reason="care")
    wait_until(lambda: world.told("shadow", "list")["nodes"], "a shadow node")
    refused = world.told("shadow", "promote", "features", code=2)
    assert "observations" in refused
    # When they come
    for number in range(SENT):
        answer = world.score(number % 100, number)
        assert answer.trace.pipeline["features"] == world.digests["plain"]

    # Then each has a result by each shadow, but for the two on which the code raises
    def results() -> dict[str, int]:
        return {one["name"]: one["results"] for one in world.told("shadow", "list")["shadows"]}

    expected = {"features": SENT - 2, "model": SENT, "decision": SENT}
    wait_until(lambda: results() == expected, "all results")
    expected_figures = {stage: (count, SENT - count) for stage, count in expected.items()}

    def reported() -> dict[str, tuple[int, int]]:
        figures = {stage: world.told("shadow", "report", stage)["figures"] for stage in PACKAGES}
        return {stage: (one["observations"], one["failed"]) for stage, one in figures.items()}

    wait_until(lambda: reported() == expected_figures, "what shadow nodes count, every few seconds")
    # And each is promoted by the gates of the policy, and what code says is answered live
    promoted: dict[str, Callable[[], None]] = {
        "decision": lambda: check_decision(world),
        "features": lambda: check_features(world),
        "model": lambda: check_model(world),
    }
    champion = world.score(30).trace.pipeline
    for stage, check in promoted.items():
        done = world.told("shadow", "promote", stage)
        assert done["state"] == "active"
        assert world.score(30).trace.pipeline == {**champion, stage: world.digests[f"code-{stage}"]}
        check()
        check_trace(world, stage)
        assert world.told("rollback", "--reason", "only tried")["state"] == "active"
        assert world.score(30).trace.pipeline == champion
    states = {one["name"]: one["state"] for one in world.told("shadow", "list", "--all")["shadows"]}
    assert set(states.values()) == {"promoted"}


def check_trace(world: World, stage: str) -> None:
    """What an answer was made of is found later, and the code computes it again to the bit."""
    id_ = f"by-code-{stage}"
    world.client.score({"id": id_, "amount": 30})
    with connect(world.system.settings.dsn) as connection:
        wait_until(lambda: find(connection, "test", id_), "the answer in the database")
    (told,) = world.told("trace", id_, "--rescore")["answers"]
    assert world.digests[f"code-{stage}"] in {one["digest"] for one in told["artifacts"]}
    assert told["rescored"]["same"] is True


def check_decision(world: World) -> None:
    decisions = [world.score(amount).decision for amount in (3, 4)]
    assert [(one.outcome, list(one.reasons)) for one in decisions if one] == [
        ("review", ["odd"]),
        ("approve", []),
    ]


def check_features(world: World) -> None:
    for amount in (20, 80):
        expected = world.model.predict_proba(np.array([[100 - amount]], np.float32))[0]
        assert list(world.score(amount).scores.values()) == expected.tolist()


def check_model(world: World) -> None:
    assert list(world.score(30).scores.values()) == [0.15000000596046448]
