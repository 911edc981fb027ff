"""The health port of a node: what load balancers and orchestrators ask, over HTTP/1.0.

`GET /ready` answers 200 while the node serves, 404 while it leaves (HAProxy: give it nothing new and cut
nothing) and 503 while it cannot serve; `GET /alive` answers 200 as long as somebody is there to answer. What
else a node shows there, such as its figures at `/metrics`, it brings as pages.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from .client.loop import Loop
from .errors import BindRefusedError
from .listener import check_address

logger = logging.getLogger(__name__)

Health = Literal["ready", "starting", "draining", "hung"]

#: Path to what makes that page: its type of content, and the content.
Pages = Mapping[str, Callable[[], tuple[str, bytes]]]

STATUS: Final[Mapping[Health, str]] = {
    "ready": "200 OK",
    "draining": "404 Not Found",
    "starting": "503 Service Unavailable",
    "hung": "503 Service Unavailable",
}
#: Conversations at a time; the oldest is ended for a further one.
_MOST = 64
#: Bytes that a question may have, and seconds that it may take.
_LONGEST, _SLOWEST_S = 4096, 2.0
#: Seconds after which the rest of a long answer is sent on.
_REST_S = 0.005
_JSON = "application/json"


class HealthPort:
    """Answers health checks as a source of a loop. Use it from the loop's thread only.

    Args:
        loop: the loop.
        host: where to listen.
        port: the port; 0 picks a free one.
        health: says how the node is.
        facts: what a person wants to read besides.
        pages: what else can be asked for.
        wide: allow an address beyond loopback.

    Attributes:
        endpoint: where it listens, as host:port.
        answered: questions that were answered.

    Raises:
        BindRefusedError: the address is wide and that was not asked for, or is taken.
    """

    def __init__(
        self,
        loop: Loop,
        host: str,
        port: int,
        *,
        health: Callable[[], Health],
        facts: Callable[[], Mapping[str, Any]] = dict,
        pages: Pages = MappingProxyType({}),
        wide: bool = False,
    ) -> None:
        self.answered = 0
        self._loop = loop
        self._health = health
        self._facts = facts
        self._pages = {path.encode(): page for path, page in pages.items()}
        self._conversations: list[_Conversation] = []
        name = f"[{host}]" if ":" in host else host
        check_address(f"tcp://{name}:{port}", wide=wide)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=_MOST)
        except OSError as error:
            raise BindRefusedError(
                f"cannot answer health checks at {host}:{port}: {error}; is another node there?"
            ) from error
        self._socket.setblocking(False)
        self.endpoint = f"{name}:{self._socket.getsockname()[1]}"
        loop.add(self, self._socket.fileno())

    def due(self) -> float | None:
        """Return when the oldest conversation has taken too long."""
        return self._conversations[0].give_up_at if self._conversations else None

    def pump(self) -> None:
        """Take new questions, and let go of whoever is too slow."""
        now = time.monotonic()
        while self._conversations and self._conversations[0].give_up_at <= now:
            self._conversations[0].close()
        try:
            connection, _ = self._socket.accept()
        except OSError:  # nobody, or gone again, or no descriptors left
            return
        if len(self._conversations) >= _MOST:
            self._conversations[0].close()
        self._conversations.append(_Conversation(self._loop, connection, self))

    def close(self) -> None:
        """Stop to listen. Closing twice is harmless."""
        for conversation in list(self._conversations):
            conversation.close()
        self._loop.remove(self)
        self._socket.close()

    def answer(self, question: bytes) -> bytes:
        """Return the answer to the first line of a question."""
        self.answered += 1
        method, _, rest = question.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD", b"OPTIONS"):
            return _http("405 Method Not Allowed", {"error": "ask with GET"}, body=True)
        whole = method != b"HEAD"
        if path in self._pages:
            return self._page(path, body=whole)
        if path not in (b"/alive", b"/ready"):
            # Not 404, which says that a node leaves.
            known = ", ".join(["/ready", "/alive", *(page.decode() for page in self._pages)])
            return _http("400 Bad Request", {"error": f"ask for one of {known}"}, body=whole)
        health = self._health()
        status = "200 OK" if path == b"/alive" else STATUS[health]
        return _http(status, {"state": health, **self._facts()}, body=whole)

    def _page(self, path: bytes, *, body: bool) -> bytes:
        try:
            kind, content = self._pages[path]()
        except Exception as error:
            # Whoever looks at figures must not take the node's health from its balancer.
            logger.exception("the page %s cannot be made", path.decode())
            why = {"error": f"{type(error).__name__}: {error}; the node's log has more"}
            return _http("500 Internal Server Error", why, body=body)
        return _response("200 OK", kind, content, body=body)

    def forget(self, conversation: _Conversation) -> None:
        """Count a conversation no more."""
        if conversation in self._conversations:
            self._conversations.remove(conversation)


class _Conversation:
    """One connection: a question, an answer, the end."""

    def __init__(self, loop: Loop, connection: socket.socket, port: HealthPort) -> None:
        self.give_up_at = time.monotonic() + _SLOWEST_S
        self._loop = loop
        self._connection = connection
        self._port = port
        self._question = b""
        self._answered = False
        self._rest, self._send_at = b"", 0.0
        connection.setblocking(False)
        loop.add(self, connection.fileno())

    def due(self) -> float | None:
        """Return when to send on; its port looks after all other time."""
        return self._send_at if self._rest else None

    def pump(self) -> None:
        try:
            if self._rest:
                self._send()
            part = self._connection.recv(_LONGEST)
            if part and not self._answered:
                self._read(part)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self.close()

    def _read(self, part: bytes) -> None:
        self._question += part
        line, ended, _ = self._question.partition(b"\n")
        if not ended and len(self._question) < _LONGEST:
            return
        self._answered = True
        self._rest = self._port.answer(line) if ended else b""
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._rest = self._rest[self._connection.send(self._rest) :]
        self._send_at = time.monotonic() + _REST_S
        if not self._rest:
            # The asker closes: were this end to do so while more arrives, the answer could be lost.
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._port.forget(self)
        if self._connection.fileno() >= 0:
            self._loop.remove(self)
            self._connection.close()


def _http(status: str, facts: Mapping[str, Any], *, body: bool) -> bytes:
    return _response(status, _JSON, json.dumps(facts).encode() + b"\n", body=body)


def _response(status: str, kind: str, content: bytes, *, body: bool) -> bytes:
    head = f"HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + (content if body else b"")
