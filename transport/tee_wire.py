"""What a preprocessor and the tee of its host say to each other, over a Unix socket.

A frame is a 12-byte header, little-endian: magic `ST`, version u8, kind u8, number u64; and a payload.

    HELLO    to the tee        number: the last record so far; payload: msgpack, `node` and `counters`
    RECORDS  to the tee        number: how many; payload: as many records
    ACK      from the tee      number: all records up to this one are safe; no payload

A record is seq u64, at f64 (Unix seconds), flags u8, four lengths u32, and the four parts as the
preprocessor has them at hand, so that it packs nothing again: the field policy, the caller's frame, the body
of the message to the scorer, and the body of the answer.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgpack

from transport.errors import TeeFrameError

VERSION: Final = 1
#: The flag of a record whose release was a canary's.
CANARY: Final = 1
#: Largest frame that the tee takes, in bytes.
MAX_FRAME_BYTES: Final = 8 << 20

_MAGIC: Final = b"ST"
_HEADER: Final = struct.Struct("<2sBBQ")
_RECORD: Final = struct.Struct("<QdB4I")
_MAX_NODE: Final = 300


class TeeKind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    RECORDS = 2
    ACK = 3


class RawRecord(NamedTuple):
    """An answered transaction, in the parts that the preprocessor had.

    Attributes:
        seq: its number in the life of the preprocessor.
        at: when the answer left, in Unix seconds.
        flags: CANARY, or 0.
        policy: the field policy, as the preprocessor packed it.
        request: the caller's frame, header included.
        vectors: the body of the message to the scorer.
        answer: the body of the answer.
    """

    seq: int
    at: float
    flags: int
    policy: bytes
    request: bytes
    vectors: bytes
    answer: bytes


class Frame(NamedTuple):
    """A frame whose header was read."""

    kind: TeeKind
    number: int
    payload: bytes


def pack_record(
    seq: int, at: float, flags: int, policy: bytes, request: bytes, vectors: bytes, answer: bytes
) -> bytes:
    """Pack one record of a RECORDS frame."""
    head = _RECORD.pack(seq, at, flags, len(policy), len(request), len(vectors), len(answer))
    return b"".join((head, policy, request, vectors, answer))


def pack_records(records: list[bytes]) -> bytes:
    """Pack a RECORDS frame of packed records."""
    return _HEADER.pack(_MAGIC, VERSION, TeeKind.RECORDS, len(records)) + b"".join(records)


def pack_hello(last: int, node: str, counters: Mapping[str, int]) -> bytes:
    """Pack a HELLO frame."""
    payload: bytes = msgpack.packb({"node": node, "counters": dict(counters)})
    return _HEADER.pack(_MAGIC, VERSION, TeeKind.HELLO, last) + payload


def pack_ack(seq: int) -> bytes:
    """Pack an ACK frame."""
    return _HEADER.pack(_MAGIC, VERSION, TeeKind.ACK, seq)


def unpack(frame: bytes) -> Frame:
    """Read the header of a frame.

    Raises:
        TeeFrameError: it is no frame of this protocol and version.
    """
    if len(frame) < _HEADER.size:
        raise TeeFrameError(f"a frame has at least {_HEADER.size} bytes, this one has {len(frame)}")
    magic, version, kind, number = _HEADER.unpack_from(frame)
    if magic != _MAGIC or version != VERSION or kind not in _KINDS:
        raise TeeFrameError(f"no frame of this protocol: {frame[: _HEADER.size].hex()}")
    return Frame(TeeKind(kind), number, frame[_HEADER.size :])


def unpack_hello(payload: bytes) -> tuple[str, dict[str, int]]:
    """Read who says hello, and what it has counted.

    Raises:
        TeeFrameError: the payload is not what a HELLO has.
    """
    body = _parsed(payload)
    node, counters = body.get("node"), body.get("counters")
    if not isinstance(node, str) or not 0 < len(node) <= _MAX_NODE or not isinstance(counters, dict):
        raise TeeFrameError("a HELLO names its node and its counters")
    if not all(isinstance(k, str) and isinstance(v, int) for k, v in counters.items()):
        raise TeeFrameError("a HELLO's counters are numbers by name")
    return node, counters


def unpack_records(frame: Frame) -> list[RawRecord]:
    """Read the records of a RECORDS frame.

    Raises:
        TeeFrameError: the payload is not as long as its records say, or they are not as many.
    """
    found: list[RawRecord] = []
    payload, place = frame.payload, 0
    while place < len(payload):
        if place + _RECORD.size > len(payload):
            raise TeeFrameError("a record is cut off in its head")
        seq, at, flags, *lengths = _RECORD.unpack_from(payload, place)
        ends = _ends(place + _RECORD.size, lengths)
        if ends[-1] > len(payload):
            raise TeeFrameError(f"record {seq} is cut off")
        parts = [payload[start:end] for start, end in pairwise(ends)]
        found.append(RawRecord(seq, at, flags, *parts))
        place = ends[-1]
    if len(found) != frame.number:
        raise TeeFrameError(f"a frame of {frame.number} records has {len(found)}")
    return found


def _ends(start: int, lengths: Iterable[int]) -> list[int]:
    ends = [start]
    for length in lengths:
        ends.append(ends[-1] + length)
    return ends


def _parsed(payload: bytes) -> dict[Any, Any]:
    try:
        body = msgpack.unpackb(payload, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise TeeFrameError(f"the payload is not msgpack: {error}") from error
    if not isinstance(body, dict):
        raise TeeFrameError("the payload is no map")
    return body


_KINDS: Final = frozenset(int(kind) for kind in TeeKind)
