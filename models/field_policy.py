"""The field policy: what of a transaction is kept, hashed or dropped where it is stored or sent on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, Protocol

import msgpack

from models.spec_errors import SpecError

_DIGEST_BYTES: Final = 16
_LONGEST_KEY: Final = 64


class Stored(Protocol):
    """What says how its fields are stored: a feature spec."""

    @property
    def storage(self) -> Mapping[str, str]:
        """Field to `hash` or `drop`; fields that are kept are left out."""

    @property
    def undeclared(self) -> str:
        """What becomes of fields that are not declared: `keep` or `drop`."""

    @property
    def declared(self) -> Iterable[str]:
        """The fields that are declared."""


@dataclass(frozen=True, slots=True)
class FieldPolicy:
    """A field policy.

    Attributes:
        hashed: fields whose values are replaced by hashes under a key.
        dropped: fields that are left out.
        only: fields beside which all others are dropped; None keeps the others.
    """

    hashed: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    only: frozenset[str] | None = None

    def apply(self, transaction: Mapping[str, Any], key: bytes) -> dict[str, Any]:
        """Return what of a transaction is kept.

        Args:
            transaction: its fields.
            key: of the hashes; where it is empty, fields to be hashed are dropped.
        """
        if not self.hashed and not self.dropped and self.only is None:
            return {name: value for name, value in transaction.items() if isinstance(name, str)}
        found: dict[str, Any] = {}
        for name, value in transaction.items():
            if not isinstance(name, str) or name in self.dropped:
                continue
            if self.only is not None and name not in self.only:
                continue
            if name not in self.hashed or value is None:
                found[name] = value
            elif key:
                found[name] = hashed(value, key)
        return found

    def pack(self) -> bytes:
        """Return the policy as bytes; the same policy gives the same bytes."""
        only = None if self.only is None else sorted(self.only)
        packed: bytes = msgpack.packb([sorted(self.hashed), sorted(self.dropped), only])
        return packed


def policy_of(specs: Iterable[Stored]) -> FieldPolicy:
    """Return the policy of some feature specs together: where they differ, the strictest word counts.

    With one that drops what is undeclared, a field stays only if one of the specs declares it.
    """
    specs = list(specs)
    dropped = {name for spec in specs for name, how in spec.storage.items() if how == "drop"}
    hashes = {name for spec in specs for name, how in spec.storage.items() if how == "hash"}
    closed = any(spec.undeclared == "drop" for spec in specs)
    only = frozenset(name for spec in specs for name in spec.declared) if closed else None
    return FieldPolicy(frozenset(hashes - dropped), frozenset(dropped), only)


@lru_cache(maxsize=64)
def unpack_policy(data: bytes) -> FieldPolicy:
    """Read a policy.

    Raises:
        SpecError: the bytes are none.
    """
    try:
        hashes, dropped, only = msgpack.unpackb(data, max_ext_len=0)
        names = [*hashes, *dropped, *(only or [])]
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise SpecError(f"no field policy: {error}") from error
    if not all(isinstance(name, str) for name in names):
        raise SpecError("no field policy: a field's name is text")
    return FieldPolicy(frozenset(hashes), frozenset(dropped), None if only is None else frozenset(only))


def hashed(value: Any, key: bytes) -> str:
    """Return what stands for a value: blake2b of its msgpack under a key, 32 hex digits.

    Equal values have equal hashes; 1, 1.0 and "1" are not equal.
    """
    packed = msgpack.packb(value)
    return blake2b(packed, key=key, digest_size=_DIGEST_BYTES).hexdigest()


def hash_key(secret: str) -> bytes:
    """Return the key of a secret; one that is longer than a key may be is hashed first."""
    key = secret.encode("utf-8")
    return key if len(key) <= _LONGEST_KEY else blake2b(key).digest()
