from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from shadow import spool as module
from shadow.errors import SpoolError
from shadow.spool import Spool

ROOT = Path(__file__).parents[2]


def record(number: int) -> tuple[bytes, bytes]:
    return b"k%d" % (number % 3), b"%d" % number * 10


def values(spool: Spool) -> list[bytes]:
    return [entry.value for entry in spool.read(1_000_000)]


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    found = Spool(tmp_path / "spool", 1 << 20)
    yield found
    found.close()


def again(spool: Spool, max_bytes: int = 1 << 20) -> Spool:
    """Open the directory as a process after this one would."""
    spool.close()
    return Spool(spool._directory, max_bytes)


def test_what_goes_in_comes_out_in_its_order_and_leaves_nothing_behind(spool: Spool) -> None:
    assert spool.append([record(n) for n in range(100)]) == 100
    entries = spool.read(60) + spool.read(60)
    assert [(one.key, one.value) for one in entries] == [record(n) for n in range(100)]
    assert spool.read(1) == []
    spool.done(entries[49].number)
    assert len(spool) == 50
    spool.rewind()
    assert spool.read(1)[0].value == record(50)[1]
    spool.done(entries[-1].number)
    assert len(spool) == 0
    assert list(spool._directory.glob("*.spool")) == []


def test_what_is_appended_while_it_is_read_is_read_as_well(spool: Spool) -> None:
    for number in range(50):
        spool.append([record(number)])
        assert values(spool) == [record(number)[1]]
    assert spool.corrupt == 0


def test_another_process_finds_what_was_left(spool: Spool) -> None:
    spool.append([record(n) for n in range(10)])
    second = again(spool)
    assert len(second) == 10
    second.append([record(10)])
    assert values(second) == [record(n)[1] for n in range(11)]
    second.close()
    spool._lock = os.open("/dev/null", os.O_RDONLY)


def test_two_tees_do_not_share_a_spool(spool: Spool) -> None:
    with pytest.raises(SpoolError, match="another tee's"):
        Spool(spool._directory, 1 << 20)


def test_beyond_its_bound_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 4000)
    for number in range(200):
        spool.append([record(number)])
        assert spool.size <= 4000 + 100
    assert spool.dropped == 200 - len(spool)
    assert values(spool) == [record(n)[1] for n in range(spool.dropped, 200)]
    spool.close()


def test_what_is_being_read_may_go_meanwhile(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 4000)
    spool.append([record(n) for n in range(40)])
    read = spool.read(5)
    for number in range(40, 200):
        spool.append([record(number)])
    spool.done(read[-1].number)
    assert values(spool) == [record(n)[1] for n in range(spool.dropped, 200)]
    spool.close()


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("reopened", [False, True])
def test_a_damaged_record_is_left_out_and_counted_and_the_others_are_not(
    spool: Spool, reopened: bool
) -> None:
    spool.append([record(n) for n in range(10)])
    (path,) = spool._directory.glob("*.spool")
    places = path.read_bytes().index(record(3)[1]), path.read_bytes().index(record(9)[1])
    for place in places:
        flip(path, place)
    found = again(spool) if reopened else spool
    entries = found.read(100)
    assert [one.value for one in entries] == [record(n)[1] for n in range(9) if n != 3]
    assert found.corrupt == 2
    found.done(entries[-1].number)
    assert len(found) == 0
    if reopened:
        found.close()
        spool._lock = os.open("/dev/null", os.O_RDONLY)


def test_a_segment_that_is_gone_or_junk_does_not_hold_up_the_others(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 4000)
    spool.append([record(n) for n in range(110)])
    first, second, *_ = sorted(tmp_path.glob("*.spool"))
    first.unlink()
    second.write_bytes(b"junk" * 1000)
    entries = spool.read(100)
    assert entries
    assert len(entries) + spool.corrupt == 110
    assert entries[-1].value == record(109)[1]
    spool.done(entries[-1].number)
    assert len(spool) == 0
    spool.close()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_happens_to_a_file_what_is_read_is_what_was_written(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        spool = Spool(Path(name), 1 << 20)
        spool.append([record(n) for n in range(20)])
        (path,) = Path(name).glob("*.spool")
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        second = again(spool)
        read = values(second)
        assert [one for one in read if one not in {record(n)[1] for n in range(20)}] == []
        assert read == sorted(read, key=lambda one: int(one[: len(one) // 10]))
        second.close()


class AgainstAList(RuleBasedStateMachine):
    """The spool and a list are told the same, and must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.spool = Spool(Path(self.directory.name), 1 << 20)
        self.spool._segment_bytes = 100
        self.model: list[bytes] = []
        self.read: list[module.Entry] = []
        self.count = 0

    @rule(n=st.integers(1, 8))
    def append(self, n: int) -> None:
        new = [(b"k", b"%06d" % (self.count + i)) for i in range(n)]
        self.count += n
        assert self.spool.append(new) == n
        self.model += [value for _, value in new]

    @rule(n=st.integers(1, 8))
    def look(self, n: int) -> None:
        before = len(self.read)
        self.read += self.spool.read(n)
        assert [one.value for one in self.read] == self.model[: len(self.read)]
        assert len(self.read) == min(before + n, len(self.model))

    @precondition(lambda self: self.read)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        n = data.draw(st.integers(1, len(self.read)))
        self.spool.done(self.read[n - 1].number)
        self.model, self.read = self.model[n:], self.read[n:]
        assert len(self.spool) == len(self.model)

    @rule()
    def rewind(self) -> None:
        self.spool.rewind()
        self.read = []

    @rule()
    def reopen(self) -> None:
        """A new process finds all that is not done, and of the oldest segment also what is."""
        self.spool.close()
        self.spool = Spool(Path(self.directory.name), 1 << 20)
        self.spool._segment_bytes = 100
        everything = values(self.spool)
        assert everything[len(everything) - len(self.model) :] == self.model
        self.model, self.read = everything, []
        self.spool.rewind()

    def teardown(self) -> None:
        assert self.spool.corrupt == 0
        self.spool.close()
        self.directory.cleanup()


AgainstAList.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgainstAList = AgainstAList.TestCase

KILLED = """
import sys
from pathlib import Path
from shadow.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30)
spool._segment_bytes = 4000
number = 0
while True:
    spool.append([(b"k", b"%08d" % (number + i)) for i in range(7)])
    number += 7
    print(number, flush=True)
"""


def test_what_was_said_to_be_safe_is_there_after_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    safe = 0
    for line in child.stdout:
        safe = int(line)
        if safe > 500:
            break
    child.send_signal(signal.SIGKILL)
    said = child.stdout.read().split()
    child.wait()
    child.stdout.close()
    safe = max([safe, *map(int, said)])
    spool = Spool(tmp_path, 1 << 30)
    found = [int(one) for one in values(spool)]
    assert found == list(range(len(found)))
    assert len(found) >= safe
    spool.close()


def test_a_disk_that_takes_no_more_is_told_and_goes_on_once_there_is_room(tmp_path: Path) -> None:
    """A limit on the size of files is refused as a full disk is: in the middle of a write."""
    spool = Spool(tmp_path, 1 << 20)
    spool.append([record(n) for n in range(5)])
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (spool.size + 5, limit[1]))
        safe = spool.append([record(n) for n in range(5, 500)])
        assert 0 < safe < 495
        assert "too large" in spool.problem.lower()
        assert len(spool) == 5 + safe
        resource.setrlimit(resource.RLIMIT_FSIZE, (5, limit[1]))
        assert spool.append([record(5)]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert spool.append([record(n) for n in range(5 + safe, 500)]) == 495 - safe
    assert spool.problem == ""
    assert values(spool) == [record(n)[1] for n in range(500)]
    second = again(spool)
    assert values(second) == [record(n)[1] for n in range(500)]
    second.close()


def test_a_full_disk_is_told_and_loses_nothing_that_was_safe(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here: run it as root of its own mounts")
    try:
        spool = Spool(small / "spool", 1 << 20)
        big = b"x" * 10_000
        safe = spool.append([(b"k", big)] * 20)
        assert 0 < safe < 20
        assert "No space left" in spool.problem
        assert spool.append([(b"k", big)]) == 0
        assert [len(one) for one in values(spool)] == [10_000] * safe
        spool.done(safe - 1)
        assert spool.append([(b"k", big)]) == 1
        assert len(spool) == 1
        spool.close()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
