"""HTTP servers for Python, with the least application that reads a JSON body and answers 300 bytes of JSON.

    python -m benchmarks.http_servers [--json] [--seconds 3] [--connections 16]

What is compared is the CPU time of the server's processes a request. `httptools alone` is what a protocol
written by hand on that parser takes: what a server costs beyond it is what it does for whoever uses it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httptools
import msgspec
import psutil
import uvloop

from benchmarks.http_load import drive, post
from examples.card_payments import simulate
from transport.ports import free_ports_in_a_row

ROOT = Path(__file__).parents[1]
START_S = 20.0
ANSWER = json.dumps(
    {"id": "1-0", "scores": {"0": 0.25, "1": 0.75}, "trace": {"pipeline": "f" * 220}}
).encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]


async def asgi(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The application, as ASGI."""
    if scope["type"] == "http":
        msgspec.json.decode((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})


class Rsgi:
    """The application, as granian's own interface has it."""

    async def __rsgi__(self, _: Any, protocol: Any) -> None:
        """Answer one request."""
        msgspec.json.decode(await protocol())
        protocol.response_bytes(200, [("content-type", "application/json")], ANSWER)


rsgi = Rsgi()


def starlette() -> Any:
    """Return the application, as Starlette has it."""
    from starlette.applications import Starlette  # noqa: PLC0415 - one of those that are compared
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    async def score(request: Request) -> Response:
        msgspec.json.decode(await request.body())
        return Response(ANSWER, media_type="application/json")

    score.__annotations__ = {}
    return Starlette(routes=[Route("/v1/score", score, methods=["POST"])])


class Bare(asyncio.Protocol):
    """The application on the parser alone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport: Any = transport
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def data_received(self, data: bytes) -> None:
        """Parse."""
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        msgspec.json.decode(self._body)
        self._body = b""
        head = b"".join(b"%s: %s\r\n" % header for header in _HEADERS)
        self._transport.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + ANSWER)


async def serve_bare(port: int) -> None:
    """Serve that until it is ended."""
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", port)
    await server.serve_forever()


_UVICORN = "-m uvicorn --no-access-log --log-level warning --lifespan off --port {port}"
_GRANIAN = "-m granian --loop uvloop --no-log --workers 1 --port {port}"
SERVERS = {
    "httptools alone": "-m benchmarks.http_servers --bare {port}",
    "uvicorn, ASGI": f"{_UVICORN} benchmarks.http_servers:asgi",
    "uvicorn, Starlette": f"{_UVICORN} --factory benchmarks.http_servers:starlette",
    "granian, RSGI": f"{_GRANIAN} --interface rsgi benchmarks.http_servers:rsgi",
    "granian, ASGI": f"{_GRANIAN} --interface asginl benchmarks.http_servers:asgi",
}


def measure(command: str, connections: int, seconds: float) -> dict[str, float]:
    """Start a server, drive it, end it.

    Raises:
        RuntimeError: it did not start.
    """
    port = free_ports_in_a_row(1)
    transactions = simulate(n=200, seed=5)[0]
    requests = [post("/v1/score", json.dumps({"transaction": one}).encode()) for one in transactions]
    arguments = [sys.executable, *command.format(port=port).split()]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        try:
            _wait(port, server)
            children = [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
            return drive(port, [server.pid, *children], requests, connections, seconds)
        finally:
            server.terminate()


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > give_up_at:
                assert server.stdout is not None
                said = server.stdout.read().decode() if server.poll() is not None else "nothing"
                raise RuntimeError(f"it did not start: {said[-500:]}") from None
            time.sleep(0.05)
        else:
            return


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--only", nargs="*", choices=SERVERS, default=list(SERVERS))
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        uvloop.run(serve_bare(arguments.bare))
        return
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for name in arguments.only:
        try:
            found[name] = measure(SERVERS[name], arguments.connections, arguments.seconds)
        except RuntimeError as error:
            failed[name] = str(error)
    if arguments.json:
        print(json.dumps({"connections": arguments.connections, "servers": found, "failed": failed}))
        return
    print(f"{'server':>20} {'a second':>9} {'a core-s':>9} {'CPU us':>7} {'p99 ms':>7}")
    for name, row in found.items():
        print(
            f"{name:>20} {row['a_second']:>9} {row['a_core_second']:>9} {row['cpu_us']:>7} {row['p99_ms']:>7}"
        )
    for name, why in failed.items():
        print(f"without {name}: {why}")


if __name__ == "__main__":
    main()
