"""The processes of a service: kept to their cores, found by a mark in their environment, measured, ended."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_MARK = "SERVICE_MARK"
#: Seconds that a service may take to end by itself.
_END_S = 10.0


@contextmanager
def marked(cores: set[int]) -> Iterator[Processes]:
    """Have whatever is started meanwhile, and what that starts, keep to some cores and carry a mark."""
    mark, before = uuid.uuid4().hex, os.sched_getaffinity(0)
    os.environ[_MARK] = mark
    os.sched_setaffinity(0, cores)
    try:
        yield Processes(mark)
    finally:
        os.sched_setaffinity(0, before)
        del os.environ[_MARK]


class Processes:
    """All processes that carry a mark, whoever their parents are by now.

    Args:
        mark: the mark.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._found: list[psutil.Process] = []

    def find(self) -> list[psutil.Process]:
        """Look for them; the figures are of those that were found last."""
        self._found = [one for one in psutil.process_iter() if self._carries(one)]
        return self._found

    def _carries(self, process: psutil.Process) -> bool:
        if process.pid == os.getpid():
            return False
        try:
            return process.environ().get(_MARK) == self._mark
        except psutil.Error:
            return False

    def cpu_s(self) -> float:
        """Return the processor time that they have taken so far."""
        total = 0.0
        for process in self._found:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def pss(self) -> int:
        """Return the bytes of their memory, what is shared by each one's part."""
        total = 0
        for process in self._found:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) << 10
        return total

    def end(self) -> None:
        """End them: asked first, killed where that does not help."""
        for process in self.find():
            with contextlib.suppress(psutil.Error):
                process.terminate()
        give_up_at = time.monotonic() + _END_S
        while time.monotonic() < give_up_at and self.find():
            time.sleep(0.1)
        for process in self.find():
            with contextlib.suppress(psutil.Error):
                process.kill()
