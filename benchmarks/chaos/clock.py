"""Clocks that jump: the wall clock of any single process can be moved, where a C compiler is at hand."""

from __future__ import annotations

import contextlib
import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock.c")
_PLACES = 65_536
_PLACE = struct.Struct("<q")


class Clocks:
    """The clocks of all processes that are started with `environment`.

    Args:
        directory: where the library is built; every user may read it.

    Attributes:
        environment: what makes a process keep a clock that can be moved; empty where that is not possible.
        why_not: why not; "" where it is.
    """

    def __init__(self, directory: Path) -> None:
        self.environment: dict[str, str] = {}
        self.why_not = ""
        directory.mkdir()
        compiler = shutil.which("cc")
        if compiler is None:
            self.why_not = "no C compiler (cc) is here, which builds the clock that is put before libc's"
            return
        library, places = directory / "clock.so", directory / "moved"
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.why_not = f"the clock cannot be built: {done.stderr.strip()}"
            return
        places.write_bytes(bytes(_PLACES * _PLACE.size))
        with places.open("r+b") as file:
            self._moved = mmap.mmap(file.fileno(), 0)
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(places)}

    @contextlib.contextmanager
    def moved(self, pid: int, seconds: float) -> Iterator[None]:
        """Move the clock of a process meanwhile; of its children as well, where they were forked from it."""
        at = pid % _PLACES * _PLACE.size
        _PLACE.pack_into(self._moved, at, int(seconds * 1e9))
        try:
            yield
        finally:
            _PLACE.pack_into(self._moved, at, 0)

    def close(self) -> None:
        """Let the file go."""
        if not self.why_not:
            self._moved.close()
