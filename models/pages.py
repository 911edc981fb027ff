"""Maps files so that the processor finds its way in them fast: in huge pages, where the system grants them.

A row touches some 1,500 lines of a large forest, all over its memory; with pages of 4 KiB most of these also
need a walk through the page tables. A plain file mapping gets huge pages only from some file systems, and
then only where it is aligned to them. Asked for huge pages, this module has the kernel collapse the mapping
(MADV_COLLAPSE, Linux 6.1 and later), which memory file systems such as /dev/shm grant even where the system's
policy for shared memory is `never`: the one copy that all processes share is then in huge pages. Where that
is refused, the file is read into private memory in huge pages (MADV_HUGEPAGE).

Sources: madvise(2), Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import sys
import time
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

#: How a file is mapped: as it is, shared with all processes; or in huge pages, copied if it must be.
Pages = Literal["shared", "huge"]

_HUGE: Final = 2 << 20
_MAP_FIXED: Final = 0x10
_MADV_COLLAPSE: Final = 25
_COLLAPSE_TRIES: Final = 20
_COLLAPSE_PAUSE_S: Final = 0.005
_PMD_FIELDS: Final = ("AnonHugePages:", "ShmemPmdMapped:", "FilePmdMapped:")


def map_file(descriptor: int, size: int, pages: Pages = "shared") -> NDArray[np.uint8]:
    """Map a file for reading.

    Args:
        descriptor: an open file of at least one byte.
        size: its bytes.
        pages: `shared` maps the file; `huge` maps it in huge pages, or reads it into them.

    Returns:
        uint8 [size], read-only; the mapping lasts as long as it and its views.

    Raises:
        OSError: it cannot be mapped.
    """
    if sys.platform != "linux":
        return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), np.uint8)
    mapped = _map_aligned(descriptor, size)
    if pages == "shared":
        return mapped
    _collapse(mapped)
    return mapped if huge_bytes(mapped) * 2 >= size - _HUGE else _private_copy(mapped)


def _collapse(mapped: NDArray[np.uint8]) -> None:
    """Have the kernel put a mapping into huge pages, as far as its file system grants them."""
    for start in range(0, mapped.size, _HUGE):
        for _ in range(_COLLAPSE_TRIES):
            error = _madvise(mapped, start, min(_HUGE, mapped.size - start), _MADV_COLLAPSE)
            if error == errno.EINVAL:
                return  # this file system grants none
            if not error:
                break
            # Another process collapses the same pages just now, or memory is in pieces for a moment.
            time.sleep(_COLLAPSE_PAUSE_S)


def _aligned(reserve: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    start = -reserve.ctypes.data % _HUGE
    return reserve[start : start + size]


def _map_aligned(descriptor: int, size: int) -> NDArray[np.uint8]:
    """Map the file over an aligned part of a reserved range: whoever frees the range frees the mapping."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    reserve = np.frombuffer(mmap.mmap(-1, size + _HUGE, flags=flags, prot=mmap.PROT_READ), np.uint8)
    place = _aligned(reserve, size)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    shared = mmap.MAP_SHARED | _MAP_FIXED
    if libc.mmap(place.ctypes.data, size, mmap.PROT_READ, shared, descriptor, 0) != place.ctypes.data:
        raise OSError(ctypes.get_errno(), "the file cannot be mapped")
    return place


def _private_copy(mapped: NDArray[np.uint8]) -> NDArray[np.uint8]:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    reserve = np.frombuffer(mmap.mmap(-1, mapped.size + _HUGE, flags=flags), np.uint8)
    copy = _aligned(reserve, mapped.size)
    _madvise(copy, 0, copy.size, mmap.MADV_HUGEPAGE)
    copy[:] = mapped
    copy.flags.writeable = False
    return copy


def _madvise(array: NDArray[np.uint8], start: int, size: int, advice: int) -> int:
    """Advise the kernel; return 0 or the error's number."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    return ctypes.get_errno() if libc.madvise(array.ctypes.data + start, whole, advice) else 0


def huge_bytes(array: NDArray[np.generic]) -> int:
    """Return how many bytes of the mapping around an array are in huge pages; 0 if nobody says."""
    address, total, inside = array.ctypes.data, 0, False
    try:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in lines:
        name, *rest = line.split()
        if not name.endswith(":"):
            low, _, high = name.partition("-")
            inside = int(low, 16) <= address < int(high, 16)
        elif inside and name in _PMD_FIELDS:
            total += int(rest[0]) << 10
    return total
