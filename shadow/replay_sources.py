"""Where the past is read from for a replay: Kafka, the database, or Parquet files of live records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from actors.config import KafkaSettings, Settings
from governance import transactions
from governance.database import Connection, connect
from governance.replays import Source
from governance.transactions import Transaction
from shadow.batch import Message
from shadow.errors import BrokerError, RecordError
from shadow.kafka import consumer, topic
from shadow.record import LiveRecord, unpack_record

#: Records of a part of a partition, at most: parts are what is shared among processes and nodes.
PART_RECORDS: Final = 20_000
#: Seconds that a record may have come to Kafka after its answer left, in a tee's spool.
LATE_S: Final = 3600.0
#: The column of a Parquet file that holds packed live records.
RECORD_COLUMN: Final = "record"
_BROKER_S: Final = 10.0
_POLL_S: Final = 0.5
_PARTS_A_DAY: Final = 8

Places = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Past:
    """A record that no broker handed over; a Message.

    Attributes:
        record: its bytes.
        number: its place in its part.
    """

    record: bytes
    number: int

    def key(self) -> bytes | None:
        """There is none."""
        return None

    def value(self) -> bytes:
        """The record."""
        return self.record

    def partition(self) -> int:
        """There is one."""
        return 0

    def offset(self) -> int:
        """Its place."""
        return self.number


def kafka_places(
    settings: KafkaSettings, environment: str, since: datetime, until: datetime, late_s: float = LATE_S
) -> Places:
    """Cut the live topic between two moments into parts: a partition, and offsets from and to.

    The last part of a partition has no `to` where nothing is later than `until`: it is read to its end.

    Raises:
        BrokerError: Kafka does not answer.
    """
    client, name = consumer(settings, f"{settings.topic_prefix}.{environment}.replay"), ""
    try:
        name = topic(settings, environment, "live")
        found = client.list_topics(name, timeout=_BROKER_S).topics[name]
        begins = _offsets(client, name, found.partitions, since.timestamp())
        last = until.timestamp() + late_s
        # Nothing has come later than now: such a partition is read to its end.
        ends = _offsets(client, name, found.partitions, last) if last < time.time() else {}
        places: Places = []
        for partition, begin in begins.items():
            low, high = client.get_watermark_offsets(TopicPartition(name, partition), timeout=_BROKER_S)
            if begin >= 0:
                places += _cut(partition, max(begin, low), ends.get(partition, -1), high)
    except KafkaException as error:
        raise BrokerError(f"Kafka does not say what {name} holds: {error.args[0].str()}") from error
    finally:
        client.close()
    return places


def database_places(since: datetime, until: datetime) -> Places:
    """Cut the time between two moments into parts, along days, since answers are kept in a table a day."""
    places: Places = []
    day = since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    step = timedelta(days=1) / (1 if until - since > timedelta(days=_PARTS_A_DAY) else _PARTS_A_DAY)
    while day < until:
        begin, end = max(day, since), min(day + step, until)
        if begin < end:
            places.append({"since": begin.isoformat(), "until": end.isoformat()})
        day += step
    return places


def parquet_places(directory: Path) -> Places:
    """Cut the Parquet files of a directory into parts: a file and a group of its rows.

    Raises:
        OSError, ValueError: a file is no Parquet file, or has no column of live records.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - it is large, and only these files need it

    places: Places = []
    for path in sorted(directory.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            if RECORD_COLUMN not in file.schema_arrow.names:
                raise ValueError(f"{path} has no column {RECORD_COLUMN!r} of packed live records")
            groups = file.num_row_groups
        places += [{"file": str(path.resolve()), "group": group} for group in range(groups)]
    return places


def read_place(
    source: Source, place: Mapping[str, Any], settings: Settings, count: int
) -> Iterator[list[Message]]:
    """Yield the records of a place, so many at a time at most; an empty list where it has to wait."""
    if source == "kafka":
        assert settings.kafka is not None  # noqa: S101 - whoever takes such a part has looked
        yield from _read_kafka(settings.kafka, settings.environment, place, count)
    elif source == "parquet":
        yield from _read_parquet(place, count)
    else:
        yield from _read_database(settings, place, count)


def archive(
    source: Source, places: Places, settings: Settings, since: datetime, until: datetime, directory: Path
) -> int:
    """Write the live records between two moments to Parquet files, one for each place; return how many.

    Raises:
        OSError: the disk does not take them. Files appear whole; those that are there already are replaced.
    """
    import pyarrow as pa  # noqa: PLC0415 - it is large, and only these files need it
    import pyarrow.parquet as pq  # noqa: PLC0415

    directory.mkdir(parents=True, exist_ok=True)
    schema, written = pa.schema([(RECORD_COLUMN, pa.binary())]), 0
    for number, place in enumerate(places):
        whole = directory / f"{settings.environment}-{since:%Y%m%dT%H%M%S}-{number:05d}.parquet"
        partial = whole.with_name(f".{whole.name}.partial")
        with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
            for messages in read_place(source, place, settings, PART_RECORDS):
                records = [raw for one in messages if _lies_between(raw := one.value() or b"", since, until)]
                writer.write_batch(pa.record_batch([pa.array(records, pa.binary())], schema))
                written += len(records)
        partial.rename(whole)
    return written


def _lies_between(raw: bytes, since: datetime, until: datetime) -> bool:
    try:
        return since.timestamp() <= unpack_record(raw).at < until.timestamp()
    except RecordError:
        return False


def _offsets(client: Any, name: str, partitions: Any, when: float) -> Mapping[int, int]:
    asked = [TopicPartition(name, partition, int(when * 1e3)) for partition in partitions]
    return {one.partition: one.offset for one in client.offsets_for_times(asked, timeout=_BROKER_S)}


def _cut(partition: int, begin: int, end: int, high: int) -> Places:
    known = end if end >= 0 else max(begin, high)
    starts = list(range(begin, known, PART_RECORDS)) or [begin]
    bounds: list[int | None] = [*starts[1:], end if end >= 0 else None]
    return [
        {"partition": partition, "from": start, "to": stop}
        for start, stop in zip(starts, bounds, strict=True)
    ]


def _read_kafka(
    settings: KafkaSettings, environment: str, place: Mapping[str, Any], count: int
) -> Iterator[list[Message]]:
    # No place is committed: the part says where it begins and ends.
    client = consumer(settings, f"{settings.topic_prefix}.{environment}.replay", enable_partition_eof=True)
    end = place["to"]
    try:
        client.assign(
            [TopicPartition(topic(settings, environment, "live"), place["partition"], place["from"])]
        )
        while True:
            found, over = [], False
            for message in client.consume(count, _POLL_S):
                error = message.error()
                if error is None and (end is None or message.offset() < end):
                    found.append(message)
                over = over or (error is not None and error.code() == KafkaError._PARTITION_EOF)  # noqa: SLF001
                over = over or (error is None and end is not None and message.offset() >= end - 1)
            yield found
            if over:
                return
    finally:
        client.close()


def _read_parquet(place: Mapping[str, Any], count: int) -> Iterator[list[Message]]:
    import pyarrow.parquet as pq  # noqa: PLC0415 - it is large, and only these files need it

    with pq.ParquetFile(place["file"]) as file:
        records = file.read_row_group(place["group"], columns=[RECORD_COLUMN]).column(0).to_pylist()
    for start in range(0, len(records), count):
        yield [Past(one, start + n) for n, one in enumerate(records[start : start + count])]


def _read_database(settings: Settings, place: Mapping[str, Any], count: int) -> Iterator[list[Message]]:
    since, until = (datetime.fromisoformat(place[name]) for name in ("since", "until"))
    pipelines: dict[int, dict[str, str]] = {}
    with connect(settings.dsn) as connection, connect(settings.dsn) as beside:
        found: list[Message] = []
        for number, one in enumerate(transactions.between(connection, settings.environment, since, until)):
            if one.release not in pipelines:
                pipelines[one.release] = _pipeline(beside, one)
            found.append(Past(record_of(one, pipelines[one.release]).pack(), number))
            if len(found) == count:
                yield found
                found = []
        yield found


def record_of(one: Transaction, pipeline: Mapping[str, str]) -> LiveRecord:
    """Return an answer that the database keeps as the live record that it came from.

    Args:
        one: the answer.
        pipeline: stage to digest, of the release that gave it.
    """
    decision = None if one.outcome is None else {"outcome": one.outcome, "reasons": list(one.reasons)}
    return LiveRecord(
        id=one.id,
        node=one.node,
        seq=one.seq,
        at=one.at.timestamp(),
        release=one.release,
        environment=one.environment,
        pipeline=pipeline,
        transaction=one.fields,
        nodes=one.nodes,
        features=one.features,
        scores=one.scores,
        decision=decision,
        us=one.us,
        canary=one.canary,
    )


def _pipeline(connection: Connection, one: Transaction) -> dict[str, str]:
    rows = connection.execute(
        "SELECT stage, digest FROM release_stage"
        " WHERE environment = %s AND number = %s AND slot = 'champion'",
        (one.environment, one.release),
    ).fetchall()
    return {row["stage"]: row["digest"] for row in rows}
