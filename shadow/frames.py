"""Frames between a shadow node and the process of a candidate: a length, then msgpack."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any, Final

import msgpack

from shadow.errors import CandidateError

_LENGTH: Final = struct.Struct(">I")
#: Largest frame in bytes: a batch of the largest records that there are is cut long before.
MAX_FRAME_BYTES: Final = 1 << 30


def send(link: socket.socket, message: Any) -> None:
    """Send a message; the socket's own timeout bounds each write.

    Raises:
        OSError: the other side is gone, or does not read.
    """
    body = msgpack.packb(message)
    link.sendall(_LENGTH.pack(len(body)) + body)


def receive(link: socket.socket, deadline: float | None = None) -> Any:
    """Receive a message.

    Args:
        link: the socket.
        deadline: until when (time.monotonic seconds); None waits for as long as it takes.

    Raises:
        TimeoutError: the deadline has passed.
        EOFError: the other side is gone.
        CandidateError: what came is no message.
    """
    (length,) = _LENGTH.unpack(_read(link, _LENGTH.size, deadline))
    if length > MAX_FRAME_BYTES:
        raise CandidateError(f"a frame of {length} bytes is no answer")
    try:
        return msgpack.unpackb(_read(link, length, deadline), max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise CandidateError(f"what came is no msgpack: {error}") from error


def _read(link: socket.socket, count: int, deadline: float | None) -> bytes:
    parts = []
    while count:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            link.settimeout(left)
        part = link.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
