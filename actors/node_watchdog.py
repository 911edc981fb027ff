"""The watchdog of a node: a thread that finds an actor which hangs, and ends the node so that it is replaced.

Each actor stamps when it begins with a message. One that has been at it for too long (a deadlock, an endless
loop, a call that never returns) cannot be ended alone, since a thread cannot be killed: the stacks are noted
and the process ends with HUNG. While all is well, a sign of life goes to whoever started the process;
where even this thread gets no turn, the missing sign says so, and the launcher or systemd acts.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

import pykka

from actors import notify
from actors.blackbox import BlackBox
from actors.child import Life, life_of

logger = logging.getLogger(__name__)

#: The exit code of a process that its watchdog ended.
HUNG = 5
#: Seconds between two looks.
LOOK_S = 0.5


class NodeWatchdog:
    """Looks after the actors of this process.

    Args:
        hung_s: seconds that an actor which is watched may take for one message.
        ready: says whether the process can do its work; told once.
        box: where stacks go.
    """

    def __init__(
        self, hung_s: float, ready: Callable[[], bool] = lambda: True, box: BlackBox | None = None
    ) -> None:
        self._hung_s = hung_s
        self._ready = ready
        self._box = box
        self._told = False
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more: the process stops, and its supervisor has deadlines of its own."""
        self._over.set()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            found = self.hanging(time.monotonic())
            if found:
                self._end(found)
            self._tell()

    def hanging(self, now: float) -> str:
        """Name an actor that hangs, and for how long it does; "" if none does."""
        for ref in pykka.ActorRegistry.get_all():
            try:
                life: Life = life_of(ref)
            except TypeError:
                continue
            since = life.busy_since
            if life.watched and since is not None and now - since > self._hung_s:
                return f"{ref.actor_class.__name__} has been at one message for {now - since:.1f} s"
        return ""

    def _tell(self) -> None:
        words = [notify.WATCHDOG]
        if not self._told and self._ready():
            self._told = True
            words.append(notify.READY)
        notify.tell(*words)

    def _end(self, why: str) -> None:
        logger.critical("%s: this node ends, to be replaced", why)
        if self._box is not None:
            self._box.dump(why)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(HUNG)
