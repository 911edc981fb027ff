"""Workers of code packages: what goes wrong in one request harms no other, and nothing outlives its node."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from actors.code import calls
from actors.code.batch import CodeBatch
from actors.code.frames import GarbageError
from actors.code.package_log import MOST_A_SECOND, PackageLog
from actors.code.prepare import warm_up
from actors.code.workers import WINDOW
from actors.errors import CodeStartError
from actors.logs import JsonFormatter
from models.errors import GoldenMismatchError
from tests.actors.code.conftest import MakeStage
from transport.client.errors import (
    CodeFailedError,
    DeadlineExceededError,
    OverloadedError,
    TransactionRefusedError,
)

LIMIT_S = 30.0
MakeBatch = Callable[..., CodeBatch]

#: Does what the transaction says.
OBEDIENT = """
import ctypes, os, sys, time

class Refused(ValueError):
    field, rule = "a", "range"

kept = []

def features(transaction):
    do = transaction.get("do")
    a = transaction["a"]
    if do == "raise":
        raise KeyError("no such thing")
    if do == "refuse":
        raise Refused("must be small")
    if do == "exit":
        sys.exit("bye")
    if do == "vanish":
        os._exit(7)
    if do == "segfault":
        ctypes.string_at(0)
    if do == "loop":
        while True:
            pass
    if do == "loop in C":
        sum(range(10**12))
    if do == "sleep":
        time.sleep(transaction["s"])
    if do == "leak":
        while True:
            kept.append(bytearray(1 << 24))
    if do == "print":
        for _ in range(1000):
            print("garbage" * 1000)
            print("garbage" * 1000, file=sys.stderr)
        sys.stdout.flush()
    if do == "garble":
        for fd in range(3, 64):
            try:
                os.write(fd, b"\\x05\\0\\0\\0nonsense" * 10)
            except OSError:
                pass
    if do == "close":
        os.closerange(3, 64)
        time.sleep(60)
    try:
        if do == "fork" and os.fork() == 0:
            time.sleep(60)
        if do == "fork and return":
            os.fork()
    except OSError:
        pass  # beside root the kernel refuses
    if do == "short":
        return [a]
    if do == "text":
        return [a, "x"]
    if do == "none":
        return None
    if do == "huge":
        return [1e300, a]
    if do == "infinite":
        return [a, float("-inf")]
    if do == "nan":
        return [float("nan"), a]
    if do == "environment":
        return [len(os.environ), len(os.listdir("/proc/self/fd"))]
    if do == "write":
        with open(transaction["file"], "w") as file:
            file.write("x")
    if do == "pid":
        return [os.getpid(), a]
    return [a * 2, 1.0]
"""


def tx(do: str = "", **more: Any) -> bytes:
    return calls.pack_transaction({"a": 2, "do": do, **more})


def run(batch: CodeBatch, *payloads: bytes) -> list[Any]:
    """Return vectors and errors."""
    outcomes = batch.run(list(payloads), LIMIT_S)
    return [np.frombuffer(one, "<f4").tolist() if isinstance(one, bytes) else one for one in outcomes]


def test_requests_are_answered_in_their_order(make_batch: MakeBatch) -> None:
    batch = make_batch(OBEDIENT, count=2)
    found = run(batch, *(calls.pack_transaction({"a": n / 3}) for n in range(300)))
    assert found == [[float(np.float32(n / 3 * 2)), 1.0] for n in range(300)]
    assert batch.workers.counters()["answered"] == 300


def test_a_missing_value_is_carried(make_batch: MakeBatch) -> None:
    (vector,) = run(make_batch(OBEDIENT), tx("nan"))
    assert np.isnan(vector[0])
    assert vector[1] == 2.0


@pytest.mark.parametrize(
    ("do", "rule", "says"),
    [
        ("raise", "exception", r"KeyError: 'no such thing' \(pack/__init__.py, line \d+\)"),
        ("exit", "exception", "SystemExit: bye"),
        ("vanish", "crash", "ended with 7"),
        ("segfault", "crash", "SIGSEGV"),
        ("garble", "crash", "garbage"),
        ("close", "crash", "closed its link"),
        ("leak", "memory", "memory_mb"),
        ("loop", "budget", "budget_ms"),
        ("loop in C", "budget", "budget_ms"),
        ("short", "shape", "gave 1 features, declared are 2"),
        ("none", "type", "NoneType"),
        ("text", "type", "'one' is a str"),
        ("huge", "infinite", "'double'"),
        ("infinite", "infinite", "'one'"),
        ("write", "exception", "File too large"),
    ],
)
def test_a_failure_is_its_own_requests_error_alone(
    make_batch: MakeBatch, tmp_path: Path, do: str, rule: str, says: str
) -> None:
    batch = make_batch(OBEDIENT, budget_s=0.5 if rule == "budget" else 10, memory_bytes=512 << 20)
    bad = tx(do, file=str(tmp_path / "x"))
    found = run(batch, tx(), tx(), bad, *(tx() for _ in range(20)))
    error = found.pop(2)
    assert isinstance(error, CodeFailedError)
    assert (error.field, error.rule) == ("features", rule), error
    assert re.search(says, error.detail), error.detail
    assert found == [[4.0, 1.0]] * 22
    assert batch.workers.counters()["failed"] == 1


def test_a_refusal_of_the_package_names_field_and_rule(make_batch: MakeBatch) -> None:
    (error,) = run(make_batch(OBEDIENT), tx("refuse"))
    assert isinstance(error, TransactionRefusedError)
    assert (error.field, error.rule, error.detail) == ("a", "range", "must be small")


def test_poison_among_many_harms_no_other_and_is_begun_once(make_batch: MakeBatch) -> None:
    batch = make_batch(OBEDIENT, count=1, spares=1)
    payloads = [tx("vanish") if n in (5, 6, 30, 47) else tx() for n in range(60)]
    found = run(batch, *payloads)
    failed = [n for n, one in enumerate(found) if isinstance(one, CodeFailedError)]
    assert failed == [5, 6, 30, 47]
    assert all(one == [4.0, 1.0] for n, one in enumerate(found) if n not in failed)
    counted = batch.workers.counters()
    assert counted["crashes"] == 4
    assert counted["resent"] > 0


@pytest.mark.parametrize("do", ["print", "fork", "fork and return"])
def test_what_a_package_does_beside_its_answer_harms_nobody(make_batch: MakeBatch, do: str) -> None:
    batch = make_batch(OBEDIENT)
    assert run(batch, *(tx(do if n % 10 == 0 else "") for n in range(40))) == [[4.0, 1.0]] * 40
    group = batch.workers.pids()
    batch.workers.close()
    deadline = time.monotonic() + LIMIT_S
    while left := [p.pid for p in psutil.process_iter() if _group(p.pid) in group]:
        assert time.monotonic() < deadline, left


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def test_a_worker_sees_none_of_its_nodes_environment_and_descriptors(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCOREWIRE_DSN", "postgresql://secret")
    with Path("/dev/null").open("rb") as held:
        os.set_inheritable(held.fileno(), True)
        ((environment, descriptors),) = run(make_batch(OBEDIENT), tx("environment"))
    assert environment <= 9
    # Its three, its socket, and the one by which it looks.
    assert descriptors == 5


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_costs_the_request_in_its_hand_alone(
    make_batch: MakeBatch, how: signal.Signals
) -> None:
    batch = make_batch(OBEDIENT, budget_s=1.0)
    first = batch.workers.pids()[0]
    os.kill(first, how)
    found = run(batch, *(tx() for _ in range(30)))
    failed = [one for one in found if one != [4.0, 1.0]]
    assert len(failed) <= 1
    assert first not in batch.workers.pids()


def test_two_versions_of_one_package_run_at_once(make_batch: MakeBatch) -> None:
    source = "STATE = {version}\ndef features(transaction):\n    return [STATE * transaction['a'], 1]\n"
    first = make_batch(source.format(version=1), version="1.0")
    second = make_batch(source.format(version=20), version="2.0")
    assert run(first, tx()) + run(second, tx()) + run(first, tx()) == [[2, 1], [40, 1], [2, 1]]


def test_a_class_is_made_once_and_called_for_each(make_batch: MakeBatch) -> None:
    source = """
    class Counting:
        def __init__(self):
            self.calls = 0
        def __call__(self, transaction):
            self.calls += 1
            return (self.calls, transaction["a"])
    """
    # The first call is the warm-up's.
    assert run(make_batch(source, target="Counting"), tx(), tx()) == [[2, 2], [3, 2]]


def test_what_was_damaged_after_it_was_prepared_is_made_anew_before_a_successor_starts(
    make_batch: MakeBatch, tmp_path: Path
) -> None:
    batch = make_batch(OBEDIENT, spares=0)
    (file,) = (tmp_path / "code").glob("*/*/pack/__init__.py")
    file.chmod(0o644)
    file.write_text("def features(t): return [666, 666]")
    found = run(batch, tx("vanish"), tx(), tx())
    assert isinstance(found[0], CodeFailedError)
    assert found[1:] == [[4.0, 1.0]] * 2


def test_arrays_are_as_good_as_lists_and_checked_alike(make_batch: MakeBatch) -> None:
    source = """
    import numpy as np
    def features(transaction):
        return np.array(transaction["values"], transaction["dtype"])
    """

    def ask(values: list[Any], dtype: str = "f8") -> bytes:
        return calls.pack_transaction({"values": values, "dtype": dtype})

    batch = make_batch(source)
    found = run(batch, ask([1.5, 2]), ask([1, 2], "i4"), ask([1]), ask(["x", "y"], "U1"), ask([1e300, 1]))
    assert found[:2] == [[1.5, 2.0], [1.0, 2.0]]
    assert [error.rule for error in found[2:]] == ["shape", "type", "infinite"]


def test_what_waits_too_long_expires_and_what_is_too_much_is_refused(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(OBEDIENT, spares=0)
    monkeypatch.setattr("actors.code.queue.MAX_WAITING", 5)
    outcomes: list[Any] = []
    batch.workers.submit(tx("sleep", s=1.0), time.monotonic() + LIMIT_S, outcomes.append)
    soon = time.monotonic() + 0.2
    for _ in range(WINDOW - 1 + 5):
        batch.workers.submit(tx(), soon, outcomes.append)
    batch.workers.submit(tx(), soon, outcomes.append)
    assert isinstance(outcomes[-1], OverloadedError)
    run(batch, *[tx()] * 0)
    deadline = time.monotonic() + LIMIT_S
    while len(outcomes) < 1 + WINDOW - 1 + 5 + 1:
        assert time.monotonic() < deadline
        batch._wait(deadline)
    assert sum(isinstance(one, DeadlineExceededError) for one in outcomes) == 5
    assert batch.workers.in_flight() == 0


def test_each_waits_until_its_own_deadline_whatever_waits_before_it(make_batch: MakeBatch) -> None:
    batch = make_batch(OBEDIENT, spares=0)
    workers, outcomes = batch.workers, dict[str, Any]()
    late = time.monotonic() + LIMIT_S
    workers.submit(tx("sleep", s=3.0), late, partial(outcomes.__setitem__, "first"))
    for number in range(WINDOW - 1):
        workers.submit(tx(), late, partial(outcomes.__setitem__, f"held {number}"))
    workers.submit(tx(), late, partial(outcomes.__setitem__, "waits long"))
    workers.submit(tx(), time.monotonic() + 0.1, partial(outcomes.__setitem__, "waits shortly"))
    while not outcomes:
        batch._wait(late)
    # The one worker is still at its first request.
    assert list(outcomes) == ["waits shortly"]
    assert isinstance(outcomes["waits shortly"], DeadlineExceededError)
    while len(outcomes) < WINDOW + 2:
        assert time.monotonic() < late
        batch._wait(late)
    assert isinstance(outcomes["waits long"], bytes)
    assert workers.in_flight() == 0


LOGGING = """
import logging
logging.getLogger("mine").info("loaded")

def features(transaction):
    logging.debug("too fine")
    try:
        1 / transaction["a"]
    except ZeroDivisionError:
        logging.exception("no\\nquotient of %s", transaction["a"])
    for number in range(int(transaction.get("b", 0))):
        logging.warning("line %d", number)
    return [1.0, 2.0]
"""


def test_what_a_package_logs_stands_in_the_nodes_log_within_bounds(
    make_batch: MakeBatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    batch = make_batch(LOGGING, spares=0)
    (pid,) = batch.workers.pids()
    found: list[Any] = []
    about = {"transaction": "t1", "release": 3}
    for a, b in ((0, 1), (1, 1_000)):
        payload = calls.pack_transaction({"a": a, "b": b})
        batch.workers.submit(payload, time.monotonic() + LIMIT_S, found.append, about)
    give_up_at = time.monotonic() + LIMIT_S
    while len(found) < 2:
        assert time.monotonic() < give_up_at
        batch._wait(give_up_at)
    records = [record for record in caplog.records if record.name == "actors.code.package_log"]
    texts = [record.getMessage() for record in records]
    assert "mine: loaded" in texts
    (error,) = [record for record in records if record.levelno == logging.ERROR]
    assert error.getMessage().startswith(r"root: no\nquotient of 0\nTraceback (most recent call last):")
    assert r"\nZeroDivisionError: " in error.getMessage()
    assert (error.transaction, error.release, error.worker) == ("t1", 3, pid)  # type: ignore[attr-defined]
    assert error.package.startswith(batch.workers.stage.name)  # type: ignore[attr-defined]
    # All of the first request, and twenty of the second.
    assert texts.count("root: line 0") == 2
    assert len([text for text in texts if text.startswith("root: line")]) == 1 + 20
    assert not any("too fine" in text for text in texts)
    line = json.loads(JsonFormatter({"role": "scorer"}).format(error))
    assert (line["level"], line["transaction"], line["release"], line["role"]) == ("error", "t1", 3, "scorer")


def test_a_package_that_logs_without_end_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = PackageLog("p 1")
    for number in range(10 * MOST_A_SECOND):
        log.take(["log", logging.INFO, "a", str(number)], 1, {})
    # It may have begun in one second and ended in the next.
    assert len(caplog.records) <= 3 * MOST_A_SECOND
    log._second -= 1
    log.take(["log", logging.INFO, "a", "later"], 1, {})
    assert "lines of it were left out" in caplog.records[-2].getMessage()
    for garbage in (["log"], ["log", "a", "b", "c"], ["log", 1, 2, 3], ["log", 1, "a", "b", "c"]):
        with pytest.raises(GarbageError):
            log.take(garbage, 1, {})


def test_a_package_that_does_not_load_says_why(make_stage: MakeStage) -> None:
    for source, says in (
        ("import no_such_module_at_all", "No module named"),
        ("x = 1 / 0", r"ZeroDivisionError.*line 1"),
        ("raise SystemExit(3)", "SystemExit"),
        ("import os; os._exit(3)", "ended with 3"),
        ("features = 7", "not a function"),
        ("pass", "has no attribute 'features'"),
    ):
        with pytest.raises(CodeStartError, match=says):
            warm_up(make_stage(source), 1)


def test_a_package_that_loads_for_ever_is_given_up(make_stage: MakeStage) -> None:
    with pytest.raises(CodeStartError, match="start_s"):
        warm_up(make_stage("while True: pass", start_s=0.5), 1)


def test_golden_values_are_found_again_or_the_package_is_refused(make_stage: MakeStage) -> None:
    warm_up(make_stage(OBEDIENT), 2)
    with pytest.raises(GoldenMismatchError, match=r"golden 0: 'double' is 6\.0, declared is 4\.0"):
        warm_up(make_stage("def features(t): return [t['a'] * 3, 1]"), 1)
    with pytest.raises(GoldenMismatchError, match=r"golden 0: .*KeyError"):
        warm_up(make_stage("def features(t): return t['nothing']"), 1)


def test_workers_that_were_found_good_serve_on_without_another_start(make_stage: MakeStage) -> None:
    stage = make_stage(OBEDIENT)
    warm_up(stage, 2)
    with CodeBatch(stage, spares=1) as batch:
        assert batch.workers.ready() == 2
        assert run(batch, tx()) == [[4.0, 1.0]]
        assert batch.workers.counters()["started"] == 0
        pids = batch.workers.pids()
    del batch, stage
    # Nobody holds the stage any more: its workers are gone.
    assert not any(map(psutil.pid_exists, pids))


def test_a_decision_gives_an_outcome_and_declared_reasons(make_batch: MakeBatch) -> None:
    source = """
    def decide(transaction, scores):
        if transaction.get("odd"):
            return transaction["odd"]
        return ("decline", ["high"]) if scores["p"] > 0.5 else ("approve", [])
    """
    declared = """
    reasons = ["high"]
    [[golden]]
    transaction = { a = 1 }
    scores = { p = 0.9 }
    outcome = "decline"
    reasons = ["high"]
    """
    batch = make_batch(source, declared, group="scorewire.decision", target="decide")
    payloads = [calls.pack_case({}, {"p": 0.9}), calls.pack_case({}, {"p": 0.1})]
    odd = ["approve", ["maybe", []], ["approve", ["undeclared"]], ["approve", "high"]]
    found = batch.run([*payloads, *(calls.pack_case({"odd": one}, {"p": 0}) for one in odd)], LIMIT_S)
    decided = [calls.read_decision(one) for one in found[:2]]
    assert [(one.outcome, one.reasons) for one in decided] == [("decline", ("high",)), ("approve", ())]
    assert [error.rule for error in found[2:]] == ["shape", "type", "type", "type"]


def test_a_model_scores_a_batch_of_rows(make_batch: MakeBatch) -> None:
    source = """
    import numpy as np
    def score(rows):
        if rows[0, 0] < 0:
            return np.full((len(rows), 2), np.nan)
        return np.stack([1 - rows[:, 0], rows[:, 0]], 1)
    """
    declared = """
    features = ["a", "b"]
    outputs = ["no", "yes"]
    [[golden]]
    vector = [0.25, 1]
    scores = [0.75, 0.25]
    """
    batch = make_batch(source, declared, group="scorewire.model", target="score")
    rows = np.array([[0.5, 1], [0.25, 1]], np.float32)
    good: Any
    bad: Any
    good, bad = batch.run([calls.pack_rows(rows), calls.pack_rows(-rows)], LIMIT_S)
    assert calls.read_scores(good, 2, 2).tolist() == [[0.5, 0.5], [0.75, 0.25]]
    assert (bad.field, bad.rule) == ("model", "infinite")


def test_workers_die_with_their_node_even_in_a_loop(make_stage: MakeStage, tmp_path: Path) -> None:
    stage = make_stage(OBEDIENT, budget_s=1.0)
    wheel = next((tmp_path / "wheels").glob("*.whl"))
    script = f"""
import sys, time
from pathlib import Path
from actors.code import calls
from actors.code.batch import CodeBatch
from actors.code.frames import GarbageError
from actors.code.package_log import MOST_A_SECOND, PackageLog
from actors.code.prepare import open_stage
from actors.code.limits import CodeLimits
stage = open_stage(Path({str(wheel)!r}), {stage.digest!r}, Path({str(tmp_path / "code")!r}), CodeLimits(1.0))
batch = CodeBatch(stage, spares=1)
assert batch.wait_ready(30)
while batch.workers.ready() < 2:
    batch._wait(time.monotonic() + 1)
batch.workers.submit(calls.pack_transaction({{"a": 1, "do": "loop in C"}}), time.monotonic() + 60, print)
print(*batch.workers.pids(), flush=True)
time.sleep(60)
"""
    node = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    pids = [int(pid) for pid in node.stdout.readline().split()]
    assert len(pids) == 2
    node.kill()
    node.wait()
    node.stdout.close()
    deadline = time.monotonic() + LIMIT_S
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline, "a worker outlives its node"
        time.sleep(0.01)
