"""Canaries on live traffic that return, or grow to the end, by themselves: real nodes, killed in between."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from examples.card_payments import PAYMENT_SPEC, simulate
from governance.audit import verify
from governance.canary_steps import Canary, steps
from governance.canary_watch import standing
from governance.database import connect
from governance.policy import read_policy, set_policy
from governance.promotion import promote
from governance.releases import current_release
from governance.rollouts import wait_settled
from models.importers import import_model
from models.spec import load_spec
from tests.acceptance.conftest import System
from transport.client import Client

GATES = {"min_observations": 150, "max_error_rate": 0.02, "max_psi": 0.5}


@pytest.fixture(scope="module")
def served(system: System, directory: Path) -> System:
    """The system with a good model; also registered: another good one, a worse one, features that refuse."""
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=4_000, seed=3)
    x, shuffled = spec.matrix(payments), np.random.default_rng(0).permutation(labels)
    shuffled = np.where(np.random.default_rng(1).random(len(labels)) < 0.3, 1, shuffled)
    for name, seed, y in (("good", 1, labels), ("better", 2, labels), ("worse", 3, shuffled)):
        path = directory / f"{name}.bundle"
        forest = RandomForestClassifier(20, random_state=seed).fit(x, y)
        import_model(forest, path, feature_names=list(spec.feature_names))
        system.register(path, "bundle", name)
    system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
    strict = PAYMENT_SPEC.read_text().replace("min = 0\n", "min = 50\n", 1)
    (directory / "strict.toml").write_text(strict)
    system.register(directory / "strict.toml", "feature_spec", "strict")
    assert system.promote(features="card-payments", model="good").state == "active"
    with connect(system.settings.dsn) as connection:
        policy = read_policy({"canary": GATES})
        set_policy(connection, system.settings.environment, policy, by="olga", reason="x")
    return system


@contextmanager
def load(system: System) -> Iterator[None]:
    """Score payments from some threads until the block ends."""
    over = threading.Event()
    payments = simulate(n=4_000, seed=4)[0]

    def caller(client: Client, offset: int) -> None:
        stream = cycle(payments[offset:] + payments[:offset])
        for _ in client.score_many(iter(lambda: None if over.is_set() else next(stream), None), window=8):
            pass

    with Client(system.addresses(), deadline=30.0) as client:
        threads = [threading.Thread(target=caller, args=(client, 1000 * number)) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


def start(system: System, **stages: str) -> int:
    """Start a canary that grows from 20 to 60 percent and becomes current, a second a step at least."""
    environment = system.settings.environment
    plan = Canary(20.0, "customer_id", schedule=(20.0, 60.0), step_s=1.0)
    with connect(system.settings.dsn) as connection:
        rollout = promote(connection, environment=environment, stages=stages, by="ann", canary=plan)
        settled = wait_settled(connection, rollout.id)
    assert settled.state == "active", settled.reason
    return settled.release.number


def last_step(system: System, number: int) -> dict[str, Any] | None:
    """Return the step in which a canary ended; None while it has not."""
    with connect(system.settings.dsn) as connection:
        (found, *_) = steps(connection, system.settings.environment, 1)
    assert found["number"] == number
    return found if found["outcome"] in {"returned", "finished", "ended"} else None


@pytest.mark.parametrize(
    ("stages", "gate"), [({"model": "worse"}, "max_psi"), ({"features": "strict"}, "max_error_rate")]
)
def test_a_canary_that_is_worse_or_fails_returns_by_itself(
    served: System, wait_until: Any, stages: dict[str, str], gate: str
) -> None:
    with connect(served.settings.dsn) as connection:
        before = current_release(connection, served.settings.environment)
    with load(served):
        number = start(served, **stages)
        step = wait_until(lambda: last_step(served, number), "it returns")
    assert step["outcome"] == "returned"
    with connect(served.settings.dsn) as connection:
        row = connection.execute("SELECT entry FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        assert row is not None
        assert gate in row["entry"]
        assert current_release(connection, served.settings.environment) == before
        verify(connection)
    # Whatever it was given while it lasted, nobody gets it any more.
    with Client(served.addresses(), deadline=20.0) as client:
        payments = simulate(n=200, seed=5)[0]

        def given() -> set[int]:
            return {answer.trace.release for answer in map(client.score, payments)}

        wait_until(lambda: before is not None and given() == {before.number}, "no node gives it")


def test_a_good_canary_grows_to_the_end_while_nodes_are_killed(served: System, wait_until: Any) -> None:
    environment = served.settings.environment
    with load(served), connect(served.settings.dsn) as connection:
        number = start(served, model="better")

        def observed() -> bool:
            found = standing(connection, environment)
            return found is None or found.figures.canary.requests > 50

        wait_until(observed, "it is observed")
        os.kill(served.host.pids()["preprocessor-0"], signal.SIGKILL)
        wait_until(lambda: len(steps(connection, environment)) > 1, "it grows")
        os.kill(served.host.pids()["preprocessor-1"], signal.SIGKILL)
        step = wait_until(lambda: last_step(served, number), "it ends")
        assert step["outcome"] == "finished", step
        assert step["percent"] == 60

        def is_everybodys() -> bool:
            found = current_release(connection, environment)
            return found is not None and found.number == number

        wait_until(is_everybodys, "it is current")
        mine = [one for one in steps(connection, environment) if one["number"] == number]
        assert [one["outcome"] for one in reversed(mine)] == ["grew", "finished"]
        assert all(one["figures"]["canary"]["requests"] >= GATES["min_observations"] for one in mine)
        verify(connection)
