"""What HAProxy is to serve: the nodes of the membership as servers, and how it is set up."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from governance.membership import Member

logger = logging.getLogger(__name__)

#: The roles that callers reach through HAProxy: over TCP, and over HTTP.
TCP_ROLE, HTTP_ROLE = "preprocessor", "gateway"
ROLES: Final = (TCP_ROLE, HTTP_ROLE)


@dataclass(frozen=True, order=True)
class Address:
    """An IP address and a port."""

    host: str
    port: int

    @property
    def bare(self) -> str:
        """The address without its port, as HAProxy reads it in a configuration."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        """Write it as HAProxy reads it."""
        return f"{self.bare}:{self.port}"


@dataclass(frozen=True, order=True)
class Server:
    """A node that takes requests.

    Attributes:
        address: where.
        health: where it says whether it is ready.
    """

    address: Address
    health: Address


@dataclass(frozen=True)
class Options:
    """How one HAProxy is set up.

    Attributes:
        directory: where its configuration, its sockets and its pid are.
        tcp: where callers over ZeroMQ reach it.
        http: where callers over HTTP do, once there are gateways.
        stats: where people see its state, and Prometheus its figures at /metrics.
        certificate: certificate and key (PEM) for TLS in front of HTTP; None is plain HTTP.
        check_ms: milliseconds between two health checks of a server.
        slow_start_s: seconds in which a server that came back is brought to its full share.
        drain_s: seconds that callers of a leaving server have to move on by themselves.
        max_connections: connections of callers at a time; None is what the limit of descriptors allows.
        old_worker_s: seconds that connections made before a reload may go on.
        workers: threads; None is one a core.
    """

    directory: Path
    tcp: Address
    http: Address
    stats: Address
    certificate: Path | None = None
    check_ms: int = 300
    slow_start_s: float = 5.0
    drain_s: float = 10.0
    max_connections: int | None = None
    old_worker_s: float = 300.0
    workers: int | None = None

    @property
    def configuration(self) -> Path:
        """The configuration's file."""
        return self.directory / "haproxy.cfg"

    @property
    def socket(self) -> Path:
        """The runtime socket."""
        return self.directory / "runtime.sock"

    @property
    def pid_file(self) -> Path:
        """Where the master process's number is."""
        return self.directory / "haproxy.pid"


Servers = Mapping[str, tuple[Server, ...]]


def servers_of(members: Iterable[Member]) -> Servers:
    """Return role to its servers: nodes that are ready and say where their health is asked.

    A node whose words are no addresses is left out: what it wrote must not become configuration.
    """
    found: dict[str, set[Server]] = {role: set() for role in ROLES}
    for member in members:
        if member.role not in found or member.state != "ready" or not member.health:
            continue
        try:
            health = read_address(member.health)
            found[member.role] |= {Server(read_address(one), health) for one in member.endpoints}
        except ValueError as error:
            logger.warning("%s is left out: %s", member.node_id, error)
    return {role: tuple(sorted(servers)) for role, servers in found.items()}


def read_address(text: str) -> Address:
    """Read tcp://host:port, http://host:port or host:port.

    Raises:
        ValueError: it is none with a definite IP address.
    """
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    if not host or not parts.port:
        raise ValueError(f"{text!r} is no host:port")
    address = ipaddress.ip_address(host)  # a ValueError of its own
    if "%" in host:
        raise ValueError(f"{text!r} means something on one host alone")
    if address.is_unspecified:
        raise ValueError(f"{text!r} is no address that another can reach: name one in `host`")
    return Address(str(address), parts.port)


def slots_for(servers: Servers, least: int, before: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return role to how many places its backend has, with room for as many nodes again.

    Places are what nodes come and go in without a reload; so they are doubled when they run out, and never
    made fewer. The HTTP side is there once there is a gateway.

    Args:
        servers: the nodes.
        least: places of a backend at first.
        before: the places that there were.
    """
    slots = dict(before or {TCP_ROLE: least})
    for role, found in servers.items():
        if found:
            slots.setdefault(role, least)
        while role in slots and slots[role] < len(found):
            slots[role] *= 2
    return slots
