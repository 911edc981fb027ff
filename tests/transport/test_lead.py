"""A caller is led back to no release that it has seen end, and is served by whoever is left all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.transport.conftest import Caller, ThreadNode
from transport.client import wire
from transport.client.lead import BEHIND_S, Lead
from transport.client.member import Request
from transport.client.wire import Kind

Threads = Callable[..., ThreadNode]


class Pair:
    """A caller, and two nodes that act on the same, until one is told of something newer."""

    def __init__(self, call: Callable[..., Caller], threads: Threads) -> None:
        self.first, self.second = threads(), threads()
        self.both = self.first, self.second
        for one in self.both:
            one.node.activation = 1
        self.caller = call(*(one.endpoint for one in self.both))
        self.caller.serve(lambda: self.caller.is_ready(*(one.endpoint for one in self.both)))

    def ask(self, **how: Any) -> int:
        """Return on what it was answered."""
        self.caller.ask(**{"newest": True, **how})
        ((_, outcome),) = self.caller.answers(1)
        assert isinstance(outcome, bytes), outcome
        return int(wire.unpack_body(outcome)["release"])

    def first_leads(self) -> None:
        self.first.node.activation = 2
        self.caller.serve(lambda: self.ask() == 2)

    def asked(self) -> tuple[int, int]:
        first, second = (sum(one.node.batches) for one in self.both)
        return first, second


@pytest.fixture
def pair(call: Callable[..., Caller], threads: Threads) -> Pair:
    return Pair(call, threads)


def test_who_has_heard_of_a_release_is_answered_by_none_who_has_not(pair: Pair) -> None:
    pair.first_leads()
    before = pair.asked()
    assert {pair.ask() for _ in range(100)} == {2}
    first, second = pair.asked()
    assert (first - before[0], second - before[1]) == (100, 0)
    # As soon as the other has learned of it, it is asked again
    pair.second.node.activation = 2
    pair.caller.serve(lambda: (pair.ask(), pair.asked()[1] > second)[1])
    assert pair.caller.pool.stats.behind == 0


def test_a_release_that_is_told_of_with_a_beat_counts_as_well(pair: Pair) -> None:
    pair.first.node.activation = 2
    member = pair.caller.pool._members.by_endpoint[pair.first.endpoint]
    pair.caller.serve(lambda: member.activation == 2)
    assert {pair.ask() for _ in range(50)} == {2}


def test_where_a_release_was_named_it_does_not_matter_who_answers(pair: Pair) -> None:
    pair.first_leads()
    second = pair.asked()[1]
    pair.caller.serve(lambda: (pair.ask(newest=False), pair.asked()[1] > second)[1])


def test_a_node_of_an_older_version_that_says_nothing_of_it_is_asked_as_ever(pair: Pair) -> None:
    pair.second.node.activation = 0
    member = pair.caller.pool._members.by_endpoint[pair.second.endpoint]
    pair.caller.serve(lambda: member.activation == 0)
    pair.first_leads()
    second = pair.asked()[1]
    pair.caller.serve(lambda: (pair.ask(), pair.asked()[1] > second)[1])


def test_a_request_waits_for_the_others_where_those_are_gone_who_knew(pair: Pair) -> None:
    pair.first_leads()
    pair.first.kill()
    pair.second.node.activation = 2  # which its callers do not know yet
    assert pair.ask() == 2


def test_where_nobody_is_left_who_knew_older_ones_serve_on_after_a_moment(pair: Pair) -> None:
    pair.first_leads()
    pair.first.kill()
    assert pair.ask() == 1
    assert pair.caller.pool.counters()["behind"] == 1
    # And that is not waited for again
    assert {pair.ask() for _ in range(20)} == {1}
    assert pair.caller.pool.counters()["behind"] == 1


def test_who_has_no_time_to_wait_is_answered_by_what_there_is(pair: Pair) -> None:
    lead, (gone, left) = Lead(), pair.caller.pool._members.by_endpoint.values()
    lead.learn(gone, 2)
    lead.learn(left, 1)
    lead.note([left], 5.0)
    asked = [Request(Kind.SCORE, b"", 5.0 + s, print, newest=True) for s in (1.1 * BEHIND_S, 0.9 * BEHIND_S)]
    assert [list(lead.among([left], one, 5.0)) for one in asked] == [[], [left]]


def test_what_the_leading_node_is_too_full_for_waits_until_another_has_learned(pair: Pair) -> None:
    pair.first_leads()
    pair.first.node.always = "overloaded"
    pair.caller.ask(newest=True)
    refused = pair.caller.pool.stats
    pair.caller.serve(lambda: refused.retried >= 2)
    assert not pair.caller.outcomes
    pair.second.node.activation = 2
    ((_, outcome),) = pair.caller.answers(1)
    assert isinstance(outcome, bytes)
    assert wire.unpack_body(outcome)["release"] == 2
