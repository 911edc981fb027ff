"""The files that rings are in: where they may be, how they are made, and what their headers say."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import struct
import time
from pathlib import Path
from typing import Final

from transport.errors import TeeRingError

logger = logging.getLogger(__name__)

#: Smallest ring, in bytes.
LEAST_RING_BYTES: Final = 64 << 10
#: How a ring's file is called, and one that is being made.
SUFFIX, NEW = ".ring", ".new"
#: Bytes before the ring itself, and where in them counters end and the writer's name stands.
HEADER_BYTES, NAME_AT = 4096, 256

_MAGIC: Final = b"SWRING01"
_WORD: Final = struct.Struct("=Q")
_NAME: Final = struct.Struct("<H")
_MAX_NAME: Final = 300


def own_directory(directory: Path) -> None:
    """Make a directory of this user's alone, or see that it is one.

    Raises:
        TeeRingError: it cannot be made, or others may write there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise TeeRingError(f"{directory} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise TeeRingError(f"{directory} is not a directory of this user's alone")


def room_in(directory: Path, wanted: int) -> int:
    """Return how large a ring may be there, in bytes: half of what is free, so that the next one has room."""
    free = shutil.disk_usage(directory).free // 2
    if free < wanted:
        logger.warning("%s has room for a ring of %.1f MB, not of %.1f", directory, free / 1e6, wanted / 1e6)
    return min(wanted, free)


def make_file(directory: Path | None, node: str, capacity: int) -> tuple[Path, int]:
    """Make the file of a ring, locked, all of its memory taken; return its path and its descriptor.

    Args:
        directory: where; None is nowhere, and memory that nobody else finds.
        node: whose it is.
        capacity: bytes of the ring.

    Raises:
        TeeRingError: the directory is another user's, or there is no room.
    """
    name = node.encode("utf-8")
    path = Path(f"{time.monotonic_ns():020d}-{os.getpid()}{SUFFIX}")
    if directory is not None:
        path = directory / path
    new = path.with_suffix(NEW)
    file = -1
    try:
        file = os.memfd_create(path.name) if directory is None else _create(new)
        fcntl.flock(file, fcntl.LOCK_EX)
        # All of it, now: a page that is missing later would be a signal instead of an error.
        os.posix_fallocate(file, 0, HEADER_BYTES + capacity)
        os.pwrite(file, _MAGIC + _WORD.pack(capacity), 0)
        os.pwrite(file, _NAME.pack(len(name)) + name, NAME_AT)
        if directory is not None:
            new.rename(path)
    except OSError as error:
        if file >= 0:
            os.close(file)
            new.unlink(missing_ok=True)
        raise TeeRingError(
            f"no ring of {capacity / 1e6:.1f} MB can be made in {directory}: {error.strerror}"
        ) from error
    return path, file


def _create(path: Path) -> int:
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:  # a tee that ended has just removed the directory, which was empty
        own_directory(path.parent)
        return os.open(path, flags, 0o600)


def read_header(path: Path, file: int) -> tuple[int, str]:
    """Return a ring's capacity and its writer's name.

    Raises:
        TeeRingError: the file is no ring.
    """
    found, header = os.fstat(file), os.pread(file, HEADER_BYTES, 0)
    if not stat.S_ISREG(found.st_mode) or len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        raise TeeRingError(f"{path} is no ring of this version")
    (capacity,) = _WORD.unpack_from(header, len(_MAGIC))
    if capacity < LEAST_RING_BYTES or capacity != found.st_size - HEADER_BYTES:
        raise TeeRingError(f"{path} says that it has {capacity} bytes, and its file has {found.st_size}")
    (length,) = _NAME.unpack_from(header, NAME_AT)
    try:
        name = header[NAME_AT + _NAME.size :][: min(length, _MAX_NAME)].decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not name:
        raise TeeRingError(f"{path} does not say whose it is")
    return capacity, name
