from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from transport import tee, tee_wire
from transport.client.loop import Loop
from transport.errors import BindRefusedError, TeeFrameError
from transport.tee import TeeIntake, TeeSender
from transport.tee_ring import TeeRing
from transport.tee_wire import RawRecord

PARTS = st.binary(max_size=20)
RECORDS = st.lists(
    st.builds(
        RawRecord,
        st.integers(0, 2**64 - 1),
        st.floats(allow_nan=False),
        st.integers(0, 255),
        PARTS,
        PARTS,
        PARTS,
        PARTS,
    ),
    max_size=5,
)


@given(RECORDS)
def test_records_come_back_as_they_were(records: list[RawRecord]) -> None:
    frame = tee_wire.unpack(tee_wire.pack_records([tee_wire.pack_record(*one) for one in records]))
    assert tee_wire.unpack_records(frame) == records


@given(
    st.binary(max_size=60)
    | RECORDS.map(lambda r: tee_wire.pack_records([tee_wire.pack_record(*o) for o in r]))
)
def test_whatever_the_bytes_there_are_frames_or_a_frame_error(data: bytes) -> None:
    for cut in (data, data[:-1], data + b"x"):
        with contextlib.suppress(TeeFrameError):
            frame = tee_wire.unpack(cut)
            tee_wire.unpack_records(frame)
            tee_wire.unpack_hello(frame.payload)


def offer(ring: TeeRing, count: int = 1, size: int = 100) -> None:
    for _ in range(count):
        ring.offer(1.0, 0, b"", b"x" * size, b"", b"")


def seqs(batch: list[bytes]) -> list[int]:
    return [one.seq for one in tee_wire.unpack_records(tee_wire.unpack(tee_wire.pack_records(batch)))]


def test_the_ring_drops_the_oldest_that_wait_and_counts_them() -> None:
    ring = TeeRing(10_000)
    offer(ring, 100)
    assert ring.counters()["held_bytes"] <= 10_000
    assert ring.dropped == 100 - len(ring)
    batch = ring.batch()
    assert seqs(batch) == list(range(ring.dropped + 1, ring.dropped + 1 + len(batch)))


def test_no_more_is_on_its_way_than_the_window() -> None:
    ring = TeeRing(100_000)
    offer(ring, 200, size=300)
    sent: list[int] = []
    while batch := ring.batch():
        sent += seqs(batch)
    assert len(sent) < 200
    assert not ring.may_send
    ring.acknowledge(sent[-1])
    assert ring.may_send
    assert seqs(ring.batch())[0] == sent[-1] + 1


def test_what_is_not_safe_is_sent_again_in_its_order() -> None:
    ring = TeeRing(1_000_000)
    offer(ring, 10)
    ring.batch()
    ring.acknowledge(4)
    offer(ring, 2)
    ring.rewind()
    assert seqs(ring.batch()) == list(range(5, 13))
    assert ring.resent == 6


class Ends:
    """Both ends in one thread."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.loop = Loop()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.ring = TeeRing(1 << 20)
        self.busy = False
        self.taken: list[tuple[str, int]] = []
        self.heard: dict[str, dict[str, int]] = {}
        self.intake = self.open_intake()
        self.sender = self.open_sender()

    def open_intake(self) -> TeeIntake:
        def take(node: str, records: list[RawRecord]) -> None:
            self.taken += [(node, one.seq) for one in records]

        def hear(node: str, counters: Any) -> None:
            self.heard[node] = dict(counters)

        return TeeIntake(self.loop, self.context, self.address, on_records=take, on_hello=hear)

    def open_sender(self) -> TeeSender:
        return TeeSender(self.loop, self.context, self.ring, self.address, "node", lambda: self.busy)

    def run_until(self, condition: Callable[[], object]) -> None:
        give_up_at = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < give_up_at
            for source in self.loop.wait(block=False):
                source.pump()
            time.sleep(0.001)


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[Ends]:
    ends = Ends(f"ipc://{tmp_path}/tee.sock")
    yield ends
    ends.sender.close()
    ends.intake.close()
    ends.loop.close()
    ends.context.destroy(linger=0)


def test_records_arrive_and_are_let_go_once_they_are_safe(ends: Ends) -> None:
    offer(ends.ring, 3)
    ends.run_until(lambda: len(ends.taken) == 3)
    ends.sender.offer(1.0, 0, b"", b"", b"", b"")
    ends.run_until(lambda: len(ends.taken) == 4)
    assert len(ends.ring) == 4
    ends.intake.acknowledge("node", 3)
    ends.run_until(lambda: len(ends.ring) == 1)
    assert ends.heard["node"]["offered"] == 3


def test_a_batch_waits_for_answers_that_are_under_way(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    ends.run_until(lambda: ends.heard)
    monkeypatch.setattr(tee, "FLUSH_S", 0.0)
    ends.sender.offer(1.0, 0, b"", b"", b"", b"")
    monkeypatch.setattr(tee, "FLUSH_S", 3600.0)
    ends.busy = True
    # The hello that comes each second goes all the same: this one was sent after the record was offered.
    heard = ends.heard["node"]
    ends.run_until(lambda: ends.heard["node"] is not heard)
    assert ends.heard["node"]["offered"] == 1
    assert ends.taken == []
    ends.busy = False
    ends.run_until(lambda: ends.taken)


def test_a_tee_that_is_new_is_sent_all_that_its_predecessor_did_not_make_safe(ends: Ends) -> None:
    offer(ends.ring, 5)
    ends.run_until(lambda: len(ends.taken) == 5)
    ends.intake.acknowledge("node", 2)
    ends.run_until(lambda: len(ends.ring) == 3)
    ends.intake.close()
    ends.taken.clear()
    offer(ends.ring, 1)
    ends.intake = ends.open_intake()
    ends.run_until(lambda: len(ends.taken) == 4)
    assert [seq for _, seq in ends.taken] == [3, 4, 5, 6]


def test_a_sender_that_comes_again_repeats_itself_and_is_taken_once(ends: Ends) -> None:
    offer(ends.ring, 5)
    ends.run_until(lambda: len(ends.taken) == 5)
    ends.sender.close()
    ends.sender = ends.open_sender()
    offer(ends.ring, 1)
    ends.run_until(lambda: len(ends.taken) == 6)
    assert [seq for _, seq in ends.taken] == [1, 2, 3, 4, 5, 6]
    assert ends.intake.repeated == 5
    # What is safe is told to whoever asks again.
    ends.intake.acknowledge("node", 6)
    ends.run_until(lambda: len(ends.ring) == 0)


def test_a_lost_acknowledgement_is_made_up_for_by_the_next_hello(ends: Ends) -> None:
    offer(ends.ring, 2)
    ends.run_until(lambda: len(ends.taken) == 2)
    ends.intake._safe["node"] = 2  # said, and lost on the way
    ends.run_until(lambda: len(ends.ring) == 0)


def test_a_leaving_sender_waits_for_its_tee_no_longer_than_it_was_told(ends: Ends) -> None:
    offer(ends.ring, 2)
    began = time.monotonic()
    assert ends.sender.drain(0.2) == 2
    assert time.monotonic() - began < 5


def test_hostile_frames_are_counted_and_harm_nobody(ends: Ends) -> None:
    stranger = ends.context.socket(zmq.DEALER)
    stranger.connect(ends.address)
    record = tee_wire.pack_record(1, 1.0, 0, b"", b"", b"", b"")
    frames = [
        [b""],
        [b"junk" * 100],
        [b"a", b"b"],
        [tee_wire.pack_records([record])],  # no hello before
        [tee_wire.pack_hello(1, "", {})],
        [tee_wire.pack_hello(1, "n" * 1000, {})],
        [tee_wire.pack_ack(1)],
        [tee_wire.pack_records([record])[:-3]],
        [tee_wire.pack_records([record]) + record],
    ]
    for frame in frames:
        stranger.send_multipart(frame)
    ends.run_until(lambda: ends.intake.unreadable == len(frames))
    ends.sender.offer(1.0, 0, b"", b"", b"", b"")
    ends.run_until(lambda: ends.taken)
    assert ends.taken == [("node", 1)]
    stranger.close(0)


def test_a_place_where_nobody_can_listen_is_named(ends: Ends, tmp_path: Path) -> None:
    ends.address = f"ipc://{tmp_path}/nowhere/tee.sock"
    with pytest.raises(BindRefusedError, match="cannot listen"):
        ends.open_intake()
