"""A node that has lost the database follows its scorers, or serves nothing; it leads nobody back."""

from __future__ import annotations

import time
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from actors.following import follow
from actors.state import Canary, Holdings, Loaded, NodeState
from tests.actors.test_serving import Small, context, loaded, small, wait_until
from transport.client import UnavailableError

AWAY_S = 60.0

# pytest finds these fixtures by their names.
__all__ = ["context", "loaded", "small"]


def release(number: int) -> Loaded:
    return Loaded({}, release=number, environment="test", pipeline={})


@pytest.fixture
def state() -> NodeState:
    """A preprocessor that holds the releases 1 and 2, and has lost the database a minute ago."""
    both = MappingProxyType({number: release(number) for number in (1, 2)})
    holdings = Holdings(both, 2, Canary(1, 50.0, ""), activation=5)
    looked_at = time.monotonic() - AWAY_S
    return NodeState("p", "test", "preprocessor", holdings, looked_at=looked_at, stale_after_s=5.0)


def test_what_scorers_act_on_is_followed_where_it_is_held(state: NodeState) -> None:
    follow(state, (6, 1))
    held = state.holdings
    assert (held.current, held.activation, held.canary) == (1, 6, None)
    assert set(held.releases) == {1, 2}
    assert state.is_ready()


def test_where_it_is_not_held_the_node_serves_nothing(state: NodeState) -> None:
    follow(state, (6, 3))
    assert (state.holdings.current, state.holdings.activation) == (None, 6)
    assert not state.is_ready()
    # Until it hears of one that it holds
    follow(state, (7, 2))
    assert state.holdings.current == 2


@pytest.mark.parametrize("heard", [(0, 0), (4, 1), (5, 1)])
def test_who_knows_no_more_is_not_followed(state: NodeState, heard: tuple[int, int]) -> None:
    before = state.holdings
    follow(state, heard)
    assert state.holdings is before


def test_while_the_database_is_there_nobody_else_is_followed(state: NodeState) -> None:
    state.looked_at = time.monotonic()
    before = state.holdings
    follow(state, (6, 1))
    assert state.holdings is before


def test_the_operator_says_for_how_long_a_node_that_hears_nothing_serves(state: NodeState) -> None:
    follow(state, (0, 0))
    assert state.is_ready()
    state.refuse_after_s = AWAY_S / 2
    follow(state, (0, 0))
    assert not state.is_ready()
    assert (state.holdings.activation, set(state.holdings.releases)) == (5, {1, 2})


def cut_off(running: Small, *, scorers_at: int) -> None:
    """Leave a node that holds 1 and 2 at 1, without a database, while its scorer acts on another."""
    (first,) = running.state.holdings.releases.values()
    scorer = running.scorers[0]
    more = {number: replace(first, release=number) for number in (1, 2, 3)}
    scorer.holdings = Holdings(MappingProxyType(more), scorers_at, activation=2)
    two = MappingProxyType({number: more[number] for number in (1, 2)})
    running.state.holdings = Holdings(two, 1, activation=1)
    running.state.stale_after_s = 5.0
    running.state.looked_at = time.monotonic() - AWAY_S


def test_a_preprocessor_acts_on_what_its_scorers_tell_it(small: Any) -> None:
    running = small()
    cut_off(running, scorers_at=2)
    wait_until(lambda: running.state.holdings.current == 2)
    trace = running.client.score({"id": 7, "a": 0.5}).trace
    assert trace.release == 2
    assert trace.stale_s is not None
    assert trace.stale_s >= AWAY_S


def test_a_preprocessor_refuses_what_its_scorers_have_and_it_has_not(small: Any) -> None:
    running = small()
    cut_off(running, scorers_at=3)
    wait_until(lambda: not running.state.is_ready())
    # It says so with its beats, so that nobody asks it
    wait_until(lambda: "not_ready" in running.client.inspect()["members"].values())
    with pytest.raises(UnavailableError):
        running.client.score({"id": 7, "a": 0.5}, deadline=0.5)
