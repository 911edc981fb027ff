"""Keeps one HAProxy running and at the membership: every step may be taken again and again."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from haproxy.binary import find_binary
from haproxy.errors import HaproxyError
from haproxy.plan import ROLES, TCP_ROLE, Servers, slots_for
from haproxy.process import Process
from haproxy.render import render, structure
from haproxy.setup import Setup
from haproxy.steer import Steering

logger = logging.getLogger(__name__)

#: Seconds between two attempts to start a HAProxy that does not.
AGAIN_S = 2.0


class Agent:
    """One HAProxy and what it should be.

    HAProxy and its file are the memory: an agent that takes another's place adopts what runs. Until the
    membership was read for the first time, nothing of it is changed.

    Args:
        setup: the host's HAProxies.
        index: which of them.

    Attributes:
        trouble: what goes wrong at the moment; "" if nothing does.
        ready: HAProxy answers, and has servers if there are any.
        starts: how often HAProxy was started, reloads and adoptions not counted.
        reloads: how often it was reloaded.

    Raises:
        BinaryError: there is no HAProxy to run.
    """

    def __init__(self, setup: Setup, index: int) -> None:
        self.trouble = ""
        self.ready = False
        self.starts = 0
        self.reloads = 0
        self._options = setup.instances[index]
        self._process = Process(find_binary(setup.binary), self._options, setup.log(index))
        self._steering = Steering(self._options)
        self._least = setup.slots
        self._slots: Mapping[str, int] = {TCP_ROLE: setup.slots}
        self._servers: Servers | None = None
        self._start_at = 0.0

    @property
    def serving(self) -> int:
        """How many servers HAProxy held for ready when it was last looked at."""
        return self._steering.serving

    def take(self, servers: Servers) -> None:
        """Take the servers of the membership; `keep` acts on them."""
        self._servers = servers
        self._slots = slots_for(servers, self._least, self._slots)

    def keep(self) -> None:
        """Bring HAProxy to where it should be, as far as that goes now; its troubles are told, not raised."""
        try:
            self._keep()
        except HaproxyError as error:
            self.ready = False
            self._tell(str(error))
        else:
            self.ready = self._serves()
            self._tell("")

    def stop(self) -> None:
        """Stop HAProxy."""
        self._process.stop()

    def _keep(self) -> None:
        if self._process.pid() is None:
            self._start()
        servers = self._servers
        if servers is None:
            return
        self._process.write(render(self._options, servers, self._slots))
        wanted = structure(self._options, self._slots)
        running = self._process.structure()
        if running and running != wanted:
            self._process.reload(wanted)
            self.reloads += 1
        self._steering.steer(self._process.runtime, servers)

    def _serves(self) -> bool:
        servers = self._servers
        if servers is None:  # the database is away: the last configuration is in use
            return bool(self._process.structure())
        return self._steering.serving > 0 or not any(servers.values())

    def _start(self) -> None:
        """Start with the membership if it is known, else with the last one, else with no nodes."""
        if time.monotonic() < self._start_at:
            raise HaproxyError(self.trouble)
        # One that was killed is back at once; one that cannot start waits.
        self._start_at = time.monotonic() + AGAIN_S
        if self._servers is not None:
            self._process.write(render(self._options, self._servers, self._slots))
        elif not self._options.configuration.exists():
            self._process.write(render(self._options, dict.fromkeys(ROLES, ()), self._slots))
        self._process.start()
        self._start_at = 0.0
        self.starts += 1

    def _tell(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                logger.warning("%s", trouble)
            else:
                logger.info("HAProxy is as it should be again")
