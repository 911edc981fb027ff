"""Results in Parquet files, for the tools of whoever analyses them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from governance.backoff import Backoff
from shadow.errors import Stopped
from shadow.result import COLUMNS, ResultRow, to_columns

logger = logging.getLogger(__name__)

#: Columns that are no text; all others are, and those of more than one value are JSON.
_TYPES: Final = {
    "shadow": pa.int64(),
    "at": pa.timestamp("us", "UTC"),
    "release": pa.int32(),
    "champion_score": pa.float64(),
    "shadow_score": pa.float64(),
    "amount": pa.float64(),
}
SCHEMA: Final = pa.schema([(name, _TYPES.get(name, pa.string())) for name in COLUMNS])


class ParquetOutlet:
    """Writes results to a stream of Arrow's, and makes a Parquet file of it when it is large or old enough.

    What was written is safe: the stream of a process that died becomes a file when another starts. A file
    appears whole, under a name that ends with `.parquet`. A result may come more than once.

    Args:
        directory: where; several processes may write there.
        name: begins the names of the files of this process.
        max_bytes: of a stream, until it becomes a file.
        max_s: seconds until it does.
        stop: set when the node stops.
    """

    def __init__(
        self, directory: Path, name: str, max_bytes: int, max_s: float, stop: threading.Event
    ) -> None:
        self._directory = directory
        self._name = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
        self._max_bytes = max_bytes
        self._max_s = max_s
        self._stop = stop
        self._number = 0
        self._open: _Stream | None = None
        self._lock = threading.Lock()
        #: How often the disk refused.
        self.failed = 0
        directory.mkdir(parents=True, exist_ok=True)
        recover(directory)

    def write(self, rows: Sequence[ResultRow]) -> None:
        """Take results. A disk that refuses is asked again until it takes them.

        Raises:
            Stopped: the node stops before it did.
        """
        batch = pa.RecordBatch.from_arrays(
            [
                pa.array(values, field.type)
                for values, field in zip(zip(*map(to_columns, rows), strict=True), SCHEMA, strict=True)
            ],
            schema=SCHEMA,
        )
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                with self._lock:
                    self._write(batch)
            except OSError as error:
                self.failed += 1
                logger.warning("results cannot be written to %s: %s", self._directory, error)
                self._stop.wait(backoff.pause_s())
            else:
                return
        raise Stopped

    def look(self) -> None:
        """Finish the file if its time has come."""
        with self._lock:
            if self._open is not None and time.monotonic() > self._open.began + self._max_s:
                self._finish()

    def close(self) -> None:
        """Finish the file."""
        with self._lock:
            self._finish()

    def _write(self, batch: Any) -> None:
        if self._open is None:
            self._number += 1
            self._open = _Stream(self._directory / f".{self._name}-{self._number}.arrows")
        try:
            size = self._open.write(batch)
        except OSError:
            # Its end may be half a batch, after which no further one would be read.
            stream, self._open = self._open, None
            stream.leave()
            raise
        if size >= self._max_bytes:
            self._finish()

    def _finish(self) -> None:
        stream, self._open = self._open, None
        if stream is None:
            return
        stream.leave()
        try:
            recover(self._directory)
        except OSError as error:  # it is made a file of when there is room again
            self.failed += 1
            logger.warning("no Parquet file can be made in %s: %s", self._directory, error)


class _Stream:
    """A stream that is being written, locked by its process for as long as that lives."""

    def __init__(self, path: Path) -> None:
        self.began = time.monotonic()
        self._file = FileIO(path, "xb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._writer = pa.ipc.new_stream(self._file, SCHEMA)

    def write(self, batch: Any) -> int:
        self._writer.write_batch(batch)
        os.fsync(self._file.fileno())
        return self._file.tell()

    def leave(self) -> None:
        """Let go of it; whoever recovers makes a file of it."""
        with contextlib.suppress(OSError, pa.ArrowException):
            self._writer.close()
        self._file.close()


def recover(directory: Path) -> int:
    """Make Parquet files of the streams that nobody writes to any more; return how many."""
    made = 0
    for path in sorted(directory.glob(".*.arrows")):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # it is being written, or made a file of
            if path.exists():
                made += _convert(file, path)
    return made


def _convert(file: Any, path: Path) -> int:
    batches = []
    with contextlib.suppress(pa.ArrowException, EOFError, OSError):  # what was cut off is not there
        batches.extend(pa.ipc.open_stream(file))
    if batches:
        whole = path.with_name(f"{path.name[1:].removesuffix('.arrows')}-{time.time_ns()}.parquet")
        partial = whole.with_name(f".{whole.name}.partial")
        pq.write_table(pa.Table.from_batches(batches), partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.rename(whole)
    path.unlink()
    return int(bool(batches))
