"""Two environments on one database, each with nodes of its own; one of them with two named scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from governance.database import migrate
from governance.embedded import EmbeddedPostgres
from models.forest import Forest
from models.importers import import_model
from tests.acceptance.conftest import System, start_system
from transport.client import Client
from transport.client.answer import Decision

SPEC = """
name = "{name}"
version = 1
id = "id"
[fields.{name}]
type = "number"
[[features]]
name = "{name}"
kind = "numeric"
field = "{name}"
"""
RULES = """
name = "both"
version = 1
[[rules]]
when = "scores['ato.True'] > 0.5 && score > 0.5 && tx.logins > 2.0"
decide = "decline"
reason = "both_high"
"""


@pytest.fixture(scope="module")
def environments(directory: Path) -> Iterator[tuple[System, System]]:
    """Production and qa, with a preprocessor and a scorer each, on one database."""
    with EmbeddedPostgres(directory / "postgres") as postgres:
        migrate(postgres.dsn)
        systems = [
            start_system(directory / name, postgres, preprocessors=1, scorers=1, environment=name)
            for name in ("production", "qa")
        ]
        try:
            for system in systems:
                system.wait_for_nodes()
            yield systems[0], systems[1]
        finally:
            for system in systems:
                system.host.stop()


@pytest.fixture(scope="module")
def forests(environments: tuple[System, System], directory: Path) -> dict[str, Forest]:
    """Two models of different features, registered with their specs and with rules over both."""
    found = {}
    qa = environments[1]
    x = np.arange(40, dtype=np.float32).reshape(-1, 1)
    for seed, name in enumerate(("amount", "logins")):
        model = RandomForestClassifier(3, random_state=seed).fit(x, x[:, 0] > 20 - 5 * seed)
        bundle = import_model(model, directory / f"{name}.bundle", feature_names=[name])
        found[name] = Forest(bundle)
        (directory / f"{name}.toml").write_text(SPEC.format(name=name))
        qa.register(directory / f"{name}.bundle", "bundle", f"{name}-model")
        qa.register(directory / f"{name}.toml", "feature_spec", f"{name}-spec")
    (directory / "rules.toml").write_text(RULES)
    qa.register(directory / "rules.toml", "decision_rules", "both")
    return found


def outputs(forest: Forest, value: float) -> list[float]:
    (found,) = forest.predict(np.array([[value]], np.float32)).tolist()
    return list(found)


def test_environments_share_a_database_and_nothing_else(
    environments: tuple[System, System], forests: dict[str, Forest]
) -> None:
    production, qa = environments
    plain = {"features": "amount-spec", "model": "amount-model"}
    named = {
        **plain,
        "features:ato": "logins-spec",
        "model:ato": "logins-model",
        "decision": "both",
    }
    assert qa.promote(**named).state == "active"
    # Nodes of production were asked nothing, and serve nothing yet.
    assert [node.release for node in production.members()] == [None, None]
    assert production.promote(**plain).state == "active"
    assert {node.environment for node in qa.members()} == {"qa"}

    with Client(production.addresses(), deadline=20.0) as client:
        answer = client.score({"id": "1", "amount": 30.0})
    assert (answer.trace.environment, answer.decision) == ("production", None)
    assert list(answer.scores.values()) == outputs(forests["amount"], 30.0)

    with Client(qa.addresses(), deadline=20.0) as client:
        for amount, logins, outcome in (
            (30.0, 30.0, "decline"),
            (30.0, 1.0, "approve"),
            (1.0, 30.0, "approve"),
        ):
            answer = client.score({"id": "1", "amount": amount, "logins": logins})
            assert answer.trace.environment == "qa"
            assert list(answer.scores) == ["ato.False", "ato.True", "False", "True"]
            expected = outputs(forests["logins"], logins) + outputs(forests["amount"], amount)
            assert list(answer.scores.values()) == expected
            assert set(answer.trace.pipeline) == set(named)
            reasons = ("both_high",) if outcome == "decline" else ()
            assert answer.decision == Decision(outcome, reasons)
