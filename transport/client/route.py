"""Where a connection leads: to a node, or through a load balancer to one of several."""

from __future__ import annotations

import random
import time

#: What parts the address of a load balancer from the number of a connection through it.
CONNECTION = "#"
#: Seconds after which a connection through a load balancer is made anew, so that new nodes get some.
RENEW_S = 60.0
#: Seconds between two attempts to reach another node through a load balancer.
RETRY_S = 0.1
#: Milliseconds that a node behind a load balancer may take to greet: a hung one is connected to as well.
GREETING_MS = 500


class Route:
    """The way of one connection.

    Args:
        endpoint: the address; with `#NUMBER` behind it, one of the connections through a load balancer.

    Attributes:
        address: where to connect.
        balanced: whether a load balancer is there, so that connecting anew may lead to another node.
        node: the node that is there, by its own word: several connections may lead to one.
        retiring: nothing more is asked there, since the node leaves or the connection is old.
    """

    __slots__ = ("_made_at", "_renew_at", "address", "balanced", "node", "retiring")

    def __init__(self, endpoint: str) -> None:
        self.address, _, number = endpoint.partition(CONNECTION)
        self.balanced = bool(number)
        self.node = endpoint
        self.retiring = False
        self._made_at = time.monotonic()
        self._renew_at = self._made_at + RENEW_S * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load

    def is_old(self, now: float) -> bool:
        """Say whether this connection has lasted long enough: nobody else moves one that was made."""
        return self.balanced and now > self._renew_at

    def may_turn(self, now: float) -> bool:
        """Say whether to connect anew, if this way leads nowhere."""
        return self.balanced and now > self._made_at + RETRY_S


def numbered(addresses: list[str], connections: int | None) -> list[str]:
    """Return the endpoints of so many connections through each load balancer; None: these are nodes.

    Raises:
        ValueError: fewer than one connection.
    """
    if connections is None:
        return addresses
    if connections < 1:
        raise ValueError(f"through a load balancer go one connection or more, got {connections}")
    return [f"{address}{CONNECTION}{number}" for address in addresses for number in range(connections)]
