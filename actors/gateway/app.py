"""The gateway as an ASGI application: who takes a request, what bounds it, what goes with its answer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actors.config import GatewaySettings
from actors.gateway.encoding import pack, unpack
from actors.gateway.errors import (
    MethodError,
    NotFoundError,
    SlowRequestError,
    body_of,
    headers_of,
    status_of,
)
from actors.gateway.message import Headers, HttpRequest, HttpResponse, json_response
from actors.traces import Traces, traceparent_of
from transport.client.errors import OverloadedError, ScorewireError, TooLargeError
from transport.metrics import Timing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]

#: The name in the state of a scope that says that all of the body has arrived.
WHOLE: Final = "whole"
#: A caller's own name for a request: what it may look like, so that it harms no log and no header.
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
#: https://www.w3.org/TR/trace-context/: version, trace, parent, flags; none of zeros alone.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)


@dataclass(frozen=True, slots=True)
class Route:
    """What takes requests for some paths.

    Attributes:
        path: what a path looks like, whole.
        handlers: method to handler.
        bounded: whether its requests count among those under way; questions about health do not.
        describe: writes an error as its protocol has it.
    """

    path: re.Pattern[str]
    handlers: Mapping[str, Handler]
    bounded: bool = True
    describe: Callable[[ScorewireError], Mapping[str, Any]] = body_of


class GatewayApp:
    """Takes HTTP requests. Use it from one event loop.

    Args:
        routes: who takes what; the first that fits does.
        limits: what a request may have.
        total: counts how long requests take, until their answers leave.
        traces: makes spans of requests; None where there is no collector.

    Attributes:
        limits: the same.
        leaving: answers end their connections, so that callers go elsewhere.
        in_flight: requests under way that are bounded.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        limits: GatewaySettings,
        total: Timing,
        traces: Traces | None = None,
    ) -> None:
        self.leaving = False
        self.in_flight = 0
        self.limits = limits
        self._routes = tuple(routes)
        self._total = total
        self._traces = traces
        self._most_bytes = int(limits.body_mb * 1e6)
        self._counts: Counter[str] = Counter()
        # Names for requests that have none: a random one a request costs more than all else that it is given.
        self._name, self._numbers = uuid.uuid4().hex[:24].encode(), itertools.count()

    def counters(self) -> dict[str, int]:
        """Return what was counted: `errors.<name>`, `status.<status>` and others. Safe from any thread."""
        return {**self._counts.copy(), "in_flight": self.in_flight}

    def note_refusal(self, status: int, code: str) -> None:
        """Count what was refused before it was a request."""
        self._counts[f"status.{status}"] += 1
        self._counts[f"errors.{code}"] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: Headers = dict(scope["headers"])
        self._counts["requests"] += 1
        began = time.monotonic()
        route, groups = self._route(scope["path"])
        request = HttpRequest(scope["method"], scope["path"], headers, groups=groups)
        request.whole = WHOLE in scope.get("state", ())
        span = self._trace(request, began) if route.bounded else None
        try:
            response = await self._answer(route, request, receive)
        except ScorewireError as error:
            response = self._refusal(route, error, span)
        except Exception as error:
            logger.exception("a request could not be answered")
            response = self._refusal(route, ScorewireError(f"{type(error).__name__}: {error}"), span)
        else:
            if span is not None:
                span.end()
        if self.limits.compress:
            pack(response, headers)
        head = [
            (b"content-type", response.type),
            (b"content-length", b"%d" % len(response.body)),
            *response.headers,
            *self._given_back(headers),
        ]
        if self.leaving or response.status in _ENDS_CONNECTION:
            head.append((b"connection", b"close"))
        self._counts[f"status.{response.status}"] += 1
        if response.status == _OK:
            self._counts["answers"] += 1
        if route.bounded:
            self._total.add(int((time.monotonic() - began) * 1e6))
        await send({"type": "http.response.start", "status": response.status, "headers": head})
        await send({"type": "http.response.body", "body": response.body})

    def _route(self, path: str) -> tuple[Route, Sequence[str | None]]:
        for route in self._routes:
            found = route.path.fullmatch(path)
            if found:
                return route, found.groups()
        return _NOWHERE, ()

    async def _answer(self, route: Route, request: HttpRequest, receive: Receive) -> HttpResponse:
        if not route.handlers:
            raise NotFoundError(f"there is no {request.path!r} here: see /openapi.json", field="path")
        handler = route.handlers.get(request.method)
        if handler is None:
            raise MethodError(", ".join(route.handlers))
        if not route.bounded:
            return await handler(request)
        if self.in_flight >= self.limits.in_flight:
            raise OverloadedError(
                f"{self.in_flight} requests are under way here, and no more may be", retry_after=_RETRY_S
            )
        self.in_flight += 1
        try:
            if request.method == "POST":
                body = await self._body(request, receive)
                request.body = unpack(body, request.headers, self._most_bytes)
            return await handler(request)
        finally:
            self.in_flight -= 1

    async def _body(self, request: HttpRequest, receive: Receive) -> bytes:
        told = request.headers.get(b"content-length", b"")
        if told.isdigit() and int(told) > self._most_bytes:
            raise self._too_large()
        if request.whole:  # there is nothing to wait for, as nearly always: a timer costs as much as the rest
            return await self._parts(receive)
        try:
            async with asyncio.timeout(self.limits.receive_s):
                return await self._parts(receive)
        except TimeoutError as error:
            detail = f"the body did not arrive within {self.limits.receive_s:g} s"
            raise SlowRequestError(detail, field="body", rule="time") from error

    async def _parts(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise SlowRequestError("the caller left before its request was whole", field="body")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most_bytes:
                raise self._too_large()
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _given_back(self, headers: Headers) -> list[tuple[bytes, bytes]]:
        """Return the caller's name for its request, or a new one, and the trace that it is part of."""
        own = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(own):
            own = b"%b%08x" % (self._name, next(self._numbers))
        found = [(b"x-request-id", own)]
        trace = headers.get(b"traceparent", b"")
        if _TRACEPARENT.fullmatch(trace):
            found.append((b"traceparent", trace))
        return found

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"a body may have {self._most_bytes} bytes", field="body", rule="size")

    def _trace(self, request: HttpRequest, began: float) -> Span | None:
        """Have nodes told of the trace of a request, and begin its span if there is a collector."""
        told = request.headers.get(b"traceparent", b"")
        known = told.decode() if _TRACEPARENT.fullmatch(told) else None
        if known is not None and int(known[53:55], 16) & _SAMPLED:
            request.traceparent = known
        if self._traces is None:
            return None
        span = self._traces.begin(known, "scorewire.gateway", began)
        if span is not None:
            request.traceparent = traceparent_of(span)
        return span

    def _refusal(self, route: Route, error: ScorewireError, span: Span | None) -> HttpResponse:
        if span is not None and self._traces is not None:
            self._traces.fail(span, error)
        self._counts[f"errors.{error.code}"] += 1
        response = json_response(route.describe(error), status_of(error))
        response.headers = headers_of(error)
        return response


_OK = 200
#: The flag of a trace whose spans are kept.
_SAMPLED = 0x01
_NOWHERE = Route(re.compile(""), {}, bounded=False)
#: After these the rest of a body may still come, and nobody reads it.
_ENDS_CONNECTION = frozenset({408, 413, 415})
#: Seconds after which there may be room again.
_RETRY_S = 1.0
