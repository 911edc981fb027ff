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
from transport.admission import MAX_QUEUED, Admission
from transport.client import Client, OverloadedError, wire
from transport.client.throttle import EXCESS, Throttle
from transport.client.wire import Kind
from transport.overload import HURRIED_TIMES, WINDOW_S
from transport.turns import Request

Threads = Callable[..., ThreadNode]


def request(
    caller: bytes = b"a", number: int = 0, *, left_s: float = 10.0, replay: bool = False, now: float = 100.0
) -> Request:
    return Request(caller, number, Kind.SCORE, b"", now, now + left_s, replay)


class Service:
    """A queue before work that takes `service_s` for each request, one after another, and its clock."""

    def __init__(self, service_s: float) -> None:
        self.queue = Admission()
        self.service_s = service_s
        self.now = 100.0
        for _ in range(3):
            self.offer(1000, left_s=9999 * service_s)
            self.work()

    def offer(self, count: int = 1, caller: bytes = b"a", *, left_s: float, replay: bool = False) -> int:
        """Offer so many requests; return how many were taken."""
        taken = 0
        for _ in range(count):
            one = request(caller, left_s=left_s, replay=replay, now=self.now)
            taken += self.queue.offer(one, self.now) is None
        return taken

    def take(self) -> list[Request]:
        return self.queue.take(self.now)

    def end(self, slice_: list[Request]) -> None:
        for one in slice_:
            self.now += self.service_s
            self.queue.end(one, self.now)
            self.queue.measure(self.now)

    def work(self) -> None:
        """Work until nothing waits."""
        while len(self.queue):
            self.end(self.take())
            self.queue.done(self.now)


def test_what_would_wait_longer_than_its_deadline_is_refused_at_once_and_told_when_to_come_again() -> None:
    service = Service(0.01)
    assert service.offer(5, left_s=10.0) == 5
    retry_s = service.queue.offer(request(left_s=0.02, now=service.now), service.now)
    assert retry_s is not None
    assert 0.01 < retry_s < 0.1
    # With time enough it is taken; and so is whatever finds nobody before it.
    assert service.offer(left_s=10.0)
    assert Admission().offer(request(left_s=1e-6), 100.0) is None


def test_what_was_passed_on_and_is_not_answered_makes_others_wait_as_well() -> None:
    service = Service(0.01)
    service.offer(5, left_s=10.0)
    passed_on = service.take()
    assert not len(service.queue)
    assert not service.offer(left_s=0.02)
    service.end(passed_on)
    assert service.offer(left_s=0.02)
    # What was given up makes nobody wait; nor what was overtaken, which a dead node may hold.
    service.work()
    service.offer(5, left_s=0.02)
    service.now += 1.0
    service.end(service.take())
    assert service.offer(left_s=0.02)
    service.work()
    service.offer(5, left_s=10.0)
    service.end(service.take()[-1:])
    assert service.offer(left_s=0.02)


def test_no_more_is_passed_on_than_is_worked_on_as_long_as_answers_come() -> None:
    service = Service(0.001)
    service.offer(500, left_s=10.0)
    passed_on: list[Request] = []
    while (ready_at := service.queue.ready_at(service.now)) == service.now:
        passed_on += service.take()
    assert 2 <= len(passed_on) < 50
    service.end(passed_on)
    assert service.queue.ready_at(service.now) == service.now
    # Those behind may be dead, and what waits here has its own time.
    while (ready_at := service.queue.ready_at(service.now)) == service.now:
        service.take()
    assert ready_at is not None
    assert service.queue.ready_at(ready_at) == ready_at


def test_a_burst_may_wait_its_deadline_and_in_overload_a_small_share_of_it() -> None:
    service = Service(0.001)
    assert 900 < service.offer(2000, left_s=1.0) < 1100
    while len(service.queue) > 20:
        service.end(service.take())
        service.offer(left_s=0.01)  # for a second there was no end of it
    service.work()
    assert service.offer(2000, left_s=1.0) < HURRIED_TIMES * 1.2
    # Whoever gives seconds is in no hurry.
    assert service.offer(left_s=5.0)
    # It is over when nothing was refused for a while.
    service.work()
    service.now += 2 * WINDOW_S
    service.offer(left_s=1.0)
    assert service.offer(2000, left_s=1.0) > 900


def test_overload_is_over_where_a_few_in_a_hundred_are_refused_again_and_again() -> None:
    service = Service(0.001)
    service.offer(2000, left_s=1.0)
    while len(service.queue) > 20:
        service.end(service.take())
        service.offer(left_s=0.01)
    service.work()
    taken = service.offer(100, left_s=1.0)
    assert taken < 30
    service.work()
    refused = 0
    for _ in range(20):  # well within the time after which it is over without a refusal
        refused += taken + 1 - service.offer(taken + 1, left_s=1.0)
        service.work()
    assert refused > 5
    assert service.offer(100, left_s=1.0) == 100


def test_in_overload_one_is_sent_alone_now_and_then_to_see_how_long_it_takes() -> None:
    service = Service(0.001)
    sizes = Counter[int]()
    for _ in range(3000):
        service.offer(100, left_s=0.5)
        slice_ = service.take()
        sizes[len(slice_)] += 1
        service.end(slice_)
    assert 1 <= sizes[1] <= service.now - 100.0
    assert sizes.total() - sizes[1] > 2900


def test_what_one_takes_alone_is_the_least_of_its_latest_times() -> None:
    now = 100.0

    def taken_after(*times_s: float) -> int:
        """Let requests come one at a time and take so long; return how many are taken then at once."""
        nonlocal now
        queue = Admission()
        for time_s in times_s:
            assert queue.offer(request(left_s=1.0, now=now), now) is None
            (one,) = queue.take(now)
            now += time_s
            queue.end(one, now)
        return sum(queue.offer(request(left_s=1e-3, now=now), now) is None for _ in range(2000))

    quick, slow = [1e-3] * 6, [4e-3] * 5
    usual = taken_after(*quick)
    assert 50 < usual < 1000
    assert taken_after(*quick, *slow[:4]) == usual
    assert taken_after(*quick, *slow) > 2 * usual
    assert taken_after(*quick, *slow, *quick[:1]) == usual


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
    service = Service(0.001)
    while service.offer(caller=b"greedy", left_s=0.1):
        pass
    assert service.offer(caller=b"modest", left_s=0.1)
    assert not service.offer(caller=b"greedy", left_s=0.1)
    assert [one.caller for one in service.take()][:2] == [b"greedy", b"modest"]


def test_a_replay_is_refused_before_anything_live_is() -> None:
    service = Service(0.001)
    assert service.offer(50, left_s=0.1) == 50
    assert not service.offer(caller=b"bulk", left_s=0.02, replay=True)
    assert service.offer(caller=b"other", left_s=0.02)


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
