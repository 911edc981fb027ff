from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.priority import Breather

ROOT = Path(__file__).parents[2]
SESSION = Path("/proc/self/autogroup")
PROGRAM = """
import ctypes, json, os, platform, sys, threading
from pathlib import Path
from actors.priority import _Attributes, step_back

def turn():
    number, found = {"x86_64": 315, "aarch64": 275}.get(platform.machine()), _Attributes()
    if number:
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(found), ctypes.sizeof(found), 0)
    return found.runtime

session = Path("/proc/self/autogroup")
usual, before = turn(), session.read_text() if session.exists() else ""
step_back(int(sys.argv[1]), session=sys.argv[2] == "session")
found = []
thread = threading.Thread(target=lambda: found.extend((os.sched_getscheduler(0), turn())))
thread.start()
thread.join()
print(json.dumps({
    "nice": os.nice(0),
    "batch": found[0] == os.SCHED_BATCH,
    "turns": [usual, found[1]],
    "before": before,
    "session": session.read_text() if session.exists() else "",
}))
"""


def standing_back(nice: int, *, leads: bool, session: bool = True) -> dict[str, Any]:
    command = [sys.executable, "-c", PROGRAM, str(nice), "session" if session else "alone"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, start_new_session=leads
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_process_stands_back_with_all_its_threads() -> None:
    found = standing_back(7, leads=True)
    assert (found["nice"], found["batch"]) == (min(19, os.nice(0) + 7), True)
    usual, turn = found["turns"]
    # Where the kernel knows of turns it tells how long they are.
    assert turn == (100_000_000 if usual else 0)


@pytest.mark.skipif(not SESSION.exists(), reason="this kernel does not share processors among sessions")
def test_its_session_stands_back_too_and_never_that_of_others() -> None:
    assert standing_back(7, leads=True)["session"].split()[-1] == "7"
    for found in (standing_back(7, leads=False), standing_back(7, leads=True, session=False)):
        assert found["session"] == found["before"]


def test_told_to_stay_it_stays() -> None:
    found = standing_back(0, leads=True)
    assert (found["nice"], found["batch"]) == (os.nice(0), False)


def test_long_work_in_which_one_breathes_hands_its_core_over_again_and_again() -> None:
    breather, steps = Breather(), 20

    def handed_over(work: Callable[[], None]) -> int:
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for _ in range(steps):
            step_ends = time.thread_time() + 1e-3
            while time.thread_time() < step_ends:
                work()
        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before

    assert handed_over(breather.breathe) >= steps
    assert handed_over(lambda: None) < steps
