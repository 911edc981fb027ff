"""Words of a process to whoever started it: to systemd, by its `sd_notify`, or to the launcher.

A datagram of NAME=VALUE lines to the Unix socket that NOTIFY_SOCKET names; a name that starts with `@` is in
the abstract namespace. https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import Final

#: The variable that names the socket.
NOTIFY_SOCKET: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
#: The sign of life that a watchdog waits for.
WATCHDOG: Final = "WATCHDOG=1"

#: Before the address at which a process tells its health; a name of ours, which systemd passes over.
HEALTH: Final = "X_SCOREWIRE_HEALTH="

_CREDENTIALS = struct.Struct("3i")  # struct ucred: process, user, group
_LONGEST = 4096


def tell(*words: str) -> None:
    """Tell whoever started this process; nobody may have asked, and nobody may listen any more."""
    name = os.environ.get(NOTIFY_SOCKET)
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        out.sendto("\n".join(words).encode(), address)


def tell_health(endpoint: str) -> None:
    """Tell where health is asked, as host:port."""
    tell(HEALTH + endpoint)


class Ear:
    """Hears what processes tell; the kernel says who spoke."""

    def __init__(self) -> None:
        self.name = f"@scorewire-{os.getpid()}-{os.urandom(4).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + self.name[1:])
        self._socket.setblocking(False)

    def heard(self) -> list[tuple[int, list[str]]]:
        """Return what was told since: the process, and its words."""
        found: list[tuple[int, list[str]]] = []
        while True:
            try:
                data, more, _, _ = self._socket.recvmsg(_LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except OSError:  # nothing more
                return found
            for level, kind, credentials in more:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    found.append(
                        (_CREDENTIALS.unpack(credentials)[0], data.decode(errors="replace").split("\n"))
                    )

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()
