"""Admission: bounded, fair, live first, and nothing that could not be answered in time."""

from __future__ import annotations

import pickle
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import zmq
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.conftest import LIMIT_S, ThreadNode, echoed, wait_until
from transport.admission import HURRIED_SHARE, MAX_QUEUED, Admission, Request
from transport.client import Client, OverloadedError, wire
from transport.client.throttle import EXCESS, Throttle
from transport.client.wire import Kind

Threads = Callable[..., ThreadNode]


def request(caller: bytes = b"a", number: int = 0, *, left_s: float = 10.0, replay: bool = False) -> Request:
    return Request(caller, number, Kind.SCORE, b"", 100.0, 100.0 + left_s, replay)


def worked(service_s: float, *, busy: bool = False) -> Admission:
    """Return an empty queue that has measured what a request takes; more arrives than is done, or not."""
    queue, step_s = Admission(), service_s if busy else 10 * service_s
    for number in range(200):
        now = 100.0 - (200 - number) * step_s
        assert queue.offer(request()._replace(deadline=now + 10), now) is None
        queue.take(now)
        queue.done(now + service_s)
    return queue


def test_what_would_wait_longer_than_its_deadline_is_refused_at_once_and_told_when_to_come_again() -> None:
    queue = worked(0.01)
    for number in range(5):
        assert queue.offer(request(number=number), 100.0) is None
    retry_s = queue.offer(request(left_s=0.02), 100.0)
    assert retry_s is not None
    assert 0.01 < retry_s < 0.1
    # With time enough it is taken; and so is whatever finds nobody before it.
    assert queue.offer(request(left_s=10.0), 101.0) is None
    assert Admission().offer(request(left_s=1e-6), 100.0) is None


def test_a_burst_may_wait_its_deadline_and_where_there_is_no_rest_a_small_share_of_it() -> None:
    queue = worked(0.001)
    taken = sum(queue.offer(request(left_s=1.0), 100.0) is None for _ in range(2000))
    assert 900 < taken < 1100
    hurried = worked(0.001, busy=True)
    taken = sum(hurried.offer(request(left_s=1.0), 100.0) is None for _ in range(2000))
    assert taken < 1000 * HURRIED_SHARE * 1.2
    # Whoever gives seconds is in no hurry.
    assert hurried.offer(request(left_s=5.0), 100.0) is None


def test_the_queue_is_bounded_whatever_the_deadlines() -> None:
    queue = Admission()
    taken = sum(queue.offer(request(left_s=4000.0), 100.0) is None for _ in range(MAX_QUEUED + 50))
    assert taken == len(queue) == MAX_QUEUED


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_each_request_comes_out_once_callers_in_turn_and_live_first(arrivals: list[tuple[str, bool]]) -> None:
    queue = Admission()
    for number, (caller, replay) in enumerate(arrivals):
        assert queue.offer(request(caller.encode(), number, replay=replay), 100.0) is None
    out: list[Request] = []
    while len(queue):
        out += queue.take(100.0)
    assert sorted(one.id for one in out) == list(range(len(arrivals)))
    assert [one.replay for one in out] == sorted(one.replay for one in out)
    for replay in (False, True):
        mine = [one for one in out if one.replay is replay]
        counts: Counter[bytes] = Counter()
        left = Counter(one.caller for one in mine)
        for one in mine:
            counts[one.caller] += 1
            left[one.caller] -= 1
            # Nobody who still waits was served two times less.
            assert all(counts[other] >= counts[one.caller] - 1 for other, n in left.items() if n)
        for name in counts:
            order = [one.id for one in mine if one.caller == name]
            assert order == sorted(order)


def test_a_greedy_caller_does_not_use_up_the_room_of_others() -> None:
    queue = worked(0.001)
    while queue.offer(request(b"greedy", left_s=0.1), 100.0) is None:
        pass
    assert queue.offer(request(b"modest", left_s=0.1), 100.0) is None
    assert queue.offer(request(b"greedy", left_s=0.1), 100.0) is not None
    assert [one.caller for one in queue.take(100.0)][:2] == [b"greedy", b"modest"]


def test_a_replay_is_refused_before_anything_live_is() -> None:
    queue = worked(0.001)
    for number in range(50):
        assert queue.offer(request(number=number, left_s=0.1), 100.0) is None
    assert queue.offer(request(b"bulk", left_s=0.02, replay=True), 100.0) is not None
    assert queue.offer(request(b"other", left_s=0.02), 100.0) is None


def test_an_overloaded_node_refuses_at_once_by_the_wire_and_answers_what_it_takes(
    threads: Threads, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    node = threads()
    node.node.slow_s = 0.01
    body = wire.pack_transaction({"payload": 1})
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(node.endpoint)
        for number in range(20):  # a time is measured
            socket.send(wire.pack_header(Kind.SCORE, number, 10**7) + body)
            assert socket.poll(LIMIT_S * 1000)
            socket.recv()
        for number in range(100, 400):
            socket.send(wire.pack_header(Kind.SCORE, number, 200_000) + body)
        wait_until(lambda: node.node.listener.stats.overloaded > 200)
        replies = []
        while socket.poll(500):
            replies.append(socket.recv())
    errors = [wire.unpack_error(one) for one in replies if wire.unpack_header(one).kind is Kind.ERROR]
    assert all(isinstance(error, OverloadedError) and error.retry_after > 0 for error in errors)
    answered = len(replies) - len(errors)
    late = node.node.listener.stats.late
    assert answered + len(errors) + late == 300
    assert answered > 0


def test_a_callers_own_restraint_thins_out_what_would_be_refused_and_ends_with_the_overload() -> None:
    throttle = Throttle()
    sent, now = 0, 0.0
    for number in range(30_000):  # ten seconds; a node that takes every third
        now = number / 3000
        if throttle.admits():
            sent += number > 15_000
            throttle.note(now, refused=number % 3 != 0)
    # One in three is taken whatever is sent, so restraint goes on until next to nothing is left to refuse.
    assert sent < 15_000 / 2
    assert EXCESS > 1
    for number in range(3000):
        throttle.note(now + 5 + number / 1000, refused=False)
    assert all(throttle.admits() for _ in range(1000))


def test_replays_are_marked_first_in_their_body_and_read_without_unpacking_it() -> None:
    for release in (None, 7):
        frame = wire.pack_header(Kind.SCORE, 1) + wire.pack_transaction({"a": 1}, release, replay=True)
        assert wire.is_replay(frame)
        assert wire.unpack_body(frame)["transaction"] == {"a": 1}
        assert not wire.is_replay(wire.pack_header(Kind.SCORE, 1) + wire.pack_transaction({"a": 1}, release))


def test_how_long_to_wait_travels_with_the_error() -> None:
    error = OverloadedError("full", retry_after=0.25)
    frame = wire.pack_header(Kind.ERROR, 1) + wire.pack_error(error)
    for found in (wire.unpack_error(frame), pickle.loads(pickle.dumps(error))):
        assert isinstance(found, OverloadedError)
        assert (found.detail, found.retry_after) == ("full", 0.25)


def test_a_deadline_fires_on_time_behind_a_slow_request(call: Any, threads: Threads) -> None:
    # A rival's time-out fired only when the slow request before it was done.
    node = threads()
    caller = call(node.endpoint)
    caller.serve(lambda: caller.is_ready(node.endpoint))
    node.node.slow_s = 0.5
    caller.ask("slow")
    caller.ask("hurried", deadline_s=0.1)
    began = time.monotonic()
    [(payload, outcome)] = caller.answers(1)
    assert payload == "hurried"
    assert isinstance(outcome, Exception)
    assert time.monotonic() - began < 0.4
    assert echoed(caller.answers(1)[0][1]) == "slow"


def test_a_client_scores_a_replay(threads: Threads) -> None:
    with Client(threads().endpoint, deadline=LIMIT_S) as client:
        assert client.score({"payload": 3}, replay=True).id == "3"
        results = list(client.score_many(({"payload": n} for n in range(10)), replay=True))
    assert [one.id for one in results if not isinstance(one, Exception)] == [str(n) for n in range(10)]
