"""The black box of a node: its last notes and its stacks, in files that survive whatever ends it.

Notes lie in a memory-mapped ring, so that they are the kernel's as soon as they are made: no kill takes them
back, and no disk is waited for. Stacks are written by faulthandler: on a fatal signal, on SIGABRT from who
watches this node, and on SIGUSR1 whenever somebody wants to look.
"""

from __future__ import annotations

import faulthandler
import itertools
import logging
import mmap
import os
import signal
import struct
import time
from pathlib import Path
from typing import Final

#: Bytes of a note, and how many notes are kept.
_NOTE: Final = struct.Struct("<Qd")
_SLOT, _SLOTS = 192, 256
_TEXT = _SLOT - _NOTE.size


class BlackBox:
    """Takes notes. Safe from any thread.

    Args:
        ring: the file of the notes; its old ones are dropped.
        crash: the file that stacks are appended to.
    """

    def __init__(self, ring: Path, crash: Path) -> None:
        ring.parent.mkdir(parents=True, exist_ok=True)
        self._numbers = itertools.count(1)
        descriptor = os.open(ring, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(
                descriptor, 0, _SLOT * _SLOTS
            )  # a full disk is an error here, and no SIGBUS later
            self._map = mmap.mmap(descriptor, _SLOT * _SLOTS)
        finally:
            os.close(descriptor)
        self._crash = crash.open("a", encoding="utf-8")

    def watch(self) -> None:
        """Write all stacks on fatal signals, on SIGABRT and on SIGUSR1."""
        faulthandler.enable(self._crash, all_threads=True)
        faulthandler.register(signal.SIGUSR1, self._crash, all_threads=True)

    def note(self, text: str) -> None:
        """Take a note; it is cut to what fits."""
        number = next(self._numbers)
        at = (number % _SLOTS) * _SLOT
        data = text.encode(errors="replace")[:_TEXT]
        self._map[at : at + _SLOT] = _NOTE.pack(number, time.time()) + data.ljust(_TEXT, b"\0")

    def dump(self, why: str) -> None:
        """Write all stacks, with the reason."""
        self._crash.write(f"--- {why}\n")
        self._crash.flush()
        faulthandler.dump_traceback(self._crash, all_threads=True)


class NotesHandler(logging.Handler):
    """Notes what is logged."""

    def __init__(self, box: BlackBox) -> None:
        super().__init__()
        self._box = box

    def emit(self, record: logging.LogRecord) -> None:
        """Take a note of a record."""
        self._box.note(f"{record.levelname} {record.name} {record.getMessage()}")


def files_of(logs: Path, node: str) -> tuple[Path, Path]:
    """Return the files of a node's black box: its ring and its crash file."""
    return logs / f"{node}.ring", logs / f"{node}.crash"


def read_notes(ring: Path) -> list[tuple[float, str]]:
    """Return the notes of a ring, the oldest first: unix seconds and text; none if there is no ring."""
    try:
        data = ring.read_bytes()
    except OSError:
        return []
    found = []
    for at in range(0, len(data) - _SLOT + 1, _SLOT):
        number, when = _NOTE.unpack_from(data, at)
        if number:
            text = data[at + _NOTE.size : at + _SLOT].rstrip(b"\0").decode(errors="replace")
            found.append((number, when, text))
    return [(when, text) for _, when, text in sorted(found)]


def write_end(logs: Path, node: str, code: int, last: int = 40) -> None:
    """Add to a node's crash file how it ended, and its last notes."""
    ring, crash = files_of(logs, node)
    if code < 0:
        how = f"killed by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"signal {-code}"
    else:
        how = f"exit code {code}"
    lines = [f"=== {time.strftime('%Y-%m-%d %H:%M:%S')} {node} ended: {how}; its last notes:\n"]
    lines += [
        f"{time.strftime('%H:%M:%S', time.localtime(when))}.{int(when % 1 * 1000):03d} {text}\n"
        for when, text in read_notes(ring)[-last:]
    ]
    with crash.open("a", encoding="utf-8") as out:
        out.writelines(lines)


def open_box(logs: Path, node: str) -> BlackBox | None:
    """Open the black box of this process and let it note what is logged; None where no files can be made."""
    ring, crash = files_of(logs, node)
    try:
        box = BlackBox(ring, crash)
        box.watch()
    except OSError as error:
        logging.getLogger(__name__).warning("no black box at %s: %s", ring, error)
        return None
    logging.getLogger().addHandler(NotesHandler(box))
    return box
