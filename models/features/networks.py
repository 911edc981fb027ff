"""Kinds of IP addresses: version, parts, networks."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, FiniteFloat, field_validator, model_validator

from models.features.kind import ADDRESSES, NAN, Elementwise, Type

_V4_BYTES, _V6_BYTES = 4, 16
_MAPPED = b"\0" * 10 + b"\xff\xff"
_LONGEST_TEXT = 64


def parse_address(text: str) -> bytes | None:
    """Return the 4 or 16 bytes of an address, None if it is none; IPv4 in an IPv6 coat is IPv4."""
    if len(text) > _LONGEST_TEXT:
        return None
    try:
        if ":" not in text:
            return socket.inet_pton(socket.AF_INET, text)
        found = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return None
    return found[12:] if found.startswith(_MAPPED) else found


class Address(Elementwise):
    """A number of an address: its version (4 or 6), or whether it is of no public network."""

    kind: Literal["ip_version", "ip_private"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (ADDRESSES,)

    def function(self) -> Callable[[bytes | None], float]:
        """Tell the version by the length, and others by the list below."""
        return _version if self.kind == "ip_version" else _PRIVATE.contains


def _version(address: bytes | None) -> float:
    if address is None:
        return NAN
    return 4.0 if len(address) == _V4_BYTES else 6.0


class Octet(Elementwise):
    """One byte of an address, counted from 0; missing beyond an IPv4's last."""

    kind: Literal["ip_octet"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (ADDRESSES,)
    position: Annotated[int, Field(ge=0, lt=_V6_BYTES)] = 0

    def function(self) -> Callable[[bytes | None], float]:
        """Pick the byte."""
        position = self.position

        def octet(address: bytes | None) -> float:
            if address is None or position >= len(address):
                return NAN
            return float(address[position])

        return octet


class Prefix(Elementwise):
    """The network of an address as text, such as 10.1.0.0/16, to be mapped or hashed."""

    kind: Literal["ip_network"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (ADDRESSES,)
    makes: ClassVar[Type] = "text"
    bits: Annotated[int, Field(ge=0, le=32)] = 24
    bits6: Annotated[int, Field(ge=0, le=128)] = 48

    def function(self) -> Callable[[bytes | None], str | None]:
        """Mask the address."""
        bits, bits6 = self.bits, self.bits6

        def network(address: bytes | None) -> str | None:
            if address is None:
                return None
            size = len(address)
            kept = bits if size == _V4_BYTES else bits6
            spare = size * 8 - kept
            masked = (int.from_bytes(address, "big") >> spare << spare).to_bytes(size, "big")
            family = socket.AF_INET if size == _V4_BYTES else socket.AF_INET6
            return f"{socket.inet_ntop(family, masked)}/{kept}"

        return network


class Networks(Elementwise):
    """The value of the narrowest network that an address lies in.

    Without values it is 1 in any of them and 0 elsewhere.
    """

    kind: Literal["ip_in"]
    takes: ClassVar[tuple[frozenset[Type], ...]] = (ADDRESSES,)
    networks: Annotated[tuple[str, ...], Field(min_length=1)]
    values: tuple[FiniteFloat, ...] = ()
    other: FiniteFloat | Literal["nan"] = 0.0

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for text in networks:
            ipaddress.ip_network(text)  # its own error says what is wrong
        return networks

    @model_validator(mode="after")
    def _belong_together(self) -> Networks:
        if self.values and len(self.values) != len(self.networks):
            raise ValueError(f"{len(self.values)} values for {len(self.networks)} networks")
        return self

    def function(self) -> Callable[[bytes | None], float]:
        """Look each length of prefix up, the longest first."""
        values = self.values or (1.0,) * len(self.networks)
        return _Table(dict(zip(self.networks, values, strict=True)), float(self.other)).find


class _Table:
    """Networks by the bytes of an address, then by length of prefix."""

    def __init__(self, values: Mapping[str, float], other: float) -> None:
        found: dict[int, dict[int, dict[int, float]]] = {_V4_BYTES: {}, _V6_BYTES: {}}
        for text, value in values.items():
            network = ipaddress.ip_network(text)
            size = len(network.network_address.packed)
            spare = size * 8 - network.prefixlen
            found[size].setdefault(spare, {})[int(network.network_address) >> spare] = value
        self._tables: dict[int, Sequence[tuple[int, Any]]] = {
            size: [(spare, tables[spare].get) for spare in sorted(tables)] for size, tables in found.items()
        }
        self._other = other

    def find(self, address: bytes | None) -> float:
        """Return the value of the narrowest network, or the other."""
        if address is None:
            return NAN
        number = int.from_bytes(address, "big")
        for spare, get in self._tables[len(address)]:
            value: float | None = get(number >> spare)
            if value is not None:
                return value
        return self._other

    contains = find


#: What is of no public network: private, shared, loopback, link-local, documentation, multicast, reserved.
_PRIVATE = _Table(
    dict.fromkeys(
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
            "::/127",
            "64:ff9b:1::/48",
            "100::/64",
            "2001:db8::/32",
            "fc00::/7",
            "fe80::/10",
            "ff00::/8",
        ),
        1.0,
    ),
    0.0,
)
