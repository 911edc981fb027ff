"""A host that the database is cut off from, and its scorers are not: it serves no release that ended."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from examples.card_payments import PAYMENT_SPEC, simulate
from governance.changes import rollback
from governance.database import connect
from governance.rollouts import wait_settled
from models.importers import import_model
from models.spec import load_spec
from tests.acceptance.conftest import START_S, start_system, wait_until
from tests.governance.proxy import OutageProxy
from transport.client import Answer, Client, UnavailableError


@pytest.fixture(scope="module")
def served(system: Any, directory: Path) -> Any:
    """The system with a release for the third time, and all three registered."""
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=2_000, seed=3)
    x = spec.matrix(payments)
    system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
    for seed in (1, 2, 3):
        forest = RandomForestClassifier(3, random_state=seed).fit(x, labels)
        path = directory / f"forest-{seed}.bundle"
        import_model(forest, path, feature_names=list(spec.feature_names))
        system.register(path, "bundle", f"forest-{seed}")
    system.payment = payments[0]
    return system


@pytest.fixture(scope="module")
def proxy(system: Any) -> Iterator[OutageProxy]:
    with OutageProxy(system.settings.dsn) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def edge(system: Any, directory: Path, proxy: OutageProxy) -> Iterator[Any]:
    """A host with one preprocessor, which asks the scorers of the other."""
    running = start_system(directory / "edge", system.postgres, preprocessors=1, scorers=0, dsn=proxy.dsn)
    try:
        yield running
    finally:
        running.host.stop()


def health_of(address: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{address}/ready", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_host_that_the_database_is_cut_off_from_serves_no_release_that_ended(
    served: Any, edge: Any, proxy: OutageProxy
) -> None:
    names = served.digests
    pid = edge.host.pids()["preprocessor-0"]
    wait_until(lambda: pid in [member.pid for member in served.members()], "the host takes part")
    for number in (1, 2):
        stages = {"features": names["card-payments"], "model": names[f"forest-{number}"]}
        assert served.promote(**stages).state == "active"
    (there,) = (member for member in served.members() if member.pid == pid)
    with Client(there.endpoints, deadline=START_S) as client:

        def asked() -> Answer:
            return client.score(served.payment)

        assert asked().trace.release == 2
        proxy.deaf.set()
        try:
            # It holds what is led back to, and acts on that as soon as it says that it is cut off.
            with connect(served.settings.dsn) as connection:
                back = rollback(connection, "test", by="test", reason="a test")
                assert wait_settled(connection, back.id, timeout_s=START_S).state == "active"
            wait_until(lambda: asked().trace.release == 1, "it follows")
            assert asked().trace.stale_s is not None
            # The next one is prepared by those alone who reach the database: it refuses, and is not ready.
            assert served.promote(model=names["forest-3"]).state == "active"
            wait_until(lambda: health_of(there.health) != 200, "its health check fails")
            with pytest.raises(UnavailableError):
                client.score(served.payment, deadline=0.5)
            assert "this node serves nothing" in edge.log("preprocessor-0")
        finally:
            proxy.deaf.clear()
        wait_until(lambda: health_of(there.health) == 200, "it is back")
        assert asked().trace.release == 3
        wait_until(lambda: asked().trace.stale_s is None, "by its own look")


def test_a_host_that_may_not_serve_for_long_without_the_database_refuses_until_it_is_back(
    served: Any, proxy: OutageProxy, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREWIRE_REFUSE_AFTER_S", "8")
    names = served.digests
    # With a scorer of its own, which is cut off as it is: nobody in reach knows better.
    alone = start_system(directory / "alone", served.postgres, preprocessors=1, scorers=1, dsn=proxy.dsn)
    try:
        pids = set(alone.host.pids().values())
        wait_until(
            lambda: len(pids & {member.pid for member in served.members()}) == 2, "both nodes take part"
        )
        assert served.promote(features=names["card-payments"], model=names["forest-1"]).state == "active"
        pid = alone.host.pids()["preprocessor-0"]
        (there,) = (member for member in served.members() if member.pid == pid)
        with Client(there.endpoints, deadline=START_S) as client:
            assert client.score(served.payment).trace.stale_s is None
            proxy.deaf.set()
            try:
                wait_until(lambda: client.score(served.payment).trace.stale_s, "it serves on, and says so")
                wait_until(lambda: health_of(there.health) != 200, "its health check fails")
                with pytest.raises(UnavailableError):
                    client.score(served.payment, deadline=0.5)
                assert "the database is away for too long" in alone.log("preprocessor-0")
            finally:
                proxy.deaf.clear()
            wait_until(lambda: health_of(there.health) == 200, "it is back")
            assert client.score(served.payment).score is not None
    finally:
        alone.host.stop()
