"""Frames between a node and its workers: four bytes of length, little-endian, then msgpack."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import msgpack

#: Longest frame that a worker may send; more is garbage that its package wrote there.
MAX_FRAME: Final = 64 << 20
_LENGTH: Final = struct.Struct("<I")


class GarbageError(Exception):
    """Raised when what came over a worker's socket is no frame: the package wrote there."""


def pack_frame(body: bytes) -> bytes:
    """Put the length before a body that is msgpack already."""
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Puts frames together from whatever pieces a socket gives."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Take bytes that have arrived."""
        self._buffer += chunk

    def frames(self) -> Iterator[list[Any]]:
        """Yield the frames that are whole.

        Raises:
            GarbageError: what follows them is none.
        """
        buffer = self._buffer
        while len(buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer)
            if length > MAX_FRAME:
                raise GarbageError(f"a frame of {length} bytes")
            end = _LENGTH.size + length
            if len(buffer) < end:
                return
            # A copy: a buffer that is looked into cannot be cut.
            body = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            try:
                frame = msgpack.unpackb(body)
            except Exception as error:
                raise GarbageError(f"a frame that is no msgpack: {error}") from error
            if not isinstance(frame, list) or not frame:
                raise GarbageError("a frame that is no list")
            yield frame
