"""A batch of live records on its way through a shadow node: read, evaluated, stored, committed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from governance.shadows import Shadow
from shadow.errors import RecordError
from shadow.record import LiveRecord, unpack_record
from shadow.result import ResultRow, Scalar, rank_of

#: Longest id in bytes of UTF-8: an index holds no longer ones.
MAX_ID_BYTES: Final = 1024
#: Fields of a transaction, and characters of a text, that are kept beside a result.
MAX_FIELDS: Final = 256
MAX_TEXT: Final = 256
_LARGEST_RELEASE: Final = (1 << 31) - 1


class Message(Protocol):
    """What a broker hands over; confluent_kafka.Message is one."""

    def key(self) -> bytes | None:
        """The key."""

    def value(self) -> bytes | None:
        """The record."""

    def partition(self) -> int:
        """The partition."""

    def offset(self) -> int:
        """The place in it."""


@dataclass(frozen=True, slots=True)
class Dead:
    """A record that cannot be used.

    Attributes:
        key: as it was.
        value: as it was.
        reason: why, for a person.
        shadow: the name of the shadow that cannot use it; "" where none can.
        partition: where it was.
        offset: its place there.
    """

    key: bytes | None
    value: bytes
    reason: str
    shadow: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Arrived:
    """A record that was read.

    Attributes:
        record: what it says.
        rank: of its id; see shadow.result.rank_of.
        raw: its bytes.
        message: as the broker gave it.
    """

    record: LiveRecord
    rank: int
    raw: bytes
    message: Message


@dataclass(slots=True)
class Batch:
    """Records that are stored, and committed, together.

    Attributes:
        records: those that can be used.
        dead: those that cannot.
        upto: partition to the offset that comes next.
        latest: partition to when its last record was answered (Unix seconds).
        moved: how often each partition of the reader had come, as LiveStream.partitions has it.
        rows: shadow's number to results.
        counts: shadow's number to counter to number.
    """

    records: list[Arrived] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)
    upto: dict[int, int] = field(default_factory=dict)
    latest: dict[int, float] = field(default_factory=dict)
    moved: Mapping[int, int] = field(default_factory=dict)
    rows: dict[int, list[ResultRow]] = field(default_factory=dict)
    counts: dict[int, dict[str, int]] = field(default_factory=dict)


def read_batch(messages: Iterable[Message], environment: str, *, fallbacks: bool = False) -> Batch:
    """Read what a broker handed over. A record that cannot be read is dead, and harms no other.

    Args:
        messages: what was handed over.
        environment: whose records they should be.
        fallbacks: take answers without a score as well; without, they are passed by.
    """
    batch = Batch()
    for message in messages:
        raw, partition = message.value() or b"", message.partition()
        batch.upto[partition] = message.offset() + 1
        try:
            record = checked(unpack_record(raw), environment)
        except RecordError as error:
            batch.dead.append(dead(message, str(error)))
            continue
        if record.fallback and not fallbacks:
            continue
        batch.latest[partition] = record.at
        batch.records.append(Arrived(record, rank_of(record.id), raw, message))
    return batch


def dead(message: Message, reason: str, shadow: str = "") -> Dead:
    """Return a message as one that cannot be used."""
    place = (message.partition(), message.offset())
    return Dead(message.key(), message.value() or b"", reason, shadow, *place)


def checked(record: LiveRecord, environment: str) -> LiveRecord:
    """Return a record whose result can be stored.

    Raises:
        RecordError: names what is wrong.
    """
    if record.environment != environment:
        raise RecordError(f"the record is of the environment {record.environment!r}, not of {environment}")
    if len(record.id.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES or "\0" in record.id:
        raise RecordError(f"the record's id is longer than {MAX_ID_BYTES} bytes, or holds a NUL")
    if record.release > _LARGEST_RELEASE:
        raise RecordError(f"the record's release {record.release} is none")
    if not record.scores and not record.fallback:
        raise RecordError("the record has no score")
    if record.decision is not None and "\0" in record.decision["outcome"]:
        raise RecordError("the record's outcome holds a NUL")
    return record


def result_row(shadow: Shadow, record: LiveRecord, evaluated: Sequence[Any]) -> ResultRow:
    """Put a live answer and what a candidate made of it together.

    Args:
        shadow: the shadow.
        record: the live record.
        evaluated: scores, outcome, reasons, us and drift, as shadow.candidate.Evaluated has them.
    """
    scores, outcome, reasons, us, drift = evaluated
    live = record.decision or {}
    return ResultRow(
        shadow=shadow.id,
        transaction_id=record.id,
        at=datetime.fromtimestamp(record.at, UTC),
        release=record.release,
        champion_score=_last(record.scores),
        shadow_score=_last(scores),
        champion_scores=record.scores,
        shadow_scores=scores,
        champion_outcome=live.get("outcome"),
        shadow_outcome=outcome,
        champion_reasons=tuple(live.get("reasons", ())),
        shadow_reasons=tuple(reasons),
        amount=_amount(record.transaction.get(shadow.amount_field)),
        fields=_scalars(record.transaction),
        champion_us=_stages(record.us),
        shadow_us=us,
        drift={name: (pair[0], pair[1]) for name, pair in drift.items()},
    )


def _last(scores: Mapping[str, float]) -> float:
    """Return the last output of the model without a name, which answers have last."""
    return next(reversed(scores.values()))  # type: ignore[call-overload, no-any-return]  # dict has it


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _scalars(transaction: Mapping[str, Any]) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {}
    for name, value in transaction.items():
        if isinstance(value, str):
            found[name] = value[:MAX_TEXT]
        elif value is None or isinstance(value, bool | float):
            found[name] = value
        elif isinstance(value, int):
            found[name] = float(value)
        if len(found) == MAX_FIELDS:
            break
    return found


#: What the live trace calls the stages.
_US: Final = {"features": "features", "kernel": "model", "decision": "decision"}


def _stages(us: Mapping[str, int]) -> dict[str, int]:
    return {stage: us[name] for name, stage in _US.items() if name in us}
