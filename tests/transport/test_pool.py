"""The pool: a caller does not notice that nodes die, hang, are cut off or come back."""

from __future__ import annotations

import os
import signal
import socket as sockets
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.transport.conftest import ProcessNode, ThreadNode, echoed
from transport.client import health, wire
from transport.client.errors import (
    ClosedError,
    DeadlineExceededError,
    NodeFailedError,
    NoNodeError,
    OverloadedError,
    TransactionRefusedError,
    UnknownReleaseError,
)
from transport.client.member import MAX_FAILURES
from transport.client.wire import Kind
from transport.ports import free_ports_in_a_row

Processes = Callable[..., ProcessNode]
Threads = Callable[..., ThreadNode]


def test_every_caller_gets_the_answer_to_its_own_request(call: Any, threads: Threads) -> None:
    caller = call(*(threads().endpoint for _ in range(3)))
    for number in range(2000):
        caller.ask(number)
    assert all(echoed(outcome) == str(payload) for payload, outcome in caller.answers(2000))


def test_work_goes_to_the_less_loaded_of_two(
    call: Any, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "SLOW_START_S", 1e-9)
    nodes = [threads() for _ in range(3)]
    caller = call(*(node.endpoint for node in nodes))
    caller.serve(lambda: caller.is_ready(*(node.endpoint for node in nodes)))
    for number in range(3000):
        caller.ask(number)
    caller.answers(3000)
    shares = [sum(node.node.batches) for node in nodes]
    assert sum(shares) == caller.pool.stats.sent
    assert min(shares) > 600


def test_a_killed_node_costs_no_request(call: Any, processes: Processes) -> None:
    one, two = processes(), processes()
    caller = call(one.endpoint, two.endpoint)
    caller.serve(lambda: caller.is_ready(one.endpoint, two.endpoint))
    for number in range(500):
        caller.ask(number)
    os.kill(one.pid, signal.SIGKILL)
    for number in range(500, 1000):
        caller.ask(number)
    assert all(echoed(outcome) == str(payload) for payload, outcome in caller.answers(1000))
    caller.serve(lambda: caller.state(one.endpoint) == "silent")


def test_a_stopped_node_is_left_out_and_comes_back_when_it_goes_on(call: Any, processes: Processes) -> None:
    one, two = processes(), processes()
    caller = call(one.endpoint, two.endpoint)
    caller.serve(lambda: caller.is_ready(one.endpoint, two.endpoint))
    os.kill(one.pid, signal.SIGSTOP)
    for number in range(100):
        caller.ask(number)
    assert all(echoed(outcome) == str(payload) for payload, outcome in caller.answers(100))
    assert caller.state(one.endpoint) == "silent"
    assert caller.pool.stats.ejected == 1
    assert caller.pool.stats.retried > 0
    os.kill(one.pid, signal.SIGCONT)
    caller.serve(lambda: caller.is_ready(one.endpoint))
    # What it answers late is for nobody any more, and is counted
    caller.serve(lambda: caller.pool.stats.late + caller.pool.stats.duplicates > 0)
    assert caller.pool.counters()["in_flight"] == 0


def test_a_node_that_is_started_again_at_its_address_comes_back_by_itself(
    call: Any, processes: Processes
) -> None:
    node = processes()
    caller = call(node.endpoint)
    caller.ask(1)
    caller.answers(1)
    node.kill()
    caller.serve(lambda: caller.state(node.endpoint) == "silent")
    caller.ask(2)
    processes(node.endpoint)
    assert echoed(caller.answers(1)[0][1]) == "2"


def test_a_deadline_is_kept_while_every_node_hangs(call: Any, processes: Processes) -> None:
    node = processes()
    caller = call(node.endpoint)
    caller.serve(lambda: caller.is_ready(node.endpoint))
    caller.ask(0, do="hang")
    began = time.monotonic()
    caller.ask(1, deadline_s=0.3)
    (_, outcome), *_ = caller.answers(1)
    assert isinstance(outcome, DeadlineExceededError)
    assert 0.29 < time.monotonic() - began < 5
    assert "sent 1 times" in str(outcome)


def test_expired_requests_leave_nothing_behind(call: Any, threads: Threads) -> None:
    node = threads()
    caller = call(node.endpoint)
    caller.serve(lambda: caller.is_ready(node.endpoint))
    for number in range(2000):
        caller.ask(number, do="silent", deadline_s=0.3)
    outcomes = caller.answers(2000)
    # A machine that is busy otherwise may find that it cannot make them all.
    assert all(isinstance(outcome, DeadlineExceededError | OverloadedError) for _, outcome in outcomes)
    assert caller.pool.counters()["in_flight"] == 0
    assert not caller.pool._members.by_endpoint[node.endpoint].held
    caller.pool.due()
    assert not caller.pool._deadlines


def test_answered_requests_with_long_deadlines_do_not_pile_up(call: Any, threads: Threads) -> None:
    caller = call(threads().endpoint)
    for _ in range(20):
        for number in range(500):
            caller.ask(number, deadline_s=3600)
        caller.answers(500)
    assert len(caller.pool._deadlines) < 3000


def test_no_node_at_all_is_named(call: Any) -> None:
    caller = call("tcp://127.0.0.1:9")
    caller.ask(1, deadline_s=0.1)
    (_, outcome), *_ = caller.answers(1)
    assert isinstance(outcome, NoNodeError)
    assert "tcp://127.0.0.1:9" in str(outcome)


def test_a_node_that_comes_up_within_the_deadline_answers(call: Any, threads: Threads) -> None:
    endpoint = f"tcp://127.0.0.1:{free_ports_in_a_row(1)}"
    caller = call(endpoint)
    caller.ask("early")
    began = time.monotonic()
    caller.serve(lambda: time.monotonic() > began + 0.2)
    threads(endpoint)
    assert echoed(caller.answers(1)[0][1]) == "early"


@pytest.mark.parametrize(
    ("code", "error"), [("overloaded", OverloadedError), ("unknown_release", UnknownReleaseError)]
)
def test_what_another_node_may_answer_is_asked_there_before_it_is_handed_on(
    call: Any, threads: Threads, code: str, error: type[Exception]
) -> None:
    nodes = [threads(), threads()]
    caller = call(*(node.endpoint for node in nodes))
    caller.serve(lambda: caller.is_ready(*(node.endpoint for node in nodes)))
    caller.ask(1, do=code)
    (_, outcome), *_ = caller.answers(1)
    assert isinstance(outcome, error)
    assert [sum(node.node.batches) for node in nodes] == [1, 1]


def test_a_refusal_of_the_request_is_handed_on_at_once(call: Any, threads: Threads) -> None:
    caller = call(threads().endpoint, threads().endpoint)
    caller.ask(1, do="bad_transaction")
    (_, outcome), *_ = caller.answers(1)
    assert isinstance(outcome, TransactionRefusedError)
    assert caller.pool.stats.sent == 1


@pytest.mark.parametrize("do", ["internal", "crash"])
def test_a_request_that_fails_node_after_node_is_given_up(call: Any, processes: Processes, do: str) -> None:
    nodes = [processes() for _ in range(MAX_FAILURES + 1)]
    caller = call(*(node.endpoint for node in nodes))
    caller.serve(lambda: caller.is_ready(*(node.endpoint for node in nodes)))
    caller.ask(1, do=do)
    (_, outcome), *_ = caller.answers(1)
    assert isinstance(outcome, NodeFailedError)
    # It is the request that is to blame: nobody answered it.
    assert caller.pool.stats.failing == 0
    caller.ask(2)
    assert echoed(caller.answers(1)[0][1]) == "2"


def test_a_beat_that_is_read_after_its_connection_was_lost_brings_no_member_back(
    call: Any, processes: Processes
) -> None:
    node = processes()
    caller = call(node.endpoint)
    caller.serve(lambda: caller.is_ready(node.endpoint))
    node.kill()
    caller.serve(lambda: caller.state(node.endpoint) == "silent")
    member = caller.pool._members.by_endpoint[node.endpoint]
    caller.pool._take(member, wire.pack_header(Kind.PONG, 0) + wire.pack_body({"state": "ready"}))
    assert caller.state(node.endpoint) == "silent"


def test_goodbye_and_not_ready_move_callers_on_and_what_is_under_way_is_still_answered(
    call: Any, threads: Threads
) -> None:
    leaving, staying = threads(), threads()
    caller = call(leaving.endpoint, staying.endpoint)
    caller.serve(lambda: caller.is_ready(leaving.endpoint, staying.endpoint))
    for number in range(100):
        caller.ask(number)
    leaving.node.ready = False
    caller.serve(lambda: caller.state(leaving.endpoint) == "not_ready")
    assert len(caller.answers(100)) == 100
    served = sum(leaving.node.batches)
    for number in range(100):
        caller.ask(number)
    caller.answers(100)
    assert sum(leaving.node.batches) == served
    assert caller.pool.stats.retried == 0


def test_members_come_and_go_under_load(call: Any, threads: Threads) -> None:
    nodes = [threads() for _ in range(3)]
    caller = call(nodes[0].endpoint)
    sent = 0
    for members in ([0], [0, 1], [1, 2], [2], [0, 1, 2], [1]):
        caller.pool.set_members([nodes[index].endpoint for index in members])
        for _ in range(200):
            caller.ask(sent)
            sent += 1
        for source in caller.loop.wait(block=False):
            source.pump()
    assert all(echoed(outcome) == str(payload) for payload, outcome in caller.answers(sent))


class Proxy:
    """A TCP proxy that can go deaf (takes bytes, passes none on) and hear again."""

    def __init__(self, target: str) -> None:
        self._target = ("127.0.0.1", int(target.rsplit(":", 1)[1]))
        self._server = sockets.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.hears = threading.Event()
        self.hears.set()
        self._open: list[sockets.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = sockets.create_connection(self._target)
            self._open += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    def _pass_on(self, source: sockets.socket, sink: sockets.socket) -> None:
        try:
            while data := source.recv(65536):
                self.hears.wait()
                sink.sendall(data)
        except OSError:
            pass

    def close(self) -> None:
        self.hears.set()
        for one in (self._server, *self._open):
            one.close()


def test_a_link_that_goes_deaf_is_left_out_and_used_again_when_it_hears(call: Any, threads: Threads) -> None:
    behind, other = threads(), threads()
    proxy = Proxy(behind.endpoint)
    try:
        caller = call(proxy.endpoint, other.endpoint)
        caller.serve(lambda: caller.is_ready(proxy.endpoint, other.endpoint))
        proxy.hears.clear()
        for number in range(50):
            caller.ask(number)
        assert all(echoed(outcome) == str(payload) for payload, outcome in caller.answers(50))
        assert caller.state(proxy.endpoint) == "silent"
        proxy.hears.set()
        caller.serve(lambda: caller.is_ready(proxy.endpoint))
    finally:
        proxy.close()


def test_a_caller_that_was_held_up_itself_finds_its_nodes_ready(call: Any, threads: Threads) -> None:
    node = threads()
    caller = call(node.endpoint)
    caller.serve(lambda: caller.is_ready(node.endpoint))
    threading.Event().wait(0.6)  # a dozen beats that this caller did not send
    for _ in range(3):
        for source in caller.loop.wait():
            source.pump()
        assert caller.is_ready(node.endpoint)


def test_closing_fails_what_is_under_way(call: Any, threads: Threads) -> None:
    caller = call(threads().endpoint)
    caller.ask(1, do="silent")
    caller.ask(2, do="silent")
    caller.pool.close()
    assert [type(outcome) for _, outcome in caller.outcomes] == [ClosedError, ClosedError]
