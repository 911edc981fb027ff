"""The HTTP server: uvicorn on httptools and uvloop, and what it does not bound by itself.

Measured against granian and Starlette, see docs/performance.md. httptools takes heads of any size and waits
for them for ever; both have a limit here.
"""

from __future__ import annotations

import asyncio
import math
import socket
from typing import Any, Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from actors.gateway.app import WHOLE, GatewayApp

#: Bytes that the path and the headers of a request may have together.
MOST_HEAD: Final = 32_768


def make_server(app: GatewayApp) -> uvicorn.Server:
    """Return a server that serves an application once its `serve` runs, and ends when it `should_exit`."""
    limits = app.limits
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=min(limits.connections, socket.SOMAXCONN),
        timeout_keep_alive=limits.keep_alive_s,
        timeout_graceful_shutdown=math.ceil(limits.drain_s),
    )
    return uvicorn.Server(config)


class BoundedProtocol(HttpToolsProtocol):
    """One connection: its number, the size of its heads, and the time that they take, have self._limits."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app = self.config.app
        assert isinstance(app, GatewayApp)  # noqa: S101 - for the type checker: make_server gives one
        self._gateway, self._limits = app, app.limits
        self._head = 0
        # One timer for a connection, which looks whether a head is waited for: one for each head costs more
        # than all else that is done here.
        self._waits_since: float | None = None
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head; refuse a connection too many."""
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "overloaded", f"this gateway takes {self._limits.connections} connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, unless the connection is ending."""
        if not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Begin with a head."""
        super().on_message_begin()
        self._head = 0
        self._await_head()

    def on_url(self, url: bytes) -> None:
        """Take a part of the path."""
        super().on_url(url)
        self._grow(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(name, value)
        self._grow(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Have the request answered; its body is the application's to wait for."""
        self._waits_since = None
        if not self.transport.is_closing():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of the body."""
        if not self.transport.is_closing():
            self.scope["state"][WHOLE] = True
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Say what the parser says."""
        self._refuse(400, "protocol", msg)

    def _grow(self, size: int) -> None:
        self._head += size
        if self._head > MOST_HEAD:
            self._refuse(431, "too_large", f"path and headers may have {MOST_HEAD} bytes")

    def _await_head(self) -> None:
        self._waits_since = self.loop.time()
        if self._look is None:
            self._look = self.loop.call_later(self._limits.receive_s, self._look_at_the_time)

    def _look_at_the_time(self) -> None:
        self._look = None
        if self._waits_since is None:
            return  # the next head starts it again
        left_s = self._waits_since + self._limits.receive_s - self.loop.time()
        if left_s > 0:
            self._look = self.loop.call_later(left_s, self._look_at_the_time)
        else:
            self._refuse(408, "slow_request", f"no request arrived within {self._limits.receive_s:g} s")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer before there is a request that the application could take, and end the connection."""
        if self.transport.is_closing():
            return
        self._gateway.note_refusal(status, code)
        body = msgspec.json.encode({"error": code, "detail": detail, "field": "", "rule": ""})
        retry = b"retry-after: 1\r\n" if status == 503 else b""  # noqa: PLR2004 - Service Unavailable
        self.transport.write(
            STATUS_LINE[status]
            + b"content-type: application/json\r\nconnection: close\r\n%scontent-length: %d\r\n\r\n"
            % (retry, len(body))
            + body
        )
        self.transport.close()
