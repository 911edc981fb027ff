"""ZeroMQ's threads in a node: they let an actor that gives them messages go on."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from tests.transport.conftest import wait_until
from transport.threads import serving_context

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="this system has no batch threads")


def policies() -> set[int]:
    """Return the scheduling policies of the threads of this process that move messages."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if "/IO/" in (task / "comm").read_text():
                found.add(os.sched_getscheduler(int(task.name)))
    return found


def test_the_threads_of_a_serving_context_are_batch_threads_and_the_caller_stays_as_it_was() -> None:
    before, own = policies(), os.sched_getscheduler(0)
    with serving_context() as context, context.socket(zmq.ROUTER) as socket:
        socket.bind("tcp://127.0.0.1:*")
        # They name themselves and take their policy once they run.
        wait_until(lambda: policies() == before | {os.SCHED_BATCH})
        assert os.sched_getscheduler(0) == own


def test_a_policy_that_whoever_runs_a_node_chose_is_left_alone() -> None:
    code = (
        "import os, zmq; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0));"
        "from transport.threads import serving_context;"
        "print(serving_context().get(zmq.THREAD_SCHED_POLICY))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["-1"]
