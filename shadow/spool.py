"""The spool: records on disk, in their order, while Kafka is away.

A directory of segments, each a header and records: u32 length, u32 CRC-32 of length and payload, and the
payload: u32 length of the key, key, value. A record is safe when `append` has returned: written and flushed
to the disk. A record that is damaged is left out and counted; the end of a segment that was being written
when the process died, or the disk was full, is cut off.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Final, NamedTuple

from shadow.errors import SpoolError

logger = logging.getLogger(__name__)

_MAGIC: Final = b"SWSPOOL1"
_HEAD: Final = struct.Struct("<II")
_KEY: Final = struct.Struct("<I")
_END: Final = object()
#: Largest segment, in bytes: what is replayed again after a crash, and what goes at once beyond the bound.
SEGMENT_BYTES: Final = 8 << 20


class Entry(NamedTuple):
    """A record in the spool.

    Attributes:
        number: counts up in the life of this process.
        key: the record's key.
        value: the record.
    """

    number: int
    key: bytes
    value: bytes


@dataclass(slots=True)
class _Segment:
    """A file.

    Attributes:
        path: where.
        serial: its number, by which files are ordered.
        first: number of its first record.
        count: how many records it has.
        size: bytes of it that are safe.
    """

    path: Path
    serial: int
    first: int
    count: int = 0
    size: int = 0


class Spool:
    """Records that wait on disk. One process, and one thread, uses a directory.

    Args:
        directory: where; made if it is missing, and passable to its user alone.
        max_bytes: what may wait; beyond that the oldest segment goes, and its records are counted.

    Attributes:
        dropped: records that went because there was no room.
        corrupt: damaged places that were left out.
        problem: why the last append could not take all; "" if it could.

    Raises:
        SpoolError: the directory cannot be used, or another process uses it.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.dropped = 0
        self.corrupt = 0
        self.problem = ""
        self._directory = directory
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max(1, max_bytes // 4))
        self._segments: deque[_Segment] = deque()
        self._tail: int | None = None  # the descriptor that is appended to
        self._next = self._head = self._read = 0
        self._unread: Iterator[tuple[int, bytes, bytes] | None] = iter(())
        self._reading: _Segment | None = None
        self._offset = 0  # in the segment that is read, behind the last record that was
        self._gaps: dict[int, int] = {}
        self._lock = self._take_directory()
        self._recover()

    def __len__(self) -> int:
        return self._next - self._head

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    def append(self, records: Sequence[tuple[bytes, bytes]]) -> int:
        """Take records, each a key and a value.

        Returns:
            how many are safe, from the first on: fewer than given only if the disk refuses, see `problem`.
        """
        safe, step = 0, len(records)
        while safe < len(records) and step:
            taken = self._append_some(records[safe : safe + step])
            safe += taken
            if not taken:
                step //= 2  # there may be room for fewer
        if safe == len(records):
            self.problem = ""
        return safe

    def read(self, max_records: int) -> list[Entry]:
        """Return the next records that were not read yet, in their order."""
        found: list[Entry] = []
        while len(found) < max_records and self._read < self._next:
            record = next(self._unread, _END)
            if record is _END:
                if not self._open_next():
                    break
            elif isinstance(record, tuple):
                self._offset = record[0]
                found.append(Entry(self._read, record[1], record[2]))
                self._read += 1
            else:
                self._leave_out(self._read + 1)
        return found

    def rewind(self) -> None:
        """Let all that is not done be read again."""
        self._read, self._unread, self._offset = self._head, iter(()), 0

    def done(self, number: int) -> None:
        """Let go of all records up to one; segments that are done are deleted."""
        self._head = max(self._head, number + 1)
        self._sweep()

    def close(self) -> None:
        """Let the directory go. What waits there stays."""
        self._close_tail()
        os.close(self._lock)

    # -- writing

    def _append_some(self, records: Sequence[tuple[bytes, bytes]]) -> int:
        """Append the first of some records, as many as belong in one segment, or none."""
        try:
            segment, tail = self._writable()
        except OSError as error:
            self.problem = f"{self._directory}: {error.strerror}"
            return 0
        parts: list[bytes] = []
        size = 0
        for key, value in records:
            if parts and segment.size + size >= self._segment_bytes:
                break
            parts.append(_packed(key, value))
            size += len(parts[-1])
        try:
            _write_all(tail, b"".join(parts))
            os.fsync(tail)
        except OSError as error:
            self.problem = f"{segment.path}: {error.strerror}"
            # What was written of it is no whole record, or was not flushed: a new segment begins after it.
            with contextlib.suppress(OSError):
                os.ftruncate(tail, segment.size)
            self._close_tail()
            if not segment.count:
                self._segments.pop().path.unlink(missing_ok=True)
            return 0
        segment.size += size
        segment.count += len(parts)
        self._next += len(parts)
        self._keep_bound()
        return len(parts)

    def _writable(self) -> tuple[_Segment, int]:
        if self._tail is not None and self._segments[-1].size >= self._segment_bytes:
            self._close_tail()
        if self._tail is None:
            serial = self._segments[-1].serial + 1 if self._segments else 1
            path = self._directory / f"{serial:016d}.spool"
            tail = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                _write_all(tail, _MAGIC)
                _flush_directory(self._directory)
            except OSError:
                os.close(tail)
                path.unlink(missing_ok=True)
                raise
            self._tail = tail
            self._segments.append(_Segment(path, serial, self._next, size=len(_MAGIC)))
        return self._segments[-1], self._tail

    def _keep_bound(self) -> None:
        while self.size > self._max_bytes and self._segments:
            oldest = self._segments[0]
            lost = oldest.first + oldest.count - max(self._head, oldest.first)
            self.dropped += lost
            self._head = max(self._head, oldest.first + oldest.count)
            self._delete_oldest()
            logger.error("the spool is full: its oldest %d records are dropped", lost)

    def _delete_oldest(self) -> None:
        if len(self._segments) == 1:
            self._close_tail()
        segment = self._segments.popleft()
        segment.path.unlink(missing_ok=True)
        self._gaps = {start: end for start, end in self._gaps.items() if end > self._head}
        if self._read < self._head:
            self.rewind()

    def _close_tail(self) -> None:
        if self._tail is not None:
            os.close(self._tail)
            self._tail = None

    # -- reading

    def _open_next(self) -> bool:
        """Read on in the segment that has the next record; False if nothing whole is there."""
        segment = next((one for one in self._segments if self._read < one.first + one.count), None)
        if segment is None:
            return False
        # On from where it was left, if more was appended there meanwhile.
        begin = self._offset if segment is self._reading else 0
        self._reading = segment
        self._unread = _records(_content(segment.path)[: segment.size], begin)
        if not begin:
            # A segment is read from its start again after a return.
            self._unread = islice(self._unread, self._read - segment.first, None)
        first = list(islice(self._unread, 1))
        if first:
            self._unread = chain(first, self._unread)
        else:
            self._leave_out(segment.first + segment.count)
        return True

    def _leave_out(self, end: int) -> None:
        """Go on behind records that are damaged since they were written or looked through."""
        if self._read not in self._gaps:
            self.corrupt += end - self._read
            self._gaps[self._read] = end
        self._read = end
        self._sweep()

    def _sweep(self) -> None:
        while self._head in self._gaps:
            self._head = self._gaps.pop(self._head)
        while self._segments and self._segments[0].first + self._segments[0].count <= self._head:
            self._delete_oldest()

    def _recover(self) -> None:
        """Look through what an earlier process has left."""
        for path in sorted(self._directory.glob("*.spool")):
            segment = _Segment(path, int(path.stem), self._next)
            data = _content(path)
            for count, record in enumerate(_records(data), 1):
                if record is not None:
                    segment.count, segment.size = count, record[0]
            if segment.size < len(data) - len(_MAGIC) or not data.startswith(_MAGIC):
                logger.warning("%s ends in %d bytes that are no record", path, len(data) - segment.size)
                self.corrupt += 1
            if not segment.count:
                path.unlink()
                continue
            self._next += segment.count
            self._segments.append(segment)
        if self._segments:
            logger.info("the spool holds %d records of an earlier life", len(self))

    def _take_directory(self) -> int:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolError(f"the spool {self._directory} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise SpoolError(f"the spool {self._directory} is another tee's: is one running?") from error
        return lock


def _packed(key: bytes, value: bytes) -> bytes:
    payload = b"".join((_KEY.pack(len(key)), key, value))
    return _HEAD.pack(len(payload), _crc(len(payload), payload)) + payload


def _crc(length: int, payload: bytes) -> int:
    return zlib.crc32(payload, length)


def _records(data: bytes, begin: int = 0) -> Iterator[tuple[int, bytes, bytes] | None]:
    """Yield the end, key and value of each whole record, and None for each that is damaged."""
    place = begin or len(_MAGIC)
    while data.startswith(_MAGIC) and place + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, place)
        start, end = place + _HEAD.size, place + _HEAD.size + length
        if end > len(data) or length < _KEY.size:
            return
        payload = data[start:end]
        place = end
        if _crc(length, payload) != crc:
            yield None
            continue
        (key_length,) = _KEY.unpack_from(payload)
        key_end = _KEY.size + key_length
        yield end, payload[_KEY.size : key_end], payload[key_end:]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        logger.error("%s cannot be read, and what is in it is left out: %s", path, error)  # noqa: TRY400
        return b""


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _flush_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
