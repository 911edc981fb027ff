"""Standing back behind the live nodes of the same host."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

#: Where the kernel says how much a session counts beside others.
_SESSION: Final = Path("/proc/self/autogroup")
#: It takes one word a tenth of a second, of all processes together.
_PAUSE_S, _TRIES = 0.11, 20


def step_back(nice: int, *, session: bool = True) -> None:
    """Let this process stand back. Call it before it starts threads, which then stand back as well.

    A niceness counts only within a session where the kernel shares the processors among sessions first
    (autogroups, the default of many distributions), and each process of a host has a session of its own. So
    the session gets that niceness, too. And a process that stands back does not interrupt one that works when
    it wakes (SCHED_BATCH).

    Args:
        nice: how far, 0 to 19; 0 leaves all as it is.
        session: whether the session does, too. On a host that is full, little is then left for it.
    """
    if not nice:
        return
    os.nice(nice)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if session and os.getsid(0) == os.getpid() and _SESSION.exists():
        _tell_session(nice)


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
