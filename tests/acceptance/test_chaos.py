"""A short chaos: the long one is `python -m benchmarks.chaos --minutes 10`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from benchmarks.chaos.checks import Activation, gone_backwards, not_answered_once, wrong_scores
from benchmarks.chaos.clock import Clocks
from benchmarks.chaos.load import Entry

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_no_request_fails_and_no_answer_is_wrong_while_everything_is_killed() -> None:
    command = [sys.executable, "-m", "benchmarks.chaos", "--minutes", "0.25", "--rate", "50", "--json"]
    done = subprocess.run(
        [*command, "--seed", "5"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.stdout, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["failed"], facts["wrong"]) == (0, 0), (facts["examples"], done.stderr)
    assert facts["faults"] >= 2
    assert facts["requests"] > 100
    assert done.returncode == 0


TELLS = """
import threading, time
for line in iter(input, ""):
    threading.Event().wait(0.01)  # which waits by the monotonic clock
    print(time.time(), time.monotonic(), flush=True)
"""


def test_the_clock_of_one_process_jumps_and_that_of_no_other(tmp_path: Path) -> None:
    clocks = Clocks(tmp_path / "clock")
    if clocks.why_not:
        pytest.skip(clocks.why_not)
    command, environment = [sys.executable, "-c", TELLS], {**os.environ, **clocks.environment}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        to, back = process.stdin, process.stdout
        assert to is not None
        assert back is not None

        def ask() -> tuple[float, float]:
            to.write("?\n")
            to.flush()
            wall, monotonic = back.readline().split()
            return float(wall) - time.time(), float(monotonic) - time.monotonic()

        for seconds in (3600.0, -3600.0):
            assert abs(ask()[0]) < 60.0
            with clocks.moved(process.pid, seconds):
                wall, monotonic = ask()
            assert abs(wall - seconds) < 60.0
            assert abs(monotonic) < 60.0
        to.write("\n")
        to.close()
    clocks.close()


def entry(number: int, sent: float, done: float, release: int, **facts: object) -> Entry:
    known = {"answer_id": str(number), "model": f"m{release}", "score": 0.5, "error": ""}
    return Entry(number=number, intended=sent, sent=sent, done=done, release=release, **{**known, **facts})  # type: ignore[arg-type]


def activation(number: int, at: float) -> Activation:
    return Activation(number, datetime.fromtimestamp(at, UTC), f"m{number}")


def test_the_checks_see_what_is_wrong() -> None:
    expected = {"m1": np.array([0.5, 0.25]), "m2": np.array([0.75, 0.75])}
    found = [activation(1, 0.0), activation(2, 10.0)]
    right = [entry(0, 1, 2, 1), entry(1, 2, 3, 1, score=0.25), entry(2, 11, 12, 2, score=0.75)]
    assert not wrong_scores(right, expected, found)
    assert not not_answered_once(right)
    for fault in (
        entry(0, 1, 2, 1, score=0.25),
        entry(0, 1, 2, 1, model="m2"),
        entry(0, 1, 2, 3),
    ):
        assert wrong_scores([fault], expected, found) == [fault]
    assert not_answered_once([*right, right[1]]) == [1]
    assert not_answered_once([entry(0, 1, 2, 1, answer_id="7")]) == [0]
    assert not_answered_once([right[0], right[2]]) == [1]


def test_an_answer_from_a_release_that_was_over_for_the_caller_is_seen() -> None:
    found = [activation(1, 0.0), activation(2, 10.0), activation(1, 20.0), activation(3, 30.0)]
    # Both were under way at once, so either may have been taken first.
    assert not gone_backwards([entry(0, 10.0, 10.4, 2), entry(1, 10.1, 10.5, 1)], found)
    late = entry(1, 10.5, 10.6, 1)
    assert gone_backwards([entry(0, 10.0, 10.4, 2), late], found) == [late]
    # Led back to 1: that is no step back, and 2 then is one.
    led_back = [entry(0, 10.0, 10.4, 2), entry(1, 20.1, 20.2, 1)]
    assert not gone_backwards(led_back, found)
    again = entry(2, 20.3, 20.4, 2)
    assert gone_backwards([*led_back, again], found) == [again]
    early = entry(0, 5.0, 5.1, 3)
    assert gone_backwards([early], found) == [early]
