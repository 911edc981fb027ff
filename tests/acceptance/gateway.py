"""Stands for a gateway behind HAProxy: it is ready, and answers in HTTP. A program that prints its port.

A process of its own: beside the traffic of a test, in one process, it would answer HAProxy's checks too late.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Gateway(BaseHTTPRequestHandler):
    """Answers with the path that was asked for, and how the caller came to HAProxy."""

    def do_GET(self) -> None:
        text = f"{self.path} {self.headers['X-Forwarded-Proto']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
