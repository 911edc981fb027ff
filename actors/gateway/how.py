"""How a request wants to be scored: until when, with which release, and whether it may wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from actors.config import GatewaySettings
from actors.gateway.message import Headers, HttpRequest
from actors.gateway.upstream import until
from transport.client import wire
from transport.client.errors import ProtocolError

#: What a caller may say in headers, in place of the body.
DEADLINE, RELEASE, PRIORITY = b"scorewire-deadline-ms", b"scorewire-release", b"scorewire-priority"
#: As JSON has it: Python's own reading takes more, such as 1_000.
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]{0,17})(?:[.][0-9]{1,18})?(?:[eE][+-]?[0-9]{1,3})?")
#: The shortest deadline, in milliseconds.
LEAST_MS = 1
Priority = Literal["live", "replay"]


class How(NamedTuple):
    """How a request is to be scored.

    Attributes:
        deadline: when an answer is of no more use (time.monotonic seconds).
        release: the release to score with; None for the current one, or the canary.
        replay: whether it lets all that is live go first.
        traceparent: the trace that it is part of; "" where it is not sampled.
    """

    deadline: float
    release: int | None
    replay: bool
    traceparent: str


def read_how(
    limits: GatewaySettings,
    request: HttpRequest,
    deadline_ms: float | None = None,
    release: float | None = None,
    priority: str | None = None,
) -> How:
    """Put together what a body says, and headers where it says nothing; each must be sound by itself.

    Raises:
        ProtocolError: a value is none; names the field.
    """
    headers = request.headers
    until_ms, number, which = limits.deadline_ms, None, "live"
    if DEADLINE in headers:
        until_ms = _deadline(limits, _number(headers, DEADLINE))
    if RELEASE in headers:
        number = _release(_number(headers, RELEASE))
    if PRIORITY in headers:
        which = _priority(headers[PRIORITY].decode("latin-1"))
    if deadline_ms is not None:
        until_ms = _deadline(limits, deadline_ms)
    if release is not None:
        number = _release(release)
    if priority is not None:
        which = _priority(priority)
    return How(until(until_ms / 1e3), number, which == "replay", request.traceparent)


def _deadline(limits: GatewaySettings, deadline_ms: float) -> float:
    if not LEAST_MS <= deadline_ms <= limits.longest_deadline_ms:  # false for NaN as well
        raise ProtocolError(
            f"a deadline is milliseconds from now, {LEAST_MS} to {limits.longest_deadline_ms:g}",
            field="deadline_ms",
            rule="range",
        )
    return deadline_ms


def _release(release: float) -> int:
    if not (1 <= release < 2**31 and float(release).is_integer()):
        raise ProtocolError("a release is named by its number, from 1 on", field="release", rule="range")
    return int(release)


def _priority(priority: str) -> str:
    if priority not in ("live", "replay"):
        raise ProtocolError(f"a priority is live or replay, got {priority!r}", field="priority", rule="value")
    return priority


def pack(transaction: Mapping[str, Any], how: How) -> bytes:
    """Pack a transaction that is to be scored so.

    Raises:
        TransactionRefusedError, TooLargeError: it cannot be carried.
    """
    return wire.pack_transaction(transaction, how.release, replay=how.replay, traceparent=how.traceparent)


def _number(headers: Headers, name: bytes) -> float:
    text = headers[name]
    if not _NUMBER.fullmatch(text):
        raise ProtocolError(f"the header {name.decode()} is a number", field=name.decode(), rule="type")
    return float(text)
