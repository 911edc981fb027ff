"""An engine in a process of its own, which loads its library alone, and scores when it is told to.

All engines live side by side and are asked in turns, so that what else the machine does meets all alike.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import Case, unseen_rows

_MODULES = {"scikit-learn": "sklearn", "scorewire": "models"}
#: Rows in all; calls go round in them.
_ROWS = 30_000


def is_installed(name: str) -> bool:
    """Say whether an engine's library is there."""
    return importlib.util.find_spec(_MODULES.get(name, name)) is not None


class EngineError(Exception):
    """An engine could not load the case or died; the message says which and why."""


class Engine:
    """The near end: starts the process and asks it.

    Args:
        name: of the engine, as in benchmarks.peers.
        case: the forest.
        pages: `file`, `4k`, or `huge`: our bundle in huge pages, and the libraries' memory too.

    Raises:
        EngineError: if it cannot load the case.
    """

    def __init__(self, name: str, case: Case, pages: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        if pages == "huge":
            os.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
        self._name = name
        self._process = context.Process(target=_serve, args=(far, name, case, pages), daemon=True)
        self._process.start()
        # Without this end, a process that dies is seen at once.
        far.close()
        os.environ.pop("GLIBC_TUNABLES", None)
        try:
            #: What it said of itself: columns, load_s, bytes.
            self.loaded: dict[str, Any] = self._answer()
        except EngineError:
            self.close()
            raise

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have something done, and wait for it."""
        self._pipe.send((command, arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise EngineError(f"{self._name} ended with code {self._process.exitcode}") from None
        if isinstance(answer, EngineError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _proportional() -> int:
    """Return the bytes of memory of this process, those that it shares by its part (PSS)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _serve(pipe: Connection, name: str, case: Case, pages: str) -> None:
    from benchmarks.peers import PEERS  # noqa: PLC0415 - it is imported in each process anew

    importlib.import_module(_MODULES.get(name, name))
    if name == "scorewire":
        importlib.import_module("models.forest")
    x = unseen_rows(_ROWS)
    before, began = _proportional(), time.perf_counter()
    try:
        scores = PEERS[name].load(case, pages)
        for score in scores.values():
            score(x[:1])
    except Exception as error:  # noqa: BLE001 - whatever a library raises is told to the near end
        pipe.send(EngineError(f"{name} cannot load the case: {type(error).__name__}: {error}"))
        return
    load_s = time.perf_counter() - began
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pipe.send({"columns": list(scores), "load_s": load_s, "bytes": _proportional() - before})
    commands: dict[str, Callable[..., Any]] = {
        "time": time_calls,
        "cold": _cold,
        "threads": _threads,
        "scores": _scores,
    }
    while True:
        command, arguments = pipe.recv()
        pipe.send(commands[command](scores[arguments.pop("column")], x, **arguments))


def _scores(score: Any, x: NDArray[np.float32], count: int, *, single: bool) -> NDArray[Any]:
    if single:
        return np.concatenate([score(x[row : row + 1]) for row in range(count)])
    return np.asarray(score(x[:count]))


def time_calls(score: Any, x: NDArray[np.float32], batch: int, calls: int, first: int) -> NDArray[np.float64]:
    """Return microseconds a row of each call."""
    taken = np.empty(calls)
    for call in range(calls):
        start = ((first + call) * batch) % (len(x) - batch + 1)
        rows = x[start : start + batch]
        began = time.perf_counter_ns()
        score(rows)
        taken[call] = time.perf_counter_ns() - began
    return taken / batch / 1e3


def _cold(score: Any, x: NDArray[np.float32], megabytes: int, calls: int) -> NDArray[np.float64]:
    """Time single rows, with so much other memory read between them; only the score is timed."""
    other = np.zeros(megabytes << 20, np.uint8).view(np.uint64)
    taken = np.empty(calls)
    for call in range(calls):
        other.sum()
        row = x[call : call + 1]
        began = time.perf_counter_ns()
        score(row)
        taken[call] = time.perf_counter_ns() - began
    return taken / 1e3


def _threads(score: Any, x: NDArray[np.float32], threads: int, batch: int, seconds: float) -> float:
    """Return the rows a second of so many threads, each of which scores so many a call."""
    counts = [0] * threads
    stop = time.perf_counter() + seconds

    def run(number: int) -> None:
        row = number * 997
        while time.perf_counter() < stop:
            for _ in range(50):
                start = row % (_ROWS - batch)
                score(x[start : start + batch])
                row += batch
            counts[number] += 50 * batch

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return sum(counts) / seconds
