"""A small node of its own process for the tests: it does to each request what its transaction says.

python node.py ADDRESS: {"do": "echo" | "crash" | "hang" | "silent" | an error's code, "payload": ...}
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import zmq

from transport.client import wire
from transport.client.errors import error_from_wire
from transport.client.loop import Loop
from transport.client.wire import Kind
from transport.listener import Listener, Request


class EchoNode:
    """A listener on a loop of its own."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self.loop = Loop()
        self.ready = True
        #: How new what it acts on is; every answer names it as its release.
        self.activation = 0
        self.over = False
        self.batches: list[int] = []
        #: What is done to every request, whatever it says.
        self.always = ""
        #: Seconds that each takes.
        self.slow_s = 0.0
        #: What came while `always` was "keep"; answered when it is something else.
        self.kept: list[Request] = []
        try:
            self.listener = Listener(
                self.loop,
                context,
                address,
                kind=Kind.SCORE,
                on_batch=self.on_batch,
                ready=lambda: self.ready,
                acts_on=lambda: (self.activation, self.activation),
            )
        except BaseException:
            self.loop.close()
            raise

    def on_batch(self, requests: list[Request]) -> None:
        self.batches.append(len(requests))
        for request in self.listener.drop_late(requests):
            transaction = wire.unpack_body(request.frame)["transaction"]
            if self.slow_s:
                time.sleep(self.slow_s)
            self.do(request, self.always or transaction.get("do", "echo"), transaction.get("payload"))

    def do(self, request: Request, what: str, payload: object) -> None:
        if what == "keep":
            self.kept.append(request)
        elif what == "crash":
            os._exit(1)
        elif what == "hang":
            time.sleep(3600)
        elif what == "internal":
            self.listener.fail(request, RuntimeError("broken"))
        elif what == "echo":
            answer = {
                "id": str(payload),
                "scores": {"1": 0.5},
                "release": self.activation or 1,
                "environment": "test",
                "pipeline": {},
                "nodes": {"preprocessor": str(os.getpid())},
                "us": {},
            }
            self.listener.answer(request, wire.pack_body(answer))
        elif what != "silent":
            self.listener.refuse(request, error_from_wire(what, "as asked", "", ""))

    def run(self) -> None:
        while not self.over:
            self.loop.sleep_ahead()
            for source in self.loop.wait(block=not self.over):
                source.pump()
            if self.kept and self.always != "keep":
                kept, self.kept = self.kept, []
                self.on_batch(kept)
        self.listener.close()


if __name__ == "__main__":
    node = EchoNode(zmq.Context(), sys.argv[1])
    sys.stdout.write(f"{node.listener.endpoint}\n")
    sys.stdout.flush()
    node.run()
