from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow.intake import TURN, Intake
from shadow.outlet import Ticket
from transport.errors import TeeRingError
from transport.tee_record import RawRecord
from transport.tee_ring import TeeRing


class Rig:
    """An intake, and what it has handed on; records whose request is `no` are not settled."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.taken: list[tuple[str, int]] = []
        self.tickets: list[Ticket] = []
        self.rings: list[TeeRing] = []
        self.open()

    def open(self) -> None:
        self.intake = Intake(self.directory, self.take)
        self.intake.look()

    def take(self, record: RawRecord, node: str, ticket: Ticket) -> bool:
        self.taken.append((node, record.seq))
        if record.request == b"no":
            return False
        self.tickets.append(ticket)
        return True

    def ring(self, node: str) -> TeeRing:
        ring = TeeRing(self.directory, node, 0)
        self.rings.append(ring)
        return ring

    def read(self) -> list[tuple[str, int]]:
        self.taken.clear()
        while self.intake.read():
            pass
        return list(self.taken)


def offer(ring: TeeRing, *requests: bytes) -> None:
    for request in requests:
        ring.offer(1.0, 0, b"", request, b"", b"")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rings")
    yield rig
    rig.intake.close()
    for ring in rig.rings:
        ring.close()


def test_it_finds_all_rings_and_each_hears_what_is_safe(rig: Rig) -> None:
    one, other = rig.ring("one"), rig.ring("other")
    offer(one, b"a", b"b")
    offer(other, b"c")
    rig.intake.look()
    assert rig.read() == [("one", 1), ("one", 2), ("other", 1)]
    first, second, third = rig.tickets
    for ticket in (second, third):
        rig.intake.settle(ticket)
    rig.intake.settle_all()
    # Nothing is safe behind one that is not.
    assert (one.counters()["held"], other.counters()["held"]) == (2, 0)
    rig.intake.settle(first)
    rig.intake.settle_all()
    assert one.counters()["acknowledged"] == 2
    rig.intake.look()
    assert rig.intake.counters() == {"offered": 3, "acknowledged": 3, "dropped": 0}


def test_what_has_no_way_is_done_with(rig: Rig) -> None:
    ring = rig.ring("node")
    offer(ring, b"no", b"yes", b"no")
    rig.intake.look()
    rig.read()
    rig.intake.settle_all()
    assert ring.counters()["held"] == 2
    rig.intake.settle(rig.tickets[0])
    rig.intake.settle_all()
    assert ring.counters()["held"] == 0


def test_one_that_comes_after_another_takes_what_was_not_safe_and_no_more(rig: Rig) -> None:
    ring = rig.ring("node")
    offer(ring, b"a", b"b", b"c")
    rig.intake.look()
    rig.read()
    rig.intake.settle(rig.tickets[0])
    rig.intake.close()
    rig.intake.settle(rig.tickets[1])  # too late, and harmless
    rig.open()
    offer(ring, b"d")
    assert rig.read() == [("node", 2), ("node", 3), ("node", 4)]


def test_a_ring_of_the_dead_is_read_to_its_end_and_goes_once_all_is_safe(rig: Rig) -> None:
    ring = rig.ring("dead")
    offer(ring, *[b"x"] * (TURN + 10))
    ring.close()
    rig.intake.look()
    assert ring.path.exists()
    assert len(rig.read()) == TURN + 10
    rig.intake.look()
    assert ring.path.exists()
    for ticket in rig.tickets:
        rig.intake.settle(ticket)
    rig.intake.look()
    assert not ring.path.exists()
    assert rig.intake.counters() == {"offered": TURN + 10, "acknowledged": TURN + 10, "dropped": 0}
    rig.intake.settle(rig.tickets[0])  # of nobody


def test_a_turn_of_one_ring_is_bounded(rig: Rig) -> None:
    flood, other = rig.ring("flood"), rig.ring("other")
    offer(flood, *[b""] * (2 * TURN))
    offer(other, b"")
    rig.intake.look()
    assert rig.intake.read() == TURN + 1
    assert rig.taken[-1] == ("other", 1)


def test_a_file_that_is_no_ring_is_told_once_and_left_alone(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    junk = rig.directory / "junk.ring"
    junk.write_bytes(b"junk")
    ring = rig.ring("node")
    for _ in range(3):
        rig.intake.look()
    assert rig.intake.unreadable == 1
    assert caplog.text.count("junk.ring is no ring of this version") == 1
    assert junk.exists()
    offer(ring, b"a")
    assert rig.read() == [("node", 1)]


def test_a_damaged_place_is_counted_and_what_comes_after_it_is_taken(rig: Rig) -> None:
    ring = rig.ring("node")
    offer(ring, b"a", b"b")
    rig.intake.look()
    with ring.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 100)
    assert (rig.read(), rig.read()) == ([], [])
    assert rig.intake.unreadable == 1
    offer(ring, b"c")
    assert rig.read() == [("node", 3)]


def test_the_end_of_a_dead_ring_that_is_damaged_hinders_nobody(rig: Rig) -> None:
    ring = rig.ring("dead")
    offer(ring, b"a", b"b")
    with ring.path.open("r+b") as file:
        file.seek(4096 + 60)
        file.write(b"\xff" * 8)
    ring.close()
    rig.intake.look()
    assert rig.intake.read() == 1
    rig.intake.settle(rig.tickets[0])
    rig.intake.look()
    assert ring.path.exists()  # it is looked at twice
    assert rig.intake.read() == 0
    rig.intake.look()
    assert not ring.path.exists()


def test_the_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rings").symlink_to(tmp_path)
    with pytest.raises(TeeRingError, match="this user's alone"):
        Intake(tmp_path / "rings", lambda *_: False)
