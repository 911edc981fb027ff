"""The whole system while things go wrong for real: killed, stopped and restarted processes, no database."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.ensemble import RandomForestClassifier

from examples.card_payments import PAYMENT_SPEC, simulate
from governance.canary import Canary, finish, set_percent
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import FRESH_S
from governance.promotion import promote
from governance.releases import current_release
from governance.rollouts import wait_settled
from models.importers import import_model
from models.spec import load_spec
from tests.acceptance.conftest import start_system
from transport.client import Answer, Client


@pytest.fixture(scope="module")
def payments() -> list[dict[str, Any]]:
    return simulate(n=4_000, seed=3)[0]


@pytest.fixture(scope="module")
def models(directory: Path) -> list[Path]:
    """Two forests, as bundles."""
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=4_000, seed=3)
    x = spec.matrix(payments)
    paths = []
    for seed in (1, 2):
        forest = RandomForestClassifier(20, random_state=seed).fit(x, labels)
        path = directory / f"forest-{seed}.bundle"
        import_model(forest, path, feature_names=list(spec.feature_names))
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def served(system: Any, models: list[Path]) -> Any:
    """The system with the first model promoted and the second registered."""
    system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
    for number, path in enumerate(models, 1):
        system.register(path, "bundle", f"forest-{number}")
    settled = system.promote(features=system.digests["card-payments"], model=system.digests["forest-1"])
    assert settled.state == "active", settled
    return system


@contextmanager
def live_stream(system: Any, payments: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """Score payments from four threads until the block ends; every result is kept."""
    results: list[Any] = []
    over = threading.Event()

    def caller(client: Client, offset: int) -> None:
        number = offset
        while not over.is_set():
            results.extend(client.score_many([payments[number % len(payments)]]))
            number += 4

    with Client(system.addresses(), deadline=30.0) as client:
        threads = [threading.Thread(target=caller, args=(client, offset)) for offset in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield results
        finally:
            over.set()
            for thread in threads:
                thread.join()
    failed = [result for result in results if not isinstance(result, Answer)]
    assert not failed, failed[:3]


def more(results: list[Any], wait_until: Any, count: int = 200) -> None:
    """Wait until so many more answers have come."""
    goal = len(results) + count
    wait_until(lambda: len(results) >= goal, f"{count} more answers")


def pid_of(system: Any, node: str) -> int:
    return int(system.host.pids()[node])


@pytest.mark.parametrize("node", ["scorer-0", "preprocessor-1"])
def test_a_node_killed_under_load_costs_no_request_and_comes_back(
    served: Any, payments: list[dict[str, Any]], wait_until: Any, node: str
) -> None:
    with live_stream(served, payments) as results:
        more(results, wait_until)
        old, addresses = pid_of(served, node), served.addresses()
        os.kill(old, signal.SIGKILL)
        more(results, wait_until)
        wait_until(
            lambda: any(
                m.node_id.startswith(f"{node}@") and m.pid != old and m.state == "ready"
                for m in served.members()
            ),
            f"{node} ready again",
        )
        # Callers find a preprocessor where they know it
        assert sorted(served.addresses()) == sorted(addresses)
        more(results, wait_until)


def test_a_stopped_scorer_costs_no_request_and_is_asked_again_when_it_goes_on(
    served: Any, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    with live_stream(served, payments) as results:
        more(results, wait_until)
        pid = pid_of(served, "scorer-1")
        os.kill(pid, signal.SIGSTOP)
        try:
            more(results, wait_until)
        finally:
            os.kill(pid, signal.SIGCONT)
        marked = len(results)
        wait_until(
            lambda: any(
                "scorer-1@" in r.trace.nodes["scorer"] for r in results[marked:] if isinstance(r, Answer)
            ),
            "scorer-1 answers again",
        )


def test_a_swap_under_load_fails_nothing_and_no_answer_mixes_two_releases(
    served: Any, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    pipelines: dict[int, str] = {}
    with live_stream(served, payments) as results:
        for model in ("forest-2", "forest-1"):
            more(results, wait_until)
            settled = served.promote(model=served.digests[model])
            assert settled.state == "active"
            pipelines[settled.release.number] = served.digests[model]
            more(results, wait_until)
    for answer in results:
        if answer.trace.release in pipelines:
            assert answer.trace.pipeline["model"] == pipelines[answer.trace.release]
    assert set(pipelines) <= {answer.trace.release for answer in results}


def test_a_canary_is_given_to_its_keys_grows_and_becomes_the_release_of_all(
    served: Any, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    environment = served.settings.environment

    def releases_seen() -> dict[str, int]:
        with Client(served.addresses(), deadline=10.0) as client:
            answers = list(client.score_many(payments[:400]))
        return {answer.id: answer.trace.release for answer in answers if isinstance(answer, Answer)}

    def given(release: int, least: int) -> dict[str, int] | None:
        seen = releases_seen()
        return seen if list(seen.values()).count(release) > least else None

    with connect(served.settings.dsn) as connection, live_stream(served, payments):
        before = current_release(connection, environment)
        assert before is not None
        rollout = promote(
            connection,
            environment=environment,
            stages={"model": served.digests["forest-2"]},
            by="test",
            canary=Canary(20.0),
        )
        settled = wait_settled(connection, rollout.id)
        assert settled.state == "active", settled.reason
        number = settled.release.number
        first = wait_until(lambda: given(number, 20), "the canary has its keys on all nodes")
        assert set(first.values()) == {before.number, number}
        set_percent(connection, environment, 60.0, by="test", reason="no alerts")
        more = wait_until(lambda: given(number, 200), "it has grown")
        assert all(more[key] == number for key, release in first.items() if release == number)
        finish(connection, environment, by="test", reason="all well", prepare_s=30)
        wait_until(lambda: set(releases_seen().values()) == {number}, "it is everybody's release")


def test_a_model_that_does_not_fit_its_features_is_refused_and_production_keeps_the_old_release(
    served: Any, payments: list[dict[str, Any]], directory: Path
) -> None:
    spec = load_spec(PAYMENT_SPEC)
    forest = RandomForestClassifier(3, random_state=1).fit(
        spec.matrix(payments)[:, :5], simulate(n=4_000, seed=3)[1]
    )
    path = directory / "narrow.bundle"
    import_model(forest, path, feature_names=list(spec.feature_names[:5]))
    settled = served.promote(model=served.register(path, "bundle", "narrow"))
    assert settled.state == "abandoned"
    assert "the model takes 5" in settled.reason
    with Client(served.addresses(), deadline=20.0) as client:
        answer = client.score(payments[0])
    assert answer.trace.release < settled.release.number
    # And the next promotion is not held up by it
    assert served.promote(model=served.digests["forest-1"]).state == "active"


def test_a_model_that_scores_otherwise_here_is_refused_by_its_golden_vectors_and_no_request_notices(
    served: Any, models: list[Path], directory: Path, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    # Given a bundle that is sound in structure, and whose first tree splits elsewhere
    data = bytearray(models[0].read_bytes())
    lines = 8 + int.from_bytes(data[:8], "little")
    threshold = np.frombuffer(data, np.float32, 8, lines)
    threshold += 1000.0
    path = directory / "bent.bundle"
    path.write_bytes(data)
    # When it is promoted, under load of which each answer is looked at
    with live_stream(served, payments) as results:
        more(results, wait_until, 50)
        settled = served.promote(model=served.register(path, "bundle", "bent"))
        more(results, wait_until, 50)
    assert all(answer.trace.release < settled.release.number for answer in results)
    # Then nodes refuse it, and say why
    assert settled.state == "abandoned"
    assert "golden vector" in settled.reason
    assert served.promote(model=served.digests["forest-1"]).state == "active"


def test_nodes_serve_on_while_postgres_is_away_and_take_up_changes_when_it_is_back(
    served: Any, payments: list[dict[str, Any]], wait_until: Any
) -> None:
    with live_stream(served, payments) as results:
        more(results, wait_until)
        served.postgres.kill()
        try:
            wait_until(
                lambda: all("waiting for the database" in served.log(node) for node in served.host.pids()),
                "every node says so",
            )
            more(results, wait_until)
            wait_until(lambda: results[-1].trace.stale_s is not None, "answers say how old their release is")
            wait_until(lambda: "by a look of" in served.log("preprocessor-0"), "and so does the log")
            wait_until(lambda: results[-1].trace.stale_s > FRESH_S + 1, "every node's last sign is old")
        finally:
            served.postgres.start()
        # At once: none of them is back yet, and each must be ready all the same.
        settled = served.promote(model=served.digests["forest-2"])
        assert settled.state == "active"
        assert len(settled.nodes) == len(served.host.pids())
        wait_until(lambda: results[-1].trace.stale_s is None, "answers are fresh again")
        more(results, wait_until)


def test_scorers_map_models_as_the_configuration_says(served: Any) -> None:
    assert f"model {served.digests['forest-1']} is mapped (huge)" in served.log("scorer-0")


def test_no_node_loads_a_training_library(served: Any) -> None:
    for node, pid in served.host.pids().items():
        mapped = {Path(m.path).name for m in psutil.Process(pid).memory_maps() if m.path}
        assert not [name for name in mapped if "lightgbm" in name or name.startswith("_tree.")], node


def test_only_scorers_load_the_kernel(served: Any, wait_until: Any) -> None:
    wait_until(lambda: {node.state for node in served.wait_for_nodes()} == {"ready"}, "all have a release")
    for node, pid in served.host.pids().items():
        compilers = [m.path for m in psutil.Process(pid).memory_maps() if "llvmlite" in (m.path or "")]
        assert bool(compilers) == node.startswith("scorer-"), node


def test_nodes_that_start_without_postgres_wait_say_so_and_serve_when_it_is_there(
    models: list[Path], payments: list[dict[str, Any]], wait_until: Any
) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="scorewire-test-") as name,
        EmbeddedPostgres(Path(name) / "postgres") as postgres,
    ):
        migrate(postgres.dsn)
        postgres.kill()
        system = start_system(Path(name), postgres, preprocessors=1, scorers=1)
        try:
            wait_until(
                lambda: all("waiting for the database" in system.log(node) for node in system.host.pids()),
                "both nodes say so",
            )
            assert set(system.host.restarts().values()) == {0}
            postgres.start()
            system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
            system.register(models[0], "bundle", "forest")
            system.wait_for_nodes()
            settled = system.promote(features="card-payments", model="forest")
            assert settled.state == "active"
            with Client(system.addresses(), deadline=30.0) as client:
                assert client.score(payments[0]).trace.release == settled.release.number
        finally:
            system.host.stop()
