"""The ring: records that are not safe yet, in bounded memory. It outlives the actor that sends them."""

from __future__ import annotations

from collections import deque
from typing import Final

from transport.tee_wire import pack_record

#: Bytes that a record takes beside its own.
_OVERHEAD: Final = 160
#: Bytes that may be on their way to the tee and not acknowledged.
WINDOW_BYTES: Final = 4 << 20
#: Largest batch that is sent at once, in bytes.
_BATCH_BYTES: Final = 256 << 10


class TeeRing:
    """Records that wait, and records that are on their way. One thread uses it.

    Args:
        max_bytes: what it may hold; beyond that the oldest that wait go, and are counted. Those on their way
            are the tee's already, and stay.

    Attributes:
        seq: number of the last record that was offered.
        dropped: how many went because there was no room.
        resent: how many were sent again after a connection was lost.
        acknowledged: how many are safe.
    """

    def __init__(self, max_bytes: int) -> None:
        self.seq = 0
        self.dropped = 0
        self.resent = 0
        self.acknowledged = 0
        self._max_bytes = max_bytes
        self._window = min(WINDOW_BYTES, max_bytes // 2)
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._sent: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._sent_bytes = 0

    def offer(
        self, at: float, flags: int, policy: bytes, request: bytes, vectors: bytes, answer: bytes
    ) -> None:
        """Take a record; arguments as in RawRecord."""
        self.seq = seq = self.seq + 1
        packed = pack_record(seq, at, flags, policy, request, vectors, answer)
        self._waiting.append((seq, packed))
        self._bytes += len(packed) + _OVERHEAD
        while self._bytes > self._max_bytes and self._waiting:
            self._bytes -= len(self._waiting.popleft()[1]) + _OVERHEAD
            self.dropped += 1

    def batch(self) -> list[bytes]:
        """Take the next records to send, as many as may be on their way; none if that is none."""
        batch: list[bytes] = []
        size = 0
        while self._waiting and size < _BATCH_BYTES:
            if self._sent and self._sent_bytes > self._window:
                break
            one = self._waiting.popleft()
            self._sent.append(one)
            self._sent_bytes += len(one[1])
            size += len(one[1])
            batch.append(one[1])
        return batch

    def acknowledge(self, seq: int) -> None:
        """Let go of all that were sent, up to one."""
        while self._sent and self._sent[0][0] <= seq:
            size = len(self._sent.popleft()[1])
            self._sent_bytes -= size
            self._bytes -= size + _OVERHEAD
            self.acknowledged += 1

    def rewind(self) -> None:
        """Let all that were sent and are not safe be sent again, in their order."""
        self.resent += len(self._sent)
        self._waiting.extendleft(reversed(self._sent))
        self._sent.clear()
        self._sent_bytes = 0

    @property
    def may_send(self) -> bool:
        """Whether `batch` would give something."""
        return bool(self._waiting) and (not self._sent or self._sent_bytes <= self._window)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def counters(self) -> dict[str, int]:
        """Return all counts, by name."""
        return {
            "offered": self.seq,
            "acknowledged": self.acknowledged,
            "dropped": self.dropped,
            "resent": self.resent,
            "held": len(self),
            "held_bytes": self._bytes,
        }
