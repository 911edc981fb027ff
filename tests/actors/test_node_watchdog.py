"""The watchdog, the black box and the words to the launcher: what hangs is found, replaced and explained."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import launcher, notify
from actors.blackbox import files_of, open_box, read_notes
from actors.launcher import Launcher, ProcessSpec
from actors.node_watchdog import HUNG

ROOT = Path(__file__).parents[2]
LIMIT_S = 30.0

NODE = """
import sys, threading, time
from pathlib import Path
from actors.blackbox import open_box
from actors.child import Child
from actors.supervisor import ChildSpec, Supervisor, run_top

class Worker(Child):
    watched = sys.argv[2] != "unwatched"
    def on_receive(self, message):
        box.note("begins with " + message)
        lock = threading.Lock()
        lock.acquire()
        if message == "deadlock":
            lock.acquire()
        while message == "loop":
            pass
        if message == "c":
            time.sleep(1000)
        if message == "brief":
            return

box = open_box(Path(sys.argv[1]), "node")
def start():
    ref = Worker.start()
    ref.tell("c" if sys.argv[2] == "unwatched" else sys.argv[2])
    return ref
code = run_top(lambda: Supervisor.start([ChildSpec("worker", start)]), hung_s=1.0, box=box)
sys.exit(code)
"""


def wait_until(condition: Callable[[], Any], what: str = "") -> Any:
    give_up_at = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at, what
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("how", ["deadlock", "loop", "c"])
def test_an_actor_that_hangs_ends_its_process_which_says_where_it_hung(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", NODE, str(tmp_path), how]
    done = subprocess.run(command, cwd=ROOT, timeout=LIMIT_S, check=False)
    assert done.returncode == HUNG
    ring, crash = files_of(tmp_path, "node")
    text = crash.read_text()
    assert "Worker has been at one message for" in text
    assert "in on_receive" in text
    assert any(note == f"begins with {how}" for _, note in read_notes(ring))


@pytest.mark.parametrize("how", ["brief", "unwatched"])
def test_an_actor_that_is_done_soon_or_may_take_long_is_left_alone(tmp_path: Path, how: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", NODE, str(tmp_path), how], cwd=ROOT)
    ring, _ = files_of(tmp_path, "node")
    wait_until(lambda: any("begins with" in note for _, note in read_notes(ring)))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.5)
    process.terminate()
    assert process.wait(LIMIT_S) == 0


def test_notes_survive_a_kill_and_the_oldest_make_room(tmp_path: Path) -> None:
    ring, crash = files_of(tmp_path, "n")
    code = (
        "import os, signal, sys; from pathlib import Path; from actors.blackbox import BlackBox\n"
        "box = BlackBox(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "for n in range(1000): box.note(f'note {n} ' + 'x' * 500)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(ring), str(crash)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    notes = [text for _, text in read_notes(ring)]
    assert [text.split()[1] for text in notes] == [str(n) for n in range(744, 1000)]
    assert read_notes(tmp_path / "none.ring") == []


def test_stacks_are_written_on_request_and_the_process_goes_on(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", NODE, str(tmp_path), "unwatched"], cwd=ROOT)
    ring, crash = files_of(tmp_path, "node")
    wait_until(lambda: any("begins with" in note for _, note in read_notes(ring)))
    process.send_signal(signal.SIGUSR1)
    wait_until(lambda: "in on_receive" in crash.read_text())
    assert process.poll() is None
    process.kill()
    process.wait(LIMIT_S)


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


SAYS = """
import signal, sys, time
from pathlib import Path
from actors import notify
from actors.blackbox import open_box
open_box(Path(sys.argv[1]), "a")
signal.signal(signal.SIGTERM, lambda *_: (notify.tell(notify.STOPPING), exit(0)))
notify.tell(notify.READY, notify.WATCHDOG)
def deep_inside():
    time.sleep(1000)
if sys.argv[2] == "falls silent":
    deep_inside()
while True:
    time.sleep(0.1)
    notify.tell(notify.WATCHDOG)
"""


def says(tmp_path: Path, how: str) -> ProcessSpec:
    return ProcessSpec(
        "a",
        (sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SAYS}", str(tmp_path), how),
    )


def test_a_process_that_falls_silent_is_ended_with_its_stacks_written_and_replaced(
    launch: Callable[..., Launcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "SILENT_S", 1.0)
    running = launch(says(tmp_path, "falls silent"))
    wait_until(lambda: running.restarts()["a"] >= 1)
    _, crash = files_of(tmp_path, "a")
    text = crash.read_text()
    assert "in deep_inside" in text
    assert "a ended: killed by SIGABRT" in text
    assert running.states()[0].last_exit == -signal.SIGABRT


def test_a_stopped_process_is_replaced_as_well(
    launch: Callable[..., Launcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "SILENT_S", 2.0)
    running = launch(says(tmp_path, "goes on"))
    wait_until(lambda: running.states()[0].ready)
    old = running.pids()["a"]
    os.kill(old, signal.SIGSTOP)
    wait_until(lambda: running.pids().get("a") not in (None, old))
    wait_until(lambda: running.states()[0].ready)


def test_a_launcher_replaces_adds_and_removes_and_none_of_it_counts_as_a_death(
    launch: Callable[..., Launcher], tmp_path: Path
) -> None:
    running = launch(says(tmp_path, "goes on"))
    wait_until(lambda: running.states()[0].ready)
    old = running.pids()["a"]
    running.replace("a")
    assert running.pids()["a"] != old
    wait_until(lambda: running.states()[0].ready)
    running.add(ProcessSpec("b", (sys.executable, "-c", "import time; time.sleep(100)")))
    assert set(running.pids()) == {"a", "b"}
    running.remove("b")
    assert set(running.pids()) == {"a"}
    state = running.states()[0]
    assert (state.restarts, state.last_exit) == (0, 0)
    with pytest.raises(KeyError):
        running.remove("b")


def test_what_dies_again_and_again_is_visible_with_its_pause(launch: Callable[..., Launcher]) -> None:
    running = launch(ProcessSpec("a", (sys.executable, "-c", "exit(7)")))
    state = wait_until(lambda: one if (one := running.states()[0]).restarts >= 3 and one.pause_s else None)
    assert (state.pid, state.last_exit, state.ready) == (None, 7, False)


def test_words_reach_a_socket_of_systemd_and_nobody_is_harmed_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.delenv(notify.NOTIFY_SOCKET, raising=False)
    notify.tell(notify.READY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv(notify.NOTIFY_SOCKET, str(tmp_path / "notify"))
        notify.tell(notify.READY, notify.WATCHDOG)
        assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"
    notify.tell(notify.READY)
    ear = notify.Ear()
    monkeypatch.setenv(notify.NOTIFY_SOCKET, ear.name)
    notify.tell(notify.STOPPING)
    assert ear.heard() == [(os.getpid(), ["STOPPING=1"])]
    ear.close()


def test_a_full_disk_costs_the_black_box_and_not_the_node(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert open_box(tmp_path / "file" / "logs", "n") is None
