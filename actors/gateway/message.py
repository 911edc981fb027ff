"""HTTP requests and answers as handlers see them, and JSON as both carry it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from transport.client.errors import ProtocolError

T = TypeVar("T")
Headers = Mapping[bytes, bytes]

JSON: Final = b"application/json"
#: Where msgspec says that something is wrong: "... - at `$.transactions[3].release`".
_PLACE = re.compile(r" - at `(?:key in )?\$?\.?(.*?)`$")
_UNKNOWN = re.compile(r"unknown field `(.*?)`")
_OUTSIDE = re.compile(r"Expected `\w+` (?:[<>]|of length)")
_MISSING = re.compile(r"missing required field `(.*?)`")


@dataclass(slots=True)
class HttpRequest:
    """A request, whole.

    Attributes:
        method: `GET`, `POST`.
        path: without the query, percent signs decoded.
        headers: by name in small letters; of several with one name, the last.
        body: all of it.
        groups: what the pattern of its path has matched.
        traceparent: the trace that it is part of, as nodes are told; "" where it is not sampled.
        whole: whether all of its body has arrived before anybody asked for it.
    """

    method: str
    path: str
    headers: Headers
    body: bytes = b""
    groups: Sequence[str | None] = ()
    traceparent: str = ""
    whole: bool = False


@dataclass(slots=True)
class HttpResponse:
    """An answer: what its length is, and who asked, is added when it leaves."""

    body: bytes
    status: int = 200
    type: bytes = JSON
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class Reader:
    """Reads JSON bodies of one type.

    Integers of any size and floats keep every bit. What JSON itself does not have and Python and NumPy write
    all the same (NaN, Infinity) is read as well, and judged by whoever knows the field.

    Args:
        kind: what a body is.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._decoder = msgspec.json.Decoder(kind)

    def read(self, body: bytes) -> Any:
        """Read a body.

        Raises:
            ProtocolError: it is no JSON, or not of that type; names the field and the rule.
        """
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _misfit(error) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if b"NaN" not in body and b"Infinity" not in body:
                raise _no_json(error) from error
        except RecursionError as error:
            raise _no_json(error) from error
        try:
            return msgspec.convert(json.loads(body), self._kind)
        except msgspec.ValidationError as error:
            raise _misfit(error) from error
        except (ValueError, RecursionError) as error:
            raise _no_json(error) from error


def _no_json(error: Exception) -> ProtocolError:
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return ProtocolError(f"the body is no JSON: {why}", field="body", rule="json")


def _misfit(error: msgspec.ValidationError) -> ProtocolError:
    text = str(error)
    place = _PLACE.search(text)
    where = place.group(1) if place else ""
    for pattern, rule in ((_UNKNOWN, "unknown"), (_MISSING, "missing")):
        named = pattern.search(text)
        if named:
            where = f"{where}.{named.group(1)}" if where else named.group(1)
            return ProtocolError(text, field=where, rule=rule)
    rule = "range" if _OUTSIDE.search(text) else "value" if text.startswith("Invalid") else "type"
    return ProtocolError(text, field=where or "body", rule=rule)


def json_response(what: Any, status: int = 200) -> HttpResponse:
    """Answer with JSON: floats to the last bit; NaN and infinities, which JSON does not have, as null."""
    return HttpResponse(msgspec.json.encode(what), status)
