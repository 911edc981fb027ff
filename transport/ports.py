"""Ports for those who must be found at the same one again after a restart."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Where Linux says from which port on it chooses those of connections, and of whoever listens at any.
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _BEYOND = 10_000, 65_536
#: Where the kernel's choice begins if nobody says: Linux's default.
_CHOSEN_FROM: Final = 32_768
_TRIES: Final = 1_000


def free_ports_in_a_row(count: int, host: str = "127.0.0.1") -> int:
    """Return the first of so many ports that are free, until somebody asks for one of them by number.

    The kernel's own choice will not do: while nobody listens there, it may give the port to a connection.

    Raises:
        OSError: the host is not of this machine, or has no such ports.
    """
    socket.create_server((host, 0)).close()
    chosen_from = _chosen_from()
    beyond = chosen_from if chosen_from >= _LOWEST + _TRIES else _BEYOND
    for _ in range(_TRIES):
        first = random.randrange(_LOWEST, beyond - count)  # noqa: S311 - no secret
        if all(is_free(port, host) for port in range(first, first + count)):
            return first
    raise OSError(f"there are no {count} free ports in a row at {host}")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether nobody listens at a port now."""
    with suppress(OSError), socket.create_server((host, port)):
        return True
    return False


def _chosen_from() -> int:
    try:
        return int(_RANGE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return _CHOSEN_FROM
