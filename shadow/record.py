"""The live record: a transaction, what was computed from it, and its answer, as they go to Kafka.

One record is one msgpack map. docs/tee.md has each field; `v` counts up when a field changes its meaning.
A field that was added needs no new version: who does not know it ignores it, and who misses it takes the
default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from shadow.errors import RecordError

#: The version that is written.
VERSION: Final = 1
#: Largest record that is read, in bytes: what the wire takes for a transaction, and its answer.
MAX_RECORD_BYTES: Final = 2 << 20
#: How the body of an older version becomes one of the next version.
UPGRADES: Final[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}


@dataclass(frozen=True, slots=True)
class LiveRecord:
    """A transaction that was answered.

    Attributes:
        id: the transaction's id; where it has none, `<node>/<seq>`.
        node: the preprocessor that answered, for one life of its process.
        seq: counts up from 1 in one life of a preprocessor, so that gaps can be counted.
        at: when the answer left (Unix seconds, by the clock of the preprocessor's host).
        release: the release that scored it.
        environment: where.
        pipeline: stage to the sha256 of its artifact.
        transaction: its fields, after the field policy.
        nodes: role to the node that did it.
        features: features stage to the vector, float32 little-endian.
        scores: name of each output to its value, in the model's order.
        decision: `outcome` and `reasons`; None where the pipeline has no decision rules.
        us: part of the way to microseconds, as in the answer's trace.
        canary: whether the release was a canary's.
        fallback: whether no score came in time, and this is what the release's rules say then: no `scores`.
    """

    id: str
    node: str
    seq: int
    at: float
    release: int
    environment: str
    pipeline: Mapping[str, str]
    transaction: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)
    features: Mapping[str, bytes] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    decision: Mapping[str, Any] | None = None
    us: Mapping[str, int] = field(default_factory=dict)
    canary: bool = False
    fallback: bool = False

    def pack(self) -> bytes:
        """Return the record as bytes; the same record gives the same bytes."""
        packed: bytes = msgpack.packb({"v": VERSION, **{name: getattr(self, name) for name in _FIELDS}})
        return packed


def unpack_record(data: bytes) -> LiveRecord:
    """Read a record, of this version or an older one.

    Raises:
        RecordError: the bytes are no record, or one of a newer version; names the field at fault.
    """
    body = _upgraded(_parsed(data))
    missing = [name for name in _REQUIRED if name not in body]
    if missing:
        raise RecordError(f"the record has no {', '.join(missing)}")
    for name, fits in _FIELDS.items():
        if name in body and not fits(body[name]):
            raise RecordError(f"the record's field {name!r} has a value that does not belong there")
    return LiveRecord(**{name: body[name] for name in _FIELDS if name in body})


def _parsed(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_RECORD_BYTES:
        raise RecordError(f"a record may have {MAX_RECORD_BYTES} bytes, this one has {len(data)}")
    try:
        body = msgpack.unpackb(data, max_ext_len=0)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise RecordError(f"the record is not msgpack: {type(error).__name__}: {error}") from error
    if not isinstance(body, dict):
        raise RecordError(f"a record is a map, this is {type(body).__name__}")
    return body


def _upgraded(body: dict[str, Any]) -> dict[str, Any]:
    version = body.get("v")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise RecordError(f"the record's version is {version!r}, which is none")
    if version > VERSION:
        raise RecordError(f"the record has version {version}, and {VERSION} is read here: upgrade this node")
    for older in range(version, VERSION):
        body = UPGRADES[older](body)
    return body


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_time(value: object) -> bool:
    # Later than that is no date that a database has.
    return isinstance(value, float) and math.isfinite(value) and 0 <= value < _LATEST


def _is_number(value: object) -> bool:
    return isinstance(value, float)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_vector(value: object) -> bool:
    return isinstance(value, bytes) and len(value) % 4 == 0


def _is_anything(value: object) -> bool:
    del value
    return True


def _map_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, dict) and all(isinstance(name, str) and fits(one) for name, one in value.items())
    )


def _is_decision(value: object) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("outcome"), str):
        return False
    reasons = value.get("reasons")
    return isinstance(reasons, list) and all(isinstance(reason, str) for reason in reasons)


#: The first second of the year 10,000.
_LATEST: Final = 253_402_300_800
#: The fields, in the order in which they are written, and what fits there.
_FIELDS: Final[dict[str, Callable[[object], bool]]] = {
    "id": _is_word,
    "node": _is_word,
    "seq": _is_count,
    "at": _is_time,
    "release": _is_count,
    "environment": _is_word,
    "pipeline": _map_of(_is_text),
    "transaction": _map_of(_is_anything),
    "nodes": _map_of(_is_text),
    "features": _map_of(_is_vector),
    "scores": _map_of(_is_number),
    "decision": _is_decision,
    "us": _map_of(_is_count),
    "canary": _is_flag,
    "fallback": _is_flag,
}
_REQUIRED: Final = ("id", "node", "seq", "at", "release", "environment", "pipeline")
