"""Processes: exit codes of a supervised one, and the launcher that keeps them running."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from actors import launcher
from actors.launcher import PARENT_FD, Launcher, ProcessSpec
from actors.supervisor import BOOT_FAILED, ESCALATED, STOPPED

ROOT = Path(__file__).parents[2]
LIMIT_S = 20.0

TOP = """
import sys
from actors.child import Child
from actors.supervisor import ChildSpec, Supervisor, run_top

class Worker(Child):
    def on_start(self):
        if sys.argv[1] == "boot":
            raise RuntimeError("no")
    def on_stop(self):
        print("stopped", flush=True)
    def on_receive(self, message):
        raise ValueError(message)

def start():
    ref = Worker.start()
    if sys.argv[1] == "crash":
        ref.tell("hurt")
    return ref

top = lambda: Supervisor.start([ChildSpec("worker", start)], max_restarts=2, period_s=60)
print("up", flush=True)
code = run_top(top)
print("end", flush=True)
sys.exit(code)
"""


@pytest.mark.parametrize(("how", "code"), [("crash", ESCALATED), ("boot", BOOT_FAILED)])
def test_a_process_ends_with_a_code_that_says_why(how: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", TOP, how], cwd=ROOT, timeout=LIMIT_S, check=False)
    assert done.returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_process_in_order(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TOP, "run"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    wait_until(lambda: len(psutil.Process(process.pid).threads()) > 2)
    process.send_signal(number)
    assert process.communicate(timeout=LIMIT_S)[0] == "stopped\nend\n"
    assert process.returncode == STOPPED


def wait_until(condition: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    return found


_WAIT = "import signal, time; signal.signal(signal.SIGTERM, {}); print('up', flush=True); time.sleep(60)"
WAIT = _WAIT.format("lambda *_: exit(0)")
DEAF = _WAIT.format("signal.SIG_IGN")


def spec(name: str, code: str = WAIT, *more: str) -> ProcessSpec:
    return ProcessSpec(name, (sys.executable, "-c", code, *more))


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
    launchers = []

    def start(*specs: ProcessSpec) -> Launcher:
        launchers.append(Launcher(specs, tmp_path))
        launchers[-1].start()
        return launchers[-1]

    yield start
    for one in launchers:
        one.stop()


def is_up(tmp_path: Path, name: str, times: int = 1) -> Callable[[], bool]:
    return lambda: (tmp_path / f"{name}.log").read_text().count("up") >= times


def test_a_killed_process_is_started_again(launch: Callable[..., Launcher], tmp_path: Path) -> None:
    running = launch(spec("a"), spec("b"))
    wait_until(is_up(tmp_path, "a"))
    old = running.pids()["a"]
    os.kill(old, signal.SIGKILL)
    new = wait_until(lambda: pid if (pid := running.pids().get("a")) not in (None, old) else None)
    assert psutil.pid_exists(new)
    assert running.restarts() == {"a": 1, "b": 0}


def test_a_process_that_dies_again_and_again_is_started_less_and_less_often(
    launch: Callable[..., Launcher],
) -> None:
    running = launch(spec("a", "print('up')"))
    wait_until(lambda: running.restarts()["a"] >= 4)
    # By now the pause is 0.8 s, 20 % less at most, and it grows.
    began, at = time.monotonic(), running.restarts()["a"]
    wait_until(lambda: running.restarts()["a"] > at + 1)
    assert time.monotonic() - began > 0.6


def test_a_process_that_could_not_boot_waits_longest(
    launch: Callable[..., Launcher], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(launcher, "LONGEST_PAUSE_S", 30.0)
    running = launch(spec("a", f"exit({BOOT_FAILED})"))
    wait_until(lambda: "a ended with 3" in caplog.text)
    assert running.restarts()["a"] == 0
    assert running.pids() == {}


def test_stopping_ends_all_processes_even_those_that_do_not_listen(
    launch: Callable[..., Launcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "STOP_S", 1.0)
    running = launch(spec("a"), spec("deaf", DEAF), spec("stopped"))
    for name in ("a", "deaf", "stopped"):
        wait_until(is_up(tmp_path, name))
    pids = dict(running.pids())
    os.kill(pids["stopped"], signal.SIGSTOP)
    running.stop()
    running.stop()
    assert not [pid for pid in pids.values() if psutil.pid_exists(pid)]


ORPHAN_MAKER = """
import sys, time
from pathlib import Path
from actors.launcher import Launcher, PARENT_FD, ProcessSpec
node = "import sys, time; from actors.launcher import watch_parent as w; w(int(sys.argv[1])); time.sleep(60)"
launcher = Launcher([ProcessSpec("n", (sys.executable, "-c", node, PARENT_FD))], Path(sys.argv[1]))
launcher.start()
print(launcher.pids()["n"], flush=True)
time.sleep(60)
"""


def test_no_process_outlives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ORPHAN_MAKER, str(tmp_path)]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    orphan = psutil.Process(pid)
    parent.kill()
    parent.communicate(timeout=LIMIT_S)
    gone, left = psutil.wait_procs([orphan], LIMIT_S)
    assert gone
    assert not left


def test_a_terminals_interrupt_reaches_the_launcher_alone(
    launch: Callable[..., Launcher], tmp_path: Path
) -> None:
    running = launch(spec("a", WAIT, PARENT_FD))
    wait_until(is_up(tmp_path, "a"))
    assert os.getsid(running.pids()["a"]) != os.getsid(0)


def test_a_node_whose_address_is_taken_ends_with_boot_failed_and_says_why(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "scorewire.toml"
        config.write_text(f'dsn = "host=/nowhere"\n[preprocessor]\nport = {taken.getsockname()[1]}\n')
        command = [sys.executable, "run.py", "node", "preprocessor", f"--config={config}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == BOOT_FAILED
    assert "is another node there?" in done.stderr
