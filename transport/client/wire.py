"""The wire format: one ZeroMQ frame is a 16-byte header and a msgpack map.

Header, little-endian: magic `SW`, version u8, kind u8, number u32 (of a request the microseconds that are
left for it; of a reply the activation that the node acts on, 0 where it says nothing of that), id u64 (chosen
by the asker, returned on the reply). The header never changes its shape, so that a node can answer a message
of another version, or one whose body is junk, by its id.

Bodies are maps with short names; unknown names are ignored, so that a field can be added without a new
version. Vectors and scores travel as raw little-endian float32 and float64.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgpack

from .errors import (
    OverloadedError,
    ProtocolError,
    ScorewireError,
    TooLargeError,
    TransactionRefusedError,
    error_from_wire,
)

VERSION = 1
#: Largest message that a node reads and a client sends, in bytes.
MAX_MESSAGE_BYTES = 1 << 20
#: Largest message that a socket takes at all; beyond it the connection is cut, so that memory stays bounded.
MAX_SOCKET_BYTES = 16 << 20
#: Longest budget that fits the header, in seconds (71 minutes).
MAX_BUDGET_S = (2**32 - 1) / 1e6

#: A body that was read, or is to be packed.
Body = dict[str, Any]

_MAGIC = b"SW"
#: What makes a request a replay: the first entry of its body.
REPLAY: Mapping[str, str] = {"priority": "replay"}
#: The same, packed, without the head of the map.
_REPLAY: bytes = msgpack.packb(REPLAY)[1:]
_HEADER = struct.Struct("<2sBBIQ")


class Kind(enum.IntEnum):
    """What a message is."""

    SCORE = 1  # caller to preprocessor: a transaction
    VECTOR = 2  # preprocessor to scorer: a feature vector
    ANSWER = 3
    ERROR = 4
    PING = 5
    PONG = 6
    GOODBYE = 7  # node to caller: send me nothing more


_KINDS = {int(kind): kind for kind in Kind}


class Header(NamedTuple):
    """The fixed part of a message; `number` is a request's budget in microseconds, a reply's activation."""

    kind: Kind
    number: int
    id: int


class UnreadableError(ProtocolError):
    """Raised when a frame cannot be read; `id` is its number if the header could be, else 0."""

    def __init__(self, detail: str, *, rule: str, id: int = 0) -> None:  # noqa: A002 - the word on the wire
        super().__init__(detail, field="message", rule=rule)
        self.id = id


def pack_header(kind: Kind, id: int, number: int = 0) -> bytes:  # noqa: A002 - the word on the wire
    """Pack a header; `number` (a request's budget, a reply's activation) is cut to what fits."""
    return _HEADER.pack(_MAGIC, VERSION, kind, min(number, 0xFFFFFFFF), id)


def unpack_header(frame: bytes) -> Header:
    """Read the header of a frame.

    Raises:
        UnreadableError: the frame is not of this protocol, of another version, or of an unknown kind.
    """
    if len(frame) < _HEADER.size:
        raise UnreadableError(f"a message has at least {_HEADER.size} bytes, got {len(frame)}", rule="header")
    magic, version, kind, number, id_ = _HEADER.unpack_from(frame)
    if magic != _MAGIC:
        raise UnreadableError(f"a message starts with {_MAGIC!r}, got {magic!r}", rule="magic")
    if version != VERSION:
        raise UnreadableError(
            f"protocol version {version} is not spoken here, only {VERSION}: upgrade the older side",
            rule="version",
            id=id_,
        )
    if kind not in _KINDS:
        raise UnreadableError(f"message kind {kind} is unknown in version {VERSION}", rule="kind", id=id_)
    return Header(_KINDS[kind], number, id_)


def pack_body(body: Mapping[str, Any]) -> bytes:
    """Pack a body; anything that msgpack cannot carry raises TypeError, ValueError or OverflowError."""
    packed: bytes = msgpack.packb(body)
    return packed


def body_of(frame: bytes) -> memoryview:
    """Return the bytes of a frame's body."""
    return memoryview(frame)[_HEADER.size :]


def unpack_body(frame: bytes) -> dict[str, Any]:
    """Read the body of a frame whose header was read.

    Raises:
        UnreadableError: the body is not a msgpack map with names as keys.
    """
    try:
        body = msgpack.unpackb(body_of(frame), max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        why = f"the body is not msgpack: {type(error).__name__}: {error}"
        raise UnreadableError(why, rule="msgpack", id=unpack_header(frame).id) from error
    if not isinstance(body, dict):
        why = f"the body must be a map, got {type(body).__name__}"
        raise UnreadableError(why, rule="map", id=unpack_header(frame).id)
    return body


def is_replay(frame: bytes) -> bool:
    """Say whether a request may wait for all that is live; the body is not unpacked for it."""
    start = _HEADER.size + 1
    return frame[start : start + len(_REPLAY)] == _REPLAY


def pack_transaction(
    transaction: Mapping[str, Any],
    release: int | None = None,
    *,
    replay: bool = False,
    traceparent: str = "",
) -> bytes:
    """Pack a transaction as the body of a SCORE message.

    Args:
        transaction: names to values that msgpack carries (None, bool, int, float, str, bytes, list, map).
        release: score with this release instead of the current one.
        replay: let it wait for all that is live.
        traceparent: the trace that it is part of, where it is sampled, as W3C's Trace Context writes it.

    Raises:
        TransactionRefusedError: a value cannot be carried; names the field.
        TooLargeError: the message would be over MAX_MESSAGE_BYTES.
    """
    body: dict[str, Any] = {**REPLAY, "transaction": transaction} if replay else {"transaction": transaction}
    if release is not None:
        body["release"] = release
    if traceparent:
        body["traceparent"] = traceparent
    try:
        packed = pack_body(body)
    except (TypeError, ValueError, OverflowError) as error:
        raise _uncarriable(transaction, error) from error
    if len(packed) + _HEADER.size > MAX_MESSAGE_BYTES:
        raise too_large(len(packed) + _HEADER.size)
    return packed


def too_large(size: int) -> TooLargeError:
    """Name the size rule, in the same words on both sides of the wire."""
    detail = f"a message may have {MAX_MESSAGE_BYTES} bytes, this one has {size}"
    return TooLargeError(detail, field="message", rule="size")


def error_body(error: ScorewireError) -> Body:
    """Return the body of an ERROR message."""
    body: Body = {"code": error.code, "detail": error.detail, "field": error.field, "rule": error.rule}
    if isinstance(error, OverloadedError) and error.retry_after:
        body["retry_after"] = error.retry_after
    return body


def pack_error(error: ScorewireError) -> bytes:
    """Pack an error as the body of an ERROR message."""
    return pack_body(error_body(error))


def unpack_error(frame: bytes) -> ScorewireError:
    """Read an ERROR message."""
    return error_of(unpack_body(frame))


def error_of(body: Mapping[str, Any]) -> ScorewireError:
    """Return the error that a body names."""
    code, detail, field, rule = (str(body.get(name, "")) for name in ("code", "detail", "field", "rule"))
    error = error_from_wire(code or "internal", detail, field, rule)
    retry_after = body.get("retry_after")
    if isinstance(error, OverloadedError) and isinstance(retry_after, int | float) and retry_after > 0:
        error.retry_after = float(retry_after)
    return error


def _uncarriable(transaction: Mapping[str, Any], error: Exception) -> TransactionRefusedError:
    """Find the field that msgpack refused, so that the caller need not guess."""
    if not isinstance(transaction, Mapping):
        detail = f"a transaction is a map of named fields, got {type(transaction).__name__}"
        return TransactionRefusedError(detail, field="transaction", rule="type")
    for name, value in transaction.items():
        try:
            msgpack.packb({name: value})
        except (TypeError, ValueError, OverflowError) as cause:
            detail = f"field {name!r} cannot be sent: {cause}"
            return TransactionRefusedError(detail, field=str(name), rule="type")
    return TransactionRefusedError(str(error), field="transaction", rule="type")
