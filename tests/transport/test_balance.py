"""Balance, hedging and budgets: work goes where it is answered soon, and extra work stays bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.conftest import LIMIT_S, ThreadNode, echoed
from transport.client import pool as pools
from transport.client.budget import Budget
from transport.client.errors import OverloadedError
from transport.client.health import FIRST_PAUSE_S, SLOW_START_S, Health
from transport.client.hedge import BURST, SHARE, Hedger
from transport.client.member import Request
from transport.client.wire import Kind

Threads = Callable[..., ThreadNode]


def one_by_one(caller: Any, count: int) -> bool:
    """Ask again and again, each time when the last was answered; False, so that `or` goes on."""
    for number in range(count):
        caller.ask(number)
        assert echoed(caller.answers(1)[0][1]) == str(number)
    return False


def ready(call: Any, *nodes: ThreadNode) -> Any:
    caller = call(*(node.endpoint for node in nodes))
    caller.serve(lambda: caller.is_ready(*(node.endpoint for node in nodes)))
    return caller


def test_a_slow_node_is_given_little_though_it_never_errs(call: Any, threads: Threads) -> None:
    slow, fast = threads(), threads()
    slow.node.slow_s = 0.01
    caller = ready(call, slow, fast)
    one_by_one(caller, 300)
    assert sum(slow.node.batches) < 60
    # And it is tried again when it has become faster
    slow.node.slow_s = 0.0
    before = sum(slow.node.batches)
    caller.serve(lambda: one_by_one(caller, 20) or sum(slow.node.batches) > before + 30)


def test_what_takes_long_is_asked_a_second_time_and_the_first_answer_counts(
    call: Any, threads: Threads
) -> None:
    keeping, fast = threads(), threads()
    caller = ready(call, keeping, fast)
    one_by_one(caller, 300)
    caller.serve(lambda: caller.pool._hedger.after_s < LIMIT_S)
    keeping.node.always = "keep"
    stats = caller.pool.stats
    # On a busy machine the requests before may have used up what there was; none of these waits for another,
    # since one that finds no second node when its time has come is not asked again.
    caller.pool._hedger._budget = Budget(1.0, 100.0)
    caller.serve(lambda: stats.hedges_won or caller.ask())
    assert stats.expired == 0
    # What it answers at last is for nobody any more, and is counted.
    keeping.node.always = ""
    keeping.node.loop.wake()
    caller.serve(lambda: stats.duplicates + stats.late >= 1)
    caller.serve(lambda: caller.pool.counters()["in_flight"] == 0)
    assert stats.expired == 0


def test_when_everything_is_slow_second_askings_stay_within_their_budget(call: Any, threads: Threads) -> None:
    nodes = [threads(), threads()]
    caller = ready(call, *nodes)
    one_by_one(caller, 100)
    caller.serve(lambda: caller.pool._hedger.after_s < LIMIT_S)
    for node in nodes:
        node.node.slow_s = 0.001
    for number in range(1000):
        caller.ask(number)
    caller.answers(1000)
    assert 0 < caller.pool.stats.hedged <= BURST + SHARE * 1100
    assert caller.pool.stats.sent == 1100 + caller.pool.stats.hedged


def test_nothing_is_asked_a_second_time_before_enough_is_known() -> None:
    hedger = Hedger()
    request = Request(Kind.SCORE, b"", 9.0, lambda _: None, sent_at=1.0, asked=1)
    hedger.watch(request)
    for _ in range(10):
        hedger.measure(0.01)
    hedger.settle()
    assert not list(hedger.ripe(1e9))
    for _ in range(100):
        hedger.measure(0.01)
    hedger.settle()
    assert hedger.due() == pytest.approx(1.01)
    assert list(hedger.ripe(1.02)) == [request]


@given(st.lists(st.booleans()), st.floats(0.01, 1.0), st.integers(1, 50))
def test_a_budget_allows_its_burst_and_its_share_and_no_more(
    steps: list[bool], share: float, burst: int
) -> None:
    budget = Budget(share, burst)
    filled = taken = 0
    for fill in steps:
        if fill:
            budget.fill()
            filled += 1
        else:
            taken += budget.take()
    assert taken <= burst + share * filled + 1e-6


def test_a_node_that_errs_is_left_out_soon_and_comes_back_when_it_is_mended(
    call: Any, threads: Threads
) -> None:
    broken, sound = threads(), threads()
    caller = ready(call, broken, sound)
    one_by_one(caller, 20)
    broken.node.always = "internal"
    one_by_one(caller, 200)
    caller.serve(lambda: one_by_one(caller, 10) or caller.pool.stats.failing == 1)
    # It is tried now and then, with one request at a time
    tried = sum(broken.node.batches)
    one_by_one(caller, 200)
    assert sum(broken.node.batches) < tried + 20
    broken.node.always = ""
    health = caller.pool._members.by_endpoint[broken.endpoint].health
    caller.serve(lambda: one_by_one(caller, 10) or not health.failing)
    before = sum(broken.node.batches)
    caller.serve(lambda: one_by_one(caller, 10) or sum(broken.node.batches) > before + 20)


def test_a_node_that_holds_no_release_of_late_is_left_out_and_nobody_is_told(
    call: Any, threads: Threads
) -> None:
    lagging, other = threads(), threads()
    caller = ready(call, lagging, other)
    lagging.node.always = "unknown_release"
    caller.serve(lambda: one_by_one(caller, 10) or caller.pool.stats.failing == 1)
    assert caller.pool.stats.refused == 0


def test_repetitions_after_errors_stay_within_their_budget(
    call: Any, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "RETRY_BURST", 5.0)
    caller = ready(call, threads(), threads())
    for number in range(100):
        caller.ask(number, do="overloaded")
    assert all(isinstance(outcome, OverloadedError) for _, outcome in caller.answers(100))
    stats = caller.pool.stats
    assert stats.retried <= 5 + pools.RETRY_SHARE * 100
    assert stats.unaffordable > 0


def test_a_new_member_is_given_its_share_little_by_little() -> None:
    old, new = Health(), Health()
    new.welcome(100.0)
    for health in (old, new):
        health.measure(0.001, 100.0)
    # As if ten times as much waited there as does
    assert new.cost(100.0, 0) == pytest.approx(10 * old.cost(100.0, 0))
    half = 100.0 + SLOW_START_S / 2
    assert new.cost(half, 0) == pytest.approx(2 * old.cost(half, 0))
    assert new.cost(100.0 + SLOW_START_S, 0) == old.cost(100.0 + SLOW_START_S, 0)


def test_a_peak_counts_at_once_and_fades() -> None:
    health = Health()
    for number in range(100):
        health.measure(0.001, number / 100)
    health.measure(0.1, 1.0)
    assert health.latency_s(1.0) == 0.1
    assert health.latency_s(3.0) < 0.01


def test_a_failing_member_waits_longer_after_each_probe_that_fails() -> None:
    health = Health()
    assert [health.blame(1.0) for _ in range(5)] == [False] * 4 + [True]
    waits, now = [], 1.0
    for _ in range(8):
        began = now
        while not health.usable(now, 0):
            now += 0.05
        waits.append(now - began)
        assert not health.usable(now, 1)
        health.probe(now)
        health.blame(now)
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(FIRST_PAUSE_S, abs=0.06)
    # An answer to what was sent before it failed proves nothing.
    health.praise(0.5, now)
    assert health.failing
    health.praise(now, now + 0.1)
    assert not health.failing
