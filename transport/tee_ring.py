"""The ring: answered transactions in memory that a preprocessor shares with the tee of its host.

A ring is a file in a memory file system, mapped by its preprocessor, which writes, and by the tee, which
reads. Nobody wakes anybody, and writing makes no system call. It outlives both: a preprocessor that is killed
leaves its records to the tee, and a tee that is killed leaves to the next one the place up to which they are
safe.

The file is a header of 4,096 bytes and then the ring itself. The header: magic `SWRING01`; counters, u64 of
this machine's byte order, those of the writer and those of the reader a cache line apart; at 256 the writer's
name, u16 length and UTF-8. `head`, `first` and `tail` count bytes since the beginning; what is left over by
the size of the ring is the place in it. A record there is its size u32, a CRC-32 of size and record u32, and
the record (`tee_record.py`); where the ring ends it goes on at its beginning. Counters are moved after the
bytes that they speak of. A processor that shows that to others in another order is found out by checksum and
number, and so is whoever else wrote there.

When the ring is full the oldest records go: the writer moves `first` over them before it writes there, and
the reader looks at `first` after it has read. The writer holds a lock on the file for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Final, NamedTuple

from transport.errors import TeeRingError
from transport.tee_files import (
    HEADER_BYTES,
    LEAST_RING_BYTES,
    NAME_AT,
    NEW,
    SUFFIX,
    make_file,
    own_directory,
    read_header,
    room_in,
)
from transport.tee_record import LEAST_BYTES, RawRecord, pack_record, unpack_record

logger = logging.getLogger(__name__)

#: Rings of the dead that wait for a tee; of more the oldest go, since each takes memory.
MOST_LEFT: Final = 8

# The writer's: end of the newest record, start of the oldest, number of the newest, how many are lost,
# and the number of the last that is lost.
_HEAD, _FIRST, _SEQ, _DROPPED, _LOST = range(8, 13)
# The reader's: up to where all is safe, and the number of the last record there.
_TAIL, _SAFE = range(16, 18)
_FRAME: Final = struct.Struct("<II")
_SEQ_OF: Final = struct.Struct("<Q")


class Read(NamedTuple):
    """A record that was read.

    Attributes:
        record: the record.
        start: where it begins.
        end: where it ends.
        before: the number of the one before it.
    """

    record: RawRecord
    start: int
    end: int
    before: int


class _Mapped:
    """A ring's file in memory, and its counters."""

    def __init__(self, path: Path, file: int, capacity: int, *, all_at_once: bool) -> None:
        flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if all_at_once else 0)
        self.path = path
        self._file = file
        self._capacity = capacity
        self._map = mmap.mmap(file, HEADER_BYTES + capacity, flags)
        # One aligned word is stored and loaded whole.
        self._words = memoryview(self._map)[:NAME_AT].cast("Q")

    def counters(self) -> dict[str, int]:
        """Return all counts, by name. Safe from any thread, until it is closed."""
        words = self._words
        head, seq, dropped = words[_HEAD], words[_SEQ], words[_DROPPED]
        settled = max(words[_TAIL], words[_FIRST])
        held = max(0, seq - max(words[_SAFE], words[_LOST])) if head > settled else 0
        return {
            "offered": seq,
            "acknowledged": max(0, seq - dropped - held),
            "dropped": dropped,
            "held": held,
            "held_bytes": max(0, head - settled),
        }

    def close(self) -> None:
        """Let the memory go; the file stays. Closing twice is harmless."""
        if self._file >= 0:
            self._words.release()
            self._map.close()
            os.close(self._file)
            self._file = -1

    def _get(self, at: int, size: int) -> bytes:
        place = at % self._capacity
        start = HEADER_BYTES + place
        if place + size <= self._capacity:
            return self._map[start : start + size]
        rest = self._capacity - place
        return self._map[start:] + self._map[HEADER_BYTES : HEADER_BYTES + size - rest]

    def _put(self, at: int, data: bytes) -> None:
        place = at % self._capacity
        start = HEADER_BYTES + place
        if place + len(data) <= self._capacity:
            self._map[start : start + len(data)] = data
        else:
            rest = self._capacity - place
            self._map[start:] = data[:rest]
            self._map[HEADER_BYTES : HEADER_BYTES + len(data) - rest] = data[rest:]


class TeeRing(_Mapped):
    """The end of a ring at which a preprocessor writes. One thread uses it; it outlives the actor that does.

    Args:
        directory: where the tee of the host looks for rings; made if it is missing, for its user alone. None
            is nowhere: nobody reads it, and what it has no room for is counted as lost.
        node: who writes: unique, for one life of its process.
        max_bytes: how large the ring is, where the directory has room for two of them; beyond that the oldest
            records go, and are counted.

    Raises:
        TeeRingError: the directory is another user's, or there is no room.
    """

    def __init__(self, directory: Path | None, node: str, max_bytes: int) -> None:
        if directory is not None:
            own_directory(directory)
            _clear(directory)
            max_bytes = room_in(directory, max_bytes)
        capacity = max(LEAST_RING_BYTES, max_bytes)
        path, file = make_file(directory, node, capacity)
        super().__init__(path, file, capacity, all_at_once=True)
        self._head = self._floor = self._seq = self._dropped = 0
        self._largest = capacity // 4

    def offer(
        self, at: float, flags: int, policy: bytes, request: bytes, vectors: bytes, answer: bytes
    ) -> None:
        """Take a record; arguments as in RawRecord. One of over a quarter of the ring is lost."""
        self._seq = seq = self._seq + 1
        record = pack_record(seq, at, flags, policy, request, vectors, answer)
        size, head = len(record), self._head
        body = head + _FRAME.size
        end = body + size
        if end - self._floor > self._capacity or size > self._largest:
            if size > self._largest:
                self._drop(1)
                self._words[_SEQ] = seq
                return
            self._make_room(end)
        self._put(head, _FRAME.pack(size, zlib.crc32(record, size)))
        self._put(body, record)
        self._head = end
        self._words[_HEAD] = end
        self._words[_SEQ] = seq

    def close(self) -> None:
        """Let the ring go: the tee takes what is left in it. One that holds nothing is removed."""
        if self._file >= 0 and self._words[_TAIL] == self._head:
            self.path.unlink(missing_ok=True)
        super().close()

    def _make_room(self, end: int) -> None:
        """Let go of what is safe, and if that is not enough, of the oldest."""
        words, floor = self._words, self._floor
        if floor < words[_TAIL] <= self._head:
            floor = words[_TAIL]
        lost, seq = 0, 0
        while end - floor > self._capacity:
            size, _ = _FRAME.unpack(self._get(floor, _FRAME.size))
            (seq,) = _SEQ_OF.unpack(self._get(floor + _FRAME.size, _SEQ_OF.size))
            # Never beyond what was written, whatever somebody else has written there.
            floor = min(floor + _FRAME.size + size, self._head)
            lost += 1
        self._floor = floor
        if lost:
            # Counted before they are let go: who is killed in between tells of too many, not of too few.
            self._drop(lost)
            words[_LOST] = min(seq, self._seq)
            words[_FIRST] = floor

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._words[_DROPPED] = self._dropped


class RingReader(_Mapped):
    """The end of a ring at which the tee reads. One thread uses it.

    Args:
        path: the file.

    Attributes:
        node: who writes.
        damaged: places that could not be read, and were left out.

    Raises:
        TeeRingError: the file is no ring, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.damaged = 0
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise TeeRingError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            capacity, self.node = read_header(path, file)
            super().__init__(path, file, capacity, all_at_once=False)
        except TeeRingError:
            os.close(file)
            raise
        self._at = max(self._words[_TAIL], self._first())
        self._last = self._settled(0)
        self._doubted = -1

    @property
    def place(self) -> tuple[int, int]:
        """Up to where it was read, and the number of the last record there."""
        return self._at, self._last

    @property
    def at_end(self) -> bool:
        """Whether all that was written was read."""
        return self._at == self._words[_HEAD]

    def read(self, limit: int) -> list[Read]:
        """Return the next records, so many at most."""
        found: list[Read] = []
        while len(found) < limit:
            first, head = self._first(), self._words[_HEAD]
            if self._at < first:
                # They had to make room, which the writer has counted.
                self._at, self._last = first, self._settled(self._last)
            if self._at == head:
                break
            one = self._one(self._at, head)
            if one is not None:
                self._doubted = -1
                self._at, self._last = one.end, one.record.seq
                found.append(one)
            elif self._at >= self._first():
                self._doubt(head)
                break
        return found

    def acknowledge(self, place: int, seq: int) -> None:
        """Say that all is safe up to a place, and which number the last record there has."""
        self._words[_SAFE] = seq
        self._words[_TAIL] = place

    def writer_is_gone(self) -> bool:
        """Say whether nobody will write any more."""
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)
        self.close()

    def _first(self) -> int:
        """Return where the oldest record begins; 0 if what stands there cannot be true."""
        first = self._words[_FIRST]
        return first if first <= self._words[_HEAD] else 0

    def _settled(self, seq: int) -> int:
        """Return the largest number that is read, safe or lost; never one that is yet to come."""
        return min(max(seq, self._words[_SAFE], self._words[_LOST]), self._words[_SEQ])

    def _one(self, at: int, head: int) -> Read | None:
        """Return the record at a place; None if what is there is none, or was written over meanwhile."""
        if not _FRAME.size + LEAST_BYTES <= head - at <= self._capacity:
            return None
        size, crc = _FRAME.unpack(self._get(at, _FRAME.size))
        start, end = at + _FRAME.size, at + _FRAME.size + size
        if size < LEAST_BYTES or end > head:
            return None
        data = self._get(start, size)
        if self._first() > at or zlib.crc32(data, size) != crc:
            return None
        with contextlib.suppress(TeeRingError):
            record = unpack_record(data)
            if record.seq > self._last:
                return Read(record, at, end, self._last)
        return None

    def _doubt(self, head: int) -> None:
        """Look once more, some time later; if it is no better then, leave out all that is there."""
        if self._doubted != self._at:
            self._doubted = self._at
            return
        self.damaged += 1
        logger.error("%s is damaged at %d: %d bytes are left out", self.path, self._at, head - self._at)
        self._at = head
        # What was forged may have told of a number that is yet to come, whose record would not be read.
        self._last = min(self._last, self._words[_SEQ])


def _clear(directory: Path) -> None:
    """Remove half-made rings, and the oldest of the dead where no tee has come for so many."""
    for new in directory.glob(f"*{NEW}"):
        if not Path("/proc", new.stem.rpartition("-")[2]).exists():
            new.unlink(missing_ok=True)
    dead: list[RingReader] = []
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        with contextlib.suppress(TeeRingError):
            ring = RingReader(path)
            if ring.writer_is_gone():
                dead.append(ring)
            else:
                ring.close()
    for place, ring in enumerate(reversed(dead)):
        if place >= MOST_LEFT:
            logger.error("%s makes room, and %d answers in it are lost", ring.path, ring.counters()["held"])
            ring.path.unlink(missing_ok=True)
        ring.close()
