"""An answered transaction, as its preprocessor hands it to the tee of its host.

A record is seq u64, at f64 (Unix seconds), flags u8, four lengths u32, all little-endian, and the four parts
as the preprocessor has them at hand, so that it packs nothing again: the field policy, the caller's frame,
the body of the message to the scorer, and the body of the answer.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

from transport.errors import TeeRingError

#: The flag of a record whose release was a canary's.
CANARY: Final = 1

_RECORD: Final = struct.Struct("<QdB4I")
#: Smallest record, in bytes: one whose parts are empty.
LEAST_BYTES: Final = _RECORD.size


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


def pack_record(
    seq: int, at: float, flags: int, policy: bytes, request: bytes, vectors: bytes, answer: bytes
) -> bytes:
    """Pack a record; arguments as in RawRecord."""
    head = _RECORD.pack(seq, at, flags, len(policy), len(request), len(vectors), len(answer))
    return b"".join((head, policy, request, vectors, answer))


def unpack_record(data: bytes) -> RawRecord:
    """Read a record.

    Raises:
        TeeRingError: the bytes are not as many as the record says.
    """
    if len(data) < LEAST_BYTES:
        raise TeeRingError(f"a record has at least {LEAST_BYTES} bytes, this one has {len(data)}")
    seq, at, flags, *lengths = _RECORD.unpack_from(data)
    ends = list(accumulate(lengths, initial=LEAST_BYTES))
    if ends[-1] != len(data):
        raise TeeRingError(f"record {seq} says that it has {ends[-1]} bytes, and has {len(data)}")
    return RawRecord(seq, at, flags, *(data[start:end] for start, end in pairwise(ends)))
