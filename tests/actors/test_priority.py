from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SESSION = Path("/proc/self/autogroup")
PROGRAM = """
import json, os, sys, threading
from pathlib import Path
from actors.priority import step_back

session = Path("/proc/self/autogroup")
before = session.read_text() if session.exists() else ""
step_back(int(sys.argv[1]), session=sys.argv[2] == "session")
found = []
thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
thread.start()
thread.join()
print(json.dumps({
    "nice": os.nice(0),
    "batch": found == [os.SCHED_BATCH],
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


@pytest.mark.skipif(not SESSION.exists(), reason="this kernel does not share processors among sessions")
def test_its_session_stands_back_too_and_never_that_of_others() -> None:
    assert standing_back(7, leads=True)["session"].split()[-1] == "7"
    for found in (standing_back(7, leads=False), standing_back(7, leads=True, session=False)):
        assert found["session"] == found["before"]


def test_told_to_stay_it_stays() -> None:
    found = standing_back(0, leads=True)
    assert (found["nice"], found["batch"]) == (os.nice(0), False)
