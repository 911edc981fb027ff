from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.transport.conftest import wait_until
from transport.errors import TeeRingError
from transport.tee_files import LEAST_RING_BYTES, make_file, room_in
from transport.tee_record import RawRecord, pack_record, unpack_record
from transport.tee_ring import MOST_LEFT, RingReader, TeeRing

HEADER = 4096
PARTS = st.binary(max_size=20)
RECORDS = st.builds(
    RawRecord,
    st.integers(0, 2**64 - 1),
    st.floats(allow_nan=False),
    st.integers(0, 255),
    PARTS,
    PARTS,
    PARTS,
    PARTS,
)
#: A writer that says when it begins, and then offers records of many sizes until it is killed.
WRITER = """
import sys
from pathlib import Path
from transport.tee_ring import TeeRing

ring = TeeRing(Path(sys.argv[1]), "killed", int(sys.argv[2]))
print("begins", flush=True)
for seq in range(1, 1 << 60):
    ring.offer(float(seq), 0, b"", str(seq).encode() * (seq % 97), b"", b"")
"""


@given(RECORDS)
def test_a_record_comes_back_as_it_was(record: RawRecord) -> None:
    assert unpack_record(pack_record(*record)) == record


@given(st.binary(max_size=80) | RECORDS.map(lambda record: pack_record(*record)))
def test_whatever_the_bytes_they_are_a_record_or_an_error_of_ours(data: bytes) -> None:
    for cut in (data, data[:-1], data + b"x"):
        with suppress(TeeRingError):
            unpack_record(cut)


def content(seq: int, size: int) -> bytes:
    return (str(seq).encode() * (size // len(str(seq)) + 1))[:size]


class Rig:
    """A ring whose records tell their number and size, and who reads it."""

    def __init__(self, directory: Path, max_bytes: int = 0) -> None:
        self.ring = TeeRing(directory, "node", max_bytes)
        self.reader = RingReader(self.ring.path)
        self.sent = 0

    def offer(self, *sizes: int) -> None:
        for size in sizes:
            self.sent += 1
            self.ring.offer(float(size), 1, b"", content(self.sent, size), b"", b"")

    def read(self, limit: int = 1 << 30) -> list[int]:
        """Return the numbers of the next records, each of which is whole."""
        found = self.reader.read(limit)
        for one in found:
            assert one.record.request == content(one.record.seq, int(one.record.at))
        return [one.record.seq for one in found]

    def acknowledge(self) -> None:
        self.reader.acknowledge(*self.reader.place)

    def reopen(self) -> None:
        self.reader.close()
        self.reader = RingReader(self.ring.path)


@contextmanager
def rig_in(directory: Path, max_bytes: int = 0) -> Iterator[Rig]:
    rig = Rig(directory, max_bytes)
    yield rig
    rig.reader.close()
    rig.ring.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rig_in(tmp_path / "rings") as rig:
        yield rig


def test_records_are_read_once_and_counted(rig: Rig) -> None:
    rig.offer(10, 0, 3_000)
    assert rig.reader.node == "node"
    assert (rig.read(2), rig.read(), rig.read()) == ([1, 2], [3], [])
    assert rig.reader.at_end
    counted = rig.ring.counters()
    assert counted.pop("held_bytes") > 3_000
    assert counted == {"offered": 3, "acknowledged": 0, "dropped": 0, "held": 3}
    rig.acknowledge()
    assert rig.ring.counters() == {
        "offered": 3,
        "acknowledged": 3,
        "dropped": 0,
        "held": 0,
        "held_bytes": 0,
    }


def test_who_reads_after_another_goes_on_behind_what_is_safe(rig: Rig) -> None:
    rig.offer(*[10] * 5)
    first = rig.reader.read(2)[-1]
    rig.reader.acknowledge(first.end, first.record.seq)
    assert rig.read() == [3, 4, 5]
    rig.reopen()
    assert rig.read() == [3, 4, 5]


def test_the_oldest_make_room_and_are_counted(rig: Rig) -> None:
    rig.offer(*[1_000] * 100)
    found = rig.read()
    counted = rig.ring.counters()
    assert found == list(range(101 - len(found), 101))
    assert counted["dropped"] == 100 - len(found) == 100 - counted["held"]
    assert 50_000 < counted["held_bytes"] <= LEAST_RING_BYTES
    # Those that are read and not safe make room as well; what is safe makes it without a loss.
    rig.acknowledge()
    rig.offer(*[1_000] * 50)
    assert rig.read() == list(range(101, 151))
    assert rig.ring.counters()["dropped"] == counted["dropped"]


def test_a_record_beyond_a_quarter_of_the_ring_is_lost_alone(rig: Rig) -> None:
    rig.offer(10, LEAST_RING_BYTES // 4, 10)
    assert rig.read() == [1, 3]
    assert rig.ring.counters()["dropped"] == 1
    rig.acknowledge()
    assert rig.ring.counters()["held"] == 0


STEPS = st.lists(
    st.tuples(st.just("offer"), st.lists(st.integers(0, 15_000), min_size=1, max_size=6))
    | st.tuples(st.just("read"), st.integers(1, 5))
    | st.tuples(st.sampled_from(["acknowledge", "reopen"])),
    max_size=40,
)


@given(STEPS)
@settings(deadline=None)
def test_each_record_is_read_or_counted_as_lost_whoever_is_faster(steps: list[tuple[object, ...]]) -> None:
    with TemporaryDirectory() as directory, rig_in(Path(directory)) as rig:
        seen: set[int] = set()
        latest = safe = 0
        for what, *how in [*steps, ("read", 1 << 30)]:
            if what == "offer":
                rig.offer(*how[0])  # type: ignore[misc]
            elif what == "read":
                found = rig.read(how[0])  # type: ignore[arg-type]
                assert found == sorted(found)
                assert all(latest < seq for seq in found)
                latest = max([latest, *found])
                seen |= set(found)
            elif what == "acknowledge":
                rig.acknowledge()
                safe = latest
            else:
                rig.reopen()
                latest = safe
        counted = rig.ring.counters()
        assert rig.reader.damaged == 0
        assert rig.reader.at_end
        assert len(seen) + counted["dropped"] >= rig.sent == counted["offered"]
        assert seen >= set(range(rig.sent - counted["held"] + 1, rig.sent + 1))


@given(
    st.lists(
        st.tuples(
            st.integers(64, 255) | st.integers(HEADER, HEADER + LEAST_RING_BYTES - 1),
            st.binary(min_size=1, max_size=40)
            | st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8, "little")),
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(0, 120),
    st.booleans(),
)
# All words are forged alike, so that the next record to come seems safe.
@example([(64, b"\0\0\0\0\0\0\0\1" * 2 + b"\0\1"), (136, b"e")], 0, False)
@settings(deadline=None)
def test_whatever_is_written_over_a_ring_harms_only_what_is_in_it(
    junk: list[tuple[int, bytes]], before: int, anew: bool
) -> None:
    with TemporaryDirectory() as directory, rig_in(Path(directory)) as rig:
        rig.offer(*[1_000] * before)
        with rig.ring.path.open("r+b") as file:
            for place, data in junk:
                # Neither whose it is nor how large: that is read once.
                end = 256 if place < 256 else HEADER + LEAST_RING_BYTES
                file.seek(place)
                file.write(data[: end - place])
        if anew:
            rig.reopen()
        for _ in range(4):
            rig.reader.read(1 << 30)
        rig.reader.acknowledge(*rig.reader.place)
        rig.offer(*[1_000] * 100)
        for _ in range(4):
            rig.reader.read(1 << 30)
        rig.offer(10)
        assert rig.read() == [before + 101]
        assert rig.reader.at_end
        assert min(rig.ring.counters().values()) >= 0


def test_what_is_no_record_is_looked_at_twice_then_left_out_and_told(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.offer(10, 10, 10)
    assert rig.read(1) == [1]
    with rig.ring.path.open("r+b") as file:
        file.seek(HEADER + rig.reader.place[0] + 20)
        file.write(b"\xff")
    assert (rig.read(), rig.reader.damaged) == ([], 0)
    assert (rig.read(), rig.reader.damaged) == ([], 1)
    assert f"{rig.ring.path} is damaged" in caplog.text
    rig.offer(10)
    assert rig.read() == [4]


def test_a_killed_writer_leaves_each_record_whole(tmp_path: Path) -> None:
    for number in range(5):
        directory = tmp_path / str(number)
        command = [sys.executable, "-c", WRITER, str(directory), str(32 << 20 if number else 0)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
            try:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"begins\n"
                (path,) = directory.glob("*.ring")
                reader = RingReader(path)
                while reader.counters()["offered"] < 2_000:
                    assert writer.poll() is None
                assert not reader.writer_is_gone()
                found = reader.read(1_000)  # while it writes
            finally:
                writer.send_signal(signal.SIGKILL)
        wait_until(reader.writer_is_gone, "the lock of one who is dead")
        found += reader.read(1 << 30)
        seqs = [one.record.seq for one in found]
        assert all(
            one.record.request == str(s).encode() * (s % 97) for one, s in zip(found, seqs, strict=True)
        )
        assert seqs == sorted(set(seqs))
        assert (reader.damaged, reader.at_end) == (0, True)
        lost = seqs[-1] - len(seqs)
        assert lost <= reader.counters()["dropped"]
        reader.remove()
        assert not path.exists()


def test_a_ring_that_holds_something_stays_and_an_empty_one_goes_with_its_writer(tmp_path: Path) -> None:
    rig, other = Rig(tmp_path), Rig(tmp_path)
    rig.offer(10)
    assert not rig.reader.writer_is_gone()
    rig.ring.close()
    rig.ring.close()
    other.ring.close()
    assert rig.reader.writer_is_gone()
    assert list(tmp_path.iterdir()) == [rig.ring.path]
    assert rig.read() == [1]
    rig.reader.close()
    other.reader.close()


def test_of_the_rings_of_the_dead_the_oldest_go_and_none_of_the_living(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    living = TeeRing(tmp_path, "living", 0)
    (tmp_path / f"1-{2**22 + 1}.new").touch()  # of a process that there cannot be
    for number in range(MOST_LEFT + 3):
        dead = TeeRing(tmp_path, str(number), 0)
        dead.offer(1.0, 0, b"", b"", b"", b"")
        dead.close()
    left = {RingReader(path).node for path in tmp_path.iterdir()}
    assert left == {"living", *map(str, range(2, MOST_LEFT + 3))}
    assert "1 answers in it are lost" in caplog.text
    living.close()


def test_a_ring_nowhere_counts_what_is_lost(tmp_path: Path) -> None:
    ring = TeeRing(None, "node", 0)
    for _ in range(200):
        ring.offer(1.0, 0, b"", bytes(1_000), b"", b"")
    assert ring.counters()["dropped"] > 100
    ring.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no ring of this version"),
        (bytes(HEADER + LEAST_RING_BYTES), "no ring of this version"),
        (b"SWRING02" + bytes(HEADER), "no ring of this version"),
        (b"SWRING01" + bytes(HEADER), "0 bytes"),
        (b"SWRING01" + b"\xff" * HEADER, "bytes, and its file has"),
        (b"SWRING01" + (100).to_bytes(8, "little") + bytes(HEADER + 84), "100 bytes"),
        (
            b"SWRING01" + LEAST_RING_BYTES.to_bytes(8, "little") + bytes(HEADER + LEAST_RING_BYTES - 16),
            "whose",
        ),
        (
            b"SWRING01" + LEAST_RING_BYTES.to_bytes(8, "little") + b"\xff" * (HEADER + LEAST_RING_BYTES - 16),
            "whose",
        ),
    ],
)
def test_a_file_that_is_no_ring_is_named_with_the_reason(tmp_path: Path, data: bytes, why: str) -> None:
    path = tmp_path / "x.ring"
    path.write_bytes(data)
    with pytest.raises(TeeRingError, match=f"x.ring.*{why}"):
        RingReader(path)


def test_links_and_directories_are_no_rings(tmp_path: Path) -> None:
    ring = TeeRing(tmp_path / "rings", "node", 0)
    (tmp_path / "link.ring").symlink_to(ring.path)
    (tmp_path / "directory.ring").mkdir()
    for name in ("link", "directory", "nothing"):
        with pytest.raises(TeeRingError, match=f"{name}.ring"):
            RingReader(tmp_path / f"{name}.ring")
    ring.close()


def test_what_stands_in_the_way_of_a_ring_is_told_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with pytest.raises(TeeRingError, match="no ring of"):
        make_file(tmp_path, "node", 1 << 60)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(TeeRingError, match="cannot be made"):
        TeeRing(tmp_path / "file", "node", 0)
    (tmp_path / "open").mkdir()
    os.chmod(tmp_path / "open", 0o777)  # noqa: PTH101 - past the umask
    with pytest.raises(TeeRingError, match="this user's alone"):
        TeeRing(tmp_path / "open", "node", 0)


def test_where_memory_is_short_a_ring_is_smaller_and_leaves_room_for_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert room_in(tmp_path, 1000) == 1000
    assert not caplog.text
    assert room_in(tmp_path, 2 * free) <= free
    assert "has room for a ring of" in caplog.text


def test_a_ring_is_made_though_the_directory_is_removed_just_then(tmp_path: Path) -> None:
    path, file = make_file(tmp_path / "rings", "node", LEAST_RING_BYTES)
    os.close(file)
    assert path.parent == tmp_path / "rings"
