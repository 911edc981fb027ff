"""Reading what callers send: into a map, or straight into features where it is as the feature spec says.

Both ways read what `wire.unpack_body` reads, and faster. Whatever they cannot read is left to that function,
which alone says what is wrong with a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from actors.evaluation import FEATURES
from actors.traces import TRACEPARENT
from models.features.compile_typed import Flat, TypedSpec
from models.spec import FeatureSpec
from transport.client import wire

#: Messages that are read as maps after one that was not as the spec says: its kind comes seldom alone.
_SKIPPED: Final = 16
#: Fields that a spec does not declare and transactions have: so many are learned, in so many steps, each of
#: which takes a millisecond.
_MOST_OTHERS, _MOST_STEPS = 256, 16
#: What msgspec takes for a name.
_TAKEN: Final = re.compile(r'[^"\\\x00-\x1f]*')
_MISREAD: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_values = msgspec.structs.astuple


def _decoder(transaction: Any) -> Callable[[memoryview], Any]:
    """Return what reads the body of a message, with a transaction of that type and nothing unknown beside."""
    fields: list[tuple[Any, ...]] = [
        ("transaction", transaction),
        ("release", int | None, None),
        (TRACEPARENT, str | None, None),
        *((name, str, "") for name in wire.REPLAY),
    ]
    body = msgspec.defstruct("Body", fields, forbid_unknown_fields=True, kw_only=True, gc=False)
    return msgspec.msgpack.Decoder(body).decode


_decode_map = _decoder(dict[str, Flat])


def read_map(frame: bytes) -> wire.Body:
    """Read a message: its transaction, release and traceparent, which may be None where it has none.

    Raises:
        UnreadableError: the body is not a msgpack map with names as keys.
    """
    try:
        body = _decode_map(wire.body_of(frame))
    except _MISREAD:
        return wire.unpack_body(frame)
    return {"transaction": body.transaction, "release": body.release, TRACEPARENT: body.traceparent}


class Features(NamedTuple):
    """What was read of a transaction.

    Attributes:
        vector: its features, as the wire has them.
        id: its id; "" where it has none.
        traceparent: the trace that it is part of, if any.
    """

    vector: bytes
    id: str
    traceparent: str | None


class Express:
    """Reads messages straight into the features of one release.

    Args:
        typed: reads a transaction.
        release: the release's number.
    """

    def __init__(self, typed: TypedSpec, release: int) -> None:
        self._decode = _decoder(typed.type_with(()))
        self._typed = typed
        self._release = release
        self._others: frozenset[str] = frozenset()
        self._steps = 0
        self._skip = 0
        self._missed = False

    def read(self, frame: bytes) -> Features | None:
        """Read a message; None where it has to be read as a map."""
        if self._skip:
            self._skip -= 1
            return None
        try:
            body = self._decode(wire.body_of(frame))
        except _MISREAD:
            self._skip, self._missed = _SKIPPED, True
            return None
        if body.release is not None and body.release != self._release:
            return None
        values = _values(body.transaction)
        vector = self._typed.compute(values)
        return None if vector is None else Features(vector, self._typed.id_of(values), body.traceparent)

    def learn(self, transaction: Mapping[str, Any]) -> None:
        """Take note of a transaction that was read as a map: further ones like it need not be.

        What it lacks are fields that nobody declared: they are checked to be what messages carry, and left.
        """
        if not self._missed:
            return
        self._missed = False
        names = {name for name in transaction if isinstance(name, str) and _TAKEN.fullmatch(name)}
        others = self._others | (names - self._typed.fields.keys())
        if others == self._others or len(others) > _MOST_OTHERS or self._steps >= _MOST_STEPS:
            return
        self._others = others
        self._steps += 1
        found = self._typed.type_with(sorted(others))
        if found is not None:
            self._decode, self._skip = _decoder(found), 0


def express_of(specs: Mapping[str, object], release: int) -> Express | None:
    """Return what reads messages straight into the features of a release, where one spec computes all."""
    spec = specs.get(FEATURES) if len(specs) == 1 else None
    typed = spec.typed if isinstance(spec, FeatureSpec) else None
    return None if typed is None else Express(typed, release)
