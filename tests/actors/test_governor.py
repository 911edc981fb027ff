"""The governance actor: what it asks of its node, whatever happens to those that it asks."""

from __future__ import annotations

import queue
import time
from pathlib import Path
from typing import Any

import pykka
import pytest

from actors.governor import GovernorActor, Peers
from actors.loader import Load, LoadDone
from actors.state import Loaded, NodeState
from governance.artifacts import register
from governance.database import connect
from governance.promotion import promote
from tests.actors.test_loader import SPEC
from tests.actors.test_serving import wait_until


class Deaf(pykka.ThreadingActor):
    """A loader that dies with what it is asked, and reports nothing."""

    def __init__(self, asked: queue.Queue[tuple[str, int]]) -> None:
        super().__init__()
        self._asked = asked

    def on_receive(self, message: Any) -> None:
        assert isinstance(message, Load)
        self._asked.put((self.actor_urn, message.release.number))
        self.stop()


@pytest.fixture
def release(dsn: str, tmp_path: Path) -> int:
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier

    from models.importers import import_model

    x = np.arange(20, dtype=np.float32).reshape(-1, 1)
    model = RandomForestClassifier(2, random_state=0).fit(x, np.arange(20) % 2)
    import_model(model, tmp_path / "m.bundle", feature_names=["a"])
    (tmp_path / "spec.toml").write_text(SPEC)
    with connect(dsn) as connection:
        register(connection, tmp_path / "m.bundle", kind="bundle", name="m", by="ann")
        register(connection, tmp_path / "spec.toml", kind="feature_spec", name="f", by="ann")
        stages = {"model": "m", "features": "f"}
        return promote(connection, environment="qa", stages=stages, by="ann").release.number


def test_a_loader_that_died_with_a_release_is_followed_by_one_that_is_asked_again(
    dsn: str, release: int
) -> None:
    asked: queue.Queue[tuple[str, int]] = queue.Queue()
    alive = [Deaf.start(asked)]
    state = NodeState("scorer-0@here", "qa", "scorer")
    governor = GovernorActor.start(dsn, state, Peers(serving=list, loader=lambda: alive[-1]))
    try:
        first, number = asked.get(timeout=30)
        assert number == release
        # As its supervisor does: another one takes its place, which was asked nothing.
        alive.append(Deaf.start(asked))
        began = time.monotonic()
        second, number = asked.get(timeout=30)
        assert number == release
        assert second == alive[-1].actor_urn != first
        assert time.monotonic() - began < 30
    finally:
        governor.stop()
        pykka.ActorRegistry.stop_all()


def test_a_node_that_joins_late_serves_nothing_before_it_holds_the_current_release(
    dsn: str, release: int
) -> None:
    with connect(dsn) as connection:
        newest = promote(connection, environment="qa", stages={"model": "m"}, by="ann").release.number
    asked: queue.Queue[tuple[str, int]] = queue.Queue()

    class Slow(Deaf):
        """A loader that takes what it is asked, and says nothing yet."""

        def on_receive(self, message: Any) -> None:
            asked.put((self.actor_urn, message.release.number))

    loader = Slow.start(asked)
    state = NodeState("scorer-0@here", "qa", "scorer")
    governor = GovernorActor.start(dsn, state, Peers(serving=list, loader=lambda: loader))
    try:
        assert asked.get(timeout=30)[1] == newest
        governor.tell(LoadDone(loaded(release)))
        wait_until(lambda: release in state.holdings.releases)
        assert not state.is_ready()
        assert state.holdings.find(None) is None
        governor.tell(LoadDone(loaded(newest)))
        wait_until(state.is_ready)
        assert state.holdings.current == newest
        # The one before it is held as well: it may be led back without a load.
        assert set(state.holdings.releases) == {release, newest}
    finally:
        governor.stop()
        pykka.ActorRegistry.stop_all()


def loaded(number: int) -> Loaded:
    return Loaded({}, release=number, environment="qa", pipeline={})


def test_a_database_that_hangs_is_given_up_and_found_again(
    dsn: str, release: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from actors import watch
    from tests.governance.proxy import OutageProxy

    monkeypatch.setattr(watch, "HUNG_S", 1.0)
    asked: queue.Queue[tuple[str, int]] = queue.Queue()
    loader = Deaf.start(asked)
    state = NodeState("scorer-0@here", "qa", "scorer", stale_after_s=0.5)
    with OutageProxy(dsn) as proxy:
        governor = GovernorActor.start(proxy.dsn, state, Peers(serving=list, loader=lambda: loader))
        try:
            assert asked.get(timeout=30)[1] == release
            # Links stay open, and nobody answers: no keepalive ends that.
            proxy.deaf.set()
            wait_until(lambda: state.stale_s(time.monotonic()))
            wait_until(lambda: proxy.counted > 1)
            proxy.deaf.clear()
            wait_until(lambda: state.stale_s(time.monotonic()) is None)
        finally:
            governor.stop()
            pykka.ActorRegistry.stop_all()
