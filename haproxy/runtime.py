"""The runtime socket: what HAProxy says of its servers, and how they are steered without a reload."""

from __future__ import annotations

import contextlib
import csv
import io
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from haproxy.errors import SocketError
from haproxy.plan import Address, Server

_ANSWER_S = 2.0
#: Of a server's administrative state: nothing is sent there and nothing checked, or nothing new is sent.
_MAINTENANCE, _DRAIN = 0x01, 0x08


@dataclass(frozen=True)
class Slot:
    """A place of a backend, as HAProxy has it.

    Attributes:
        backend: the backend's name, which is the role's.
        name: the place's.
        address: where it sends to.
        health: where it asks.
        idle: it holds no server.
        draining: it is given nothing new, by our word.
        status: HAProxy's word, such as `UP`, `DOWN`, `NOLB`, `MAINT`, `DRAIN`.
        check: what the last check found, such as `L7OK`.
        sessions: connections that are open to it.
        total: connections that were ever made to it.
    """

    backend: str
    name: str
    address: Address
    health: Address
    idle: bool
    draining: bool
    status: str
    check: str
    sessions: int
    total: int

    @property
    def serves(self) -> bool:
        """Whether HAProxy holds it for ready."""
        return self.status.startswith("UP")


class Runtime:
    """HAProxy's runtime socket: one command a connection.

    Args:
        path: where the socket is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def ask(self, command: str) -> str:
        """Give a command; return the answer.

        Raises:
            SocketError: nobody answers.
        """
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_ANSWER_S)
                connection.connect(str(self._path))
                connection.sendall(command.encode() + b"\n")
                parts = []
                while part := connection.recv(65536):
                    parts.append(part)
        except OSError as error:
            raise SocketError(f"HAProxy does not answer at {self._path}: {error}") from error
        return b"".join(parts).decode(errors="replace").strip()

    def info(self) -> Mapping[str, str]:
        """Return what HAProxy says of itself, by name."""
        pairs = (line.partition(":") for line in self.ask("show info").splitlines())
        return {name.strip(): value.strip() for name, _, value in pairs}

    def slots(self) -> list[Slot]:
        """Return the places of all backends."""
        statistics = {(row["# pxname"], row["svname"]): row for row in self._table("show stat")}
        lines = self.ask("show servers state").splitlines()
        # The first line is the version of the format, the second names its fields.
        names = lines[1].removeprefix("# ").split() if len(lines) > 1 else []
        found = []
        for line in lines[2:]:
            state = dict(zip(names, line.split(), strict=False))
            told = statistics.get((state.get("be_name", ""), state.get("srv_name", "")))
            if told is not None:
                found.append(_slot(state, told))
        return found

    def fill(self, slot: Slot, server: Server) -> None:
        """Put a server into a place, or tell the place what has changed of it."""
        where = f"{slot.backend}/{slot.name}"
        if slot.address != server.address:
            self._do(f"set server {where} addr {server.address.host} port {server.address.port}")
        if slot.health != server.health:
            self._do(f"set server {where} check-addr {server.health.host} port {server.health.port}")
        if slot.idle or slot.draining:
            self._do(f"set server {where} state ready")

    def drain(self, slot: Slot) -> None:
        """Send nothing new to a server; its connections go on."""
        self._do(f"set server {slot.backend}/{slot.name} state drain")

    def end_sessions(self, slot: Slot) -> None:
        """End the connections that are left."""
        self._do(f"shutdown sessions server {slot.backend}/{slot.name}")

    def clear(self, slot: Slot) -> None:
        """Take a server out of its place."""
        self._do(f"set server {slot.backend}/{slot.name} state maint")

    def _do(self, command: str) -> None:
        """Give a command whose answer is empty, or says what was changed.

        Raises:
            SocketError: HAProxy refuses it.
        """
        answer = self.ask(command).lower()
        # `set server addr` and `check-addr` say what they changed; all else says nothing when it is done.
        told = " addr " in command or " check-addr " in command
        if (answer and not told) or "invalid" in answer or "unknown" in answer or "require" in answer:
            raise SocketError(f"HAProxy refuses `{command}`: {answer}")

    def _table(self, command: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.ask(command))))


def _slot(state: Mapping[str, str], told: Mapping[str, str]) -> Slot:
    admin = int(state["srv_admin_state"])
    address = Address(_normal(state["srv_addr"]), int(state["srv_port"]))
    checked = state.get("srv_check_addr", "-")
    asked = _normal(checked) if checked != "-" else address.host
    health = Address(asked, int(state.get("srv_check_port") or 0))
    return Slot(
        backend=state["be_name"],
        name=state["srv_name"],
        address=address,
        health=health,
        idle=bool(admin & _MAINTENANCE),
        draining=bool(admin & _DRAIN),
        status=told["status"],
        check=told.get("check_status", ""),
        sessions=int(told["scur"] or 0),
        total=int(told["stot"] or 0),
    )


def _normal(host: str) -> str:
    """Write an address as the plan does: there is more than one way for one."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    return host
