"""The process of one candidate: it evaluates what its node hands it, within limits that the kernel holds.

Started by shadow.process with two descriptors: a socket, over which a greeting and then batches come in and
results go out, and a bit of shared memory.
"""

from __future__ import annotations

import logging
import mmap
import os
import resource
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import psycopg

from actors.config import Settings
from actors.evaluation import Evaluator
from actors.loading import PipelineLoader
from actors.logs import start_log
from actors.priority import step_back
from governance.database import connect
from governance.errors import CacheError
from shadow import frames
from shadow.candidate import Candidate, Evaluated, Refused
from shadow.record import unpack_record

logger = logging.getLogger(__name__)

#: The exit code of a candidate that has used up its memory; its node starts another.
OUT_OF_MEMORY = 5
#: The place of the record whose turn it is, in memory that the node shares.
MARK = struct.Struct("<q")
#: Seconds of CPU time that loading may take.
LOAD_CPU_S = 300.0
_WATCH_S = 1.0


def main() -> None:
    """Serve the node at the other end of the socket."""
    link = socket.socket(fileno=int(sys.argv[1]))
    # Whatever prints must not do so where others read.
    os.dup2(2, 1)
    parent = os.getppid()
    greeting = frames.receive(link)
    step_back(greeting["nice"])
    threading.Thread(target=_watch, args=(parent,), name="parent-watch", daemon=True).start()
    _limit_memory(greeting["memory_bytes"])
    settings = Settings.model_validate_json(greeting["settings"])
    start_log(settings, "candidate", f"candidate-{os.getpid()}", level="WARNING")
    loader = _Loader(settings, link)
    candidate = Candidate(greeting["overrides"], loader, _marker(int(sys.argv[2])))
    frames.send(link, {"ready": os.getpid()})
    try:
        while True:
            batch = frames.receive(link)
            loader.cpu_s = batch["cpu_s"]
            _allow_cpu(batch["cpu_s"])
            frames.send(link, _answer(candidate, batch["records"]))
    except (EOFError, ConnectionError):
        return  # the node has let it go
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _answer(candidate: Candidate, records: list[bytes]) -> dict[str, Any]:
    try:
        found = candidate.evaluate([unpack_record(record) for record in records])
    except (psycopg.OperationalError, CacheError) as error:
        return {"wait": f"{type(error).__name__}: {error}"}
    return {"results": [_packed(result) for result in found]}


def _packed(result: Evaluated | Refused) -> list[Any] | str:
    if isinstance(result, Refused):
        return result.reason
    return [
        dict(result.scores),
        result.outcome,
        list(result.reasons),
        dict(result.us),
        dict(result.drift),
    ]


def _marker(descriptor: int) -> Callable[[int], None]:
    """Return what writes a place where the node can read it after this process has died."""
    memory = mmap.mmap(descriptor, MARK.size)
    return lambda place: MARK.pack_into(memory, 0, place)


class _Loader:
    """Loads as live nodes do, over a connection that lasts for as long as loading takes.

    Loading has limits of its own: a large model is checked and warmed, and on a host where none was before
    the kernel is compiled first.
    """

    def __init__(self, settings: Settings, link: socket.socket) -> None:
        self._settings = settings
        self._link = link
        self._pipelines = PipelineLoader(self._settings.cache.expanduser(), self._settings)
        self.cpu_s = 0.0  # that the batch may take once all is loaded

    def __call__(self, stages: Mapping[str, str], only: Collection[str], run: Collection[str]) -> Evaluator:
        frames.send(self._link, {"loading": True})
        _allow_cpu(LOAD_CPU_S)
        try:
            with connect(self._settings.dsn) as connection:
                return self._pipelines.load(connection, stages, only=only, run=run)
        finally:
            _allow_cpu(self.cpu_s)
            frames.send(self._link, {"loading": False})


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes beyond what it has, as address space: the kernel refuses more."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _allow_cpu(seconds: float) -> None:
    """Let this process use so many seconds of CPU time more; the kernel then ends it, loop or not."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))


def _watch(parent: int) -> None:
    """End when the node is gone; a loop that never lets this run ends by its limit of CPU time."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


if __name__ == "__main__":
    main()
