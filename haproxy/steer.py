"""Brings a running HAProxy to the membership, with no reload: nodes come into places and leave them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from haproxy.plan import Options, Servers
from haproxy.runtime import Runtime, Slot

logger = logging.getLogger(__name__)

#: Seconds that a node which the membership has lost, but whose health is good, keeps its place: after an
#: outage of the database all beats are old, and nobody must be taken out for that.
MISSING_S = 15.0


class Steering:
    """What is known of the servers of one HAProxy over time. HAProxy itself holds the state.

    Args:
        options: how HAProxy is set up.
        missing_s: seconds that a healthy node may be missing from the membership.

    Attributes:
        serving: servers that HAProxy held for ready when it was last looked at.
    """

    def __init__(self, options: Options, *, missing_s: float = MISSING_S) -> None:
        self.serving = 0
        self._drain_s = options.drain_s
        self._missing_s = missing_s
        self._missing: dict[tuple[str, str], float] = {}
        self._draining: dict[tuple[str, str], float] = {}

    def steer(self, runtime: Runtime, servers: Servers) -> int:
        """Do what is to do now; call it again and again.

        Returns:
            how many servers found no place: a configuration with more of them is due.

        Raises:
            SocketError: HAProxy does not answer, or refuses.
        """
        slots = runtime.slots()
        self.serving = sum(slot.serves for slot in slots)
        for slot in slots:
            if not slot.idle and not _wanted(slot, servers):
                self._take_out(runtime, slot)
        return sum(self._bring_in(runtime, role, servers, slots) for role in servers)

    def _bring_in(self, runtime: Runtime, role: str, servers: Servers, slots: Sequence[Slot]) -> int:
        mine = [slot for slot in slots if slot.backend == role]
        by_address = {slot.address: slot for slot in mine if not slot.idle}
        free = [slot for slot in mine if slot.idle]
        homeless = 0
        for server in servers[role]:
            slot = by_address.get(server.address)
            if slot is None and not free:
                homeless += 1
                continue
            if slot is None:
                slot = free.pop(0)
                logger.info("%s takes %s/%s", server.address, role, slot.name)
            self._forget(slot)
            runtime.fill(slot, server)
        return homeless

    def _take_out(self, runtime: Runtime, slot: Slot) -> None:
        """Drain a server that left: at once if its health says so too, else after a while."""
        key, now = (slot.backend, slot.name), time.monotonic()
        missing_since = self._missing.setdefault(key, now)
        if not slot.draining:
            if slot.serves and now < missing_since + self._missing_s:
                return
            logger.info("%s leaves %s/%s", slot.address, slot.backend, slot.name)
            runtime.drain(slot)
            self._draining[key] = now
            return
        if slot.sessions and now < self._draining.setdefault(key, now) + self._drain_s:
            return
        if slot.sessions:
            logger.warning("%s: %d connections did not move on, and are ended", slot.address, slot.sessions)
            runtime.end_sessions(slot)
        runtime.clear(slot)
        self._forget(slot)

    def _forget(self, slot: Slot) -> None:
        self._missing.pop((slot.backend, slot.name), None)
        self._draining.pop((slot.backend, slot.name), None)


def _wanted(slot: Slot, servers: Servers) -> bool:
    return any(server.address == slot.address for server in servers.get(slot.backend, ()))
