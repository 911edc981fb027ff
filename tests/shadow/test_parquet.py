"""Parquet files: whole, rolled by size and time, and nothing lost when their writer dies."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shadow.errors import Stopped
from shadow.parquet import ParquetOutlet, recover
from shadow.result import COLUMNS
from tests.shadow.rows import NOON, result

WRITER = """
import sys, threading, time
from pathlib import Path
from shadow.parquet import ParquetOutlet
from tests.shadow.rows import result
outlet = ParquetOutlet(Path(sys.argv[1]), "dead", 1 << 30, 1e9, threading.Event())
outlet.write([result(n) for n in range(10)])
print("written", flush=True)
time.sleep(100)
"""


def outlet(directory: Path, *, max_bytes: int = 1 << 30, max_s: float = 1e9) -> ParquetOutlet:
    return ParquetOutlet(directory, "shadow-0@h/1", max_bytes, max_s, threading.Event())


def ids(directory: Path) -> list[str]:
    return sorted(
        one
        for file in directory.glob("*.parquet")
        for one in pq.read_table(file)["transaction_id"].to_pylist()
    )


def test_results_become_a_file_that_others_read(tmp_path: Path) -> None:
    writer = outlet(tmp_path)
    writer.write([result(0, at=NOON), result(1, amount=None)])
    assert ids(tmp_path) == []
    writer.close()
    (file,) = tmp_path.iterdir()
    table = pq.read_table(file)
    assert table.column_names == list(COLUMNS)
    first = table.to_pylist()[0]
    assert (first["at"], first["champion_score"], first["shadow_outcome"]) == (NOON, 0.25, "review")
    assert first["shadow_scores"] == '{"fraud":0.5}'


def test_files_are_rolled_by_size_and_by_time(tmp_path: Path) -> None:
    large = outlet(tmp_path, max_bytes=1)
    large.write([result(0)])
    large.write([result(1)])
    assert len(ids(tmp_path)) == len(list(tmp_path.glob("*.parquet"))) == 2
    old = outlet(tmp_path, max_s=0)
    old.write([result(2)])
    old.look()
    assert ids(tmp_path) == ["tx-0", "tx-1", "tx-2"]


def test_what_a_process_wrote_that_was_killed_is_there(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        assert recover(tmp_path) == 0  # it lives
        process.send_signal(signal.SIGKILL)
    (stream,) = tmp_path.glob(".*.arrows")
    stream.write_bytes(stream.read_bytes() + b"\xff\xff\xff\xffhalf a batch")
    outlet(tmp_path).close()
    assert ids(tmp_path) == sorted(f"tx-{n}" for n in range(10))
    assert list(tmp_path.glob(".*")) == []


def test_a_disk_that_refuses_is_asked_again(tmp_path: Path) -> None:
    full = tmp_path / "full"
    writer = outlet(full)
    full.rmdir()  # it is gone, as a disk that was unmounted
    mender = threading.Timer(0.3, full.mkdir)
    mender.start()
    writer.write([result(0)])
    writer.close()
    assert writer.failed > 0
    assert ids(full) == ["tx-0"]
    stop = threading.Event()
    ending = ParquetOutlet(tmp_path / "end", "x", 1, 1, stop)
    stop.set()
    with pytest.raises(Stopped):
        ending.write([result(0)])
