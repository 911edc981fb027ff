"""Standing back behind the live nodes of the same host."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import time
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

#: Where the kernel says how much a session counts beside others.
_SESSION: Final = Path("/proc/self/autogroup")
#: It takes one word a tenth of a second, of all processes together.
_PAUSE_S, _TRIES = 0.11, 20
#: The longest turn that the scheduler gives, in ns. Whoever wakes and asks for a shorter one goes first.
_TURN_NS: Final = 100_000_000
#: The number of the system call: C libraries have no function for it before glibc 2.41.
_SET_ATTRIBUTES: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274, "ppc64le": 355, "s390x": 345}


#: Seconds of work at a time, and of rest: a kernel's timer adds about 50 us of its own.
_BITE_S, _REST_S = 2e-4, 1e-5


class Breather:
    """Rests for a moment again and again in long work, so that live nodes of the same host get this core.

    Whoever wakes interrupts a process that stands back, unless it had more than its share just before: then
    Linux looks again only at the next tick of its clock, milliseconds later, even while another core is idle.
    A process that sleeps for an instant hands its core over at once.
    """

    def __init__(self) -> None:
        self._since = 0.0

    def breathe(self) -> None:
        """Rest if the last rest is a while ago; call it between any two small steps. One thread does."""
        if time.monotonic() - self._since > _BITE_S:
            time.sleep(_REST_S)
            self._since = time.monotonic()


class _Attributes(ctypes.Structure):
    """The kernel's `struct sched_attr`, in its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def step_back(nice: int, *, session: bool = True) -> None:
    """Let this process stand back, for good. Call it before it starts threads, which then stand back as well.

    A niceness counts only within a session where the kernel shares the processors among sessions first
    (autogroups, the default of many distributions), and each process of a host has a session of its own. So
    the session gets that niceness, too. A process that stands back does not interrupt one that works when it
    wakes (SCHED_BATCH), and has long turns, in which whoever wakes with a shorter one may interrupt it at
    once instead of at the end of the turn (from Linux 6.12 on).

    Args:
        nice: how far, 0 to 19; 0 leaves all as it is.
        session: whether the session does, too. On a host that is full, little is then left for it.
    """
    if not nice:
        return
    os.nice(nice)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    _take_long_turns()
    if session and os.getsid(0) == os.getpid() and _SESSION.exists():
        _tell_session(nice)


def _take_long_turns() -> None:
    number = _SET_ATTRIBUTES.get(platform.machine())
    if number is None:
        return
    size, policy = ctypes.sizeof(_Attributes), os.SCHED_BATCH
    wanted = _Attributes(size=size, policy=policy, nice=os.nice(0), runtime=_TURN_NS)
    # Older kernels take it and leave turns as they are; one that takes it not at all leaves all as it is.
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, ctypes.byref(wanted), 0):
        logger.info("turns stay as they are: %s", os.strerror(ctypes.get_errno()))


def _tell_session(nice: int) -> None:
    for _ in range(_TRIES):
        try:
            _SESSION.write_text(str(nice), encoding="ascii")
        except BlockingIOError:
            time.sleep(_PAUSE_S)
        except OSError as error:
            logger.warning("this session cannot stand back behind others: %s", error.strerror)
            return
        else:
            return
