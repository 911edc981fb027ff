"""Releases that were current before stay loaded for a return, as far as there is room, and hinder nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pykka
import pytest
from sklearn.ensemble import RandomForestClassifier

from actors.config import load_settings
from actors.governor import GovernorActor, Peers
from actors.loader import LoaderActor
from actors.state import NodeState
from governance.artifacts import register
from governance.changes import rollback
from governance.database import Connection, connect
from governance.promotion import promote
from governance.releases import current_release
from governance.rollouts import Rollout, wait_settled
from models.importers import import_model
from tests.actors.test_loader import SPEC
from tests.actors.test_serving import wait_until

#: Releases that the environment has had; each has a model of its own, and all have the same size.
RELEASES = 4
Node = Callable[[float | None], NodeState]


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


@pytest.fixture
def models(connection: Connection, tmp_path: Path) -> float:
    """Promote one model after the other; return the megabytes of the largest."""
    (tmp_path / "spec.toml").write_text(SPEC)
    register(connection, tmp_path / "spec.toml", kind="feature_spec", name="f", by="ann")
    x = np.arange(20, dtype=np.float32).reshape(-1, 1)
    sizes = []
    for number in range(RELEASES + 1):
        model = RandomForestClassifier(2, bootstrap=False, random_state=0).fit(x, np.arange(20) > number)
        file = tmp_path / f"m{number}.bundle"
        import_model(model, file, feature_names=["a"])
        register(connection, file, kind="bundle", name=f"m{number}", by="ann")
        sizes.append(file.stat().st_size)
    for number in range(RELEASES):
        promote(connection, environment="qa", stages={"model": f"m{number}", "features": "f"}, by="ann")
    return max(sizes) / 1e6


@pytest.fixture
def loader() -> Iterator[list[pykka.ActorRef[LoaderActor]]]:
    yield []
    pykka.ActorRegistry.stop_all()


@pytest.fixture
def node(dsn: str, models: float, tmp_path: Path, loader: list[pykka.ActorRef[LoaderActor]]) -> Node:
    """Start a node's governance and loader actors, with room for some models or without a limit."""
    del models

    def start(models_mb: float | None) -> NodeState:
        file = tmp_path / "scorewire.toml"
        limit = "" if models_mb is None else f"[scorer]\nmodels_mb = {models_mb}\n"
        file.write_text(f"dsn = {json.dumps(dsn)}\n{limit}")
        settings = load_settings(file)
        state = NodeState("scorer-0@here", "qa", "scorer")
        peers = Peers(serving=list, loader=lambda: loader[0])
        governor = GovernorActor.start(dsn, state, peers, keep=settings.keep_releases)
        cache = tmp_path / "cache"
        loader.append(LoaderActor.start(dsn, cache, role="scorer", settings=settings, report=governor.tell))
        return state

    return start


def lead_back(connection: Connection, to: int) -> Rollout:
    return wait_settled(connection, rollback(connection, "qa", by="ann", reason="x", to=to).id, timeout_s=30)


def _is_current(state: NodeState, number: int) -> bool:
    return state.holdings.current == number


def test_a_return_to_any_release_that_is_kept_needs_no_preparation(
    node: Node, connection: Connection, loader: list[pykka.ActorRef[LoaderActor]]
) -> None:
    state = node(None)
    wait_until(lambda: set(state.holdings.releases) == {1, 2, 3, 4})
    # Nobody is left who could prepare anything.
    loader[0].stop()
    for number in (1, 3, 2):
        assert lead_back(connection, number).state == "active"
        wait_until(partial(_is_current, state, number))


def test_what_is_kept_makes_room_for_what_is_promoted_the_oldest_first(
    node: Node, models: float, connection: Connection
) -> None:
    state = node(models * 3.5)
    wait_until(lambda: set(state.holdings.releases) == {4, 3, 2})
    opened = promote(connection, environment="qa", stages={"model": "m4"}, by="ann")
    assert wait_settled(connection, opened.id, timeout_s=30).state == "active"
    wait_until(lambda: state.holdings.current == 5)
    assert set(state.holdings.releases) == {5, 4, 3}


def test_a_release_that_there_was_no_room_for_is_prepared_when_it_is_wanted(
    node: Node, models: float, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    state = node(models * 2.5)
    # Tried and found too much: that is no refusal of what is asked for later.
    wait_until(lambda: "release 1 is not prepared here" in caplog.text)
    assert set(state.holdings.releases) == {4, 3}
    assert lead_back(connection, 2).state == "active"
    wait_until(lambda: state.holdings.current == 2)
    found = current_release(connection, "qa")
    assert found is not None
    assert found.number == 2
    assert set(state.holdings.releases) == {2, 4}
