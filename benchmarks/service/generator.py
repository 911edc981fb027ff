"""Callers in processes of their own, one on each of their cores."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.service.traffic import Outcomes, answers, open_loop


@dataclass(frozen=True)
class Target:
    """What is called.

    Attributes:
        service: its name.
        addresses: endpoints of preprocessors; or addresses of HTTP, `host:port`.
    """

    service: str
    addresses: list[str]


class Generator:
    """The near end of all callers.

    Args:
        target: what they call.
        cores: where they run.
    """

    def __init__(self, target: Target, cores: set[int]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._callers = []
        for core in sorted(cores):
            near, far = spawn.Pipe()
            caller = spawn.Process(target=_serve, args=(far, target, core), daemon=True)
            caller.start()
            far.close()
            self._pipes.append(near)
            self._callers.append(caller)
        for pipe in self._pipes:
            pipe.recv()

    def scores(self, count: int) -> list[float]:
        """Return what the first transactions are answered."""
        self._pipes[0].send(("scores", count))
        found: list[float] = self._pipes[0].recv()
        return found

    def run(self, rate: float, seconds: float, seed: int, late_s: float = math.inf) -> Outcomes:
        """Send at that rate in all; a caller ends early where one of a hundred of its own is late."""
        for number, pipe in enumerate(self._pipes):
            pipe.send(("run", rate / len(self._pipes), seconds, seed * len(self._pipes) + number, late_s))
        whole = Outcomes(0)
        for pipe in self._pipes:
            one: Outcomes = pipe.recv()
            whole.offered += one.offered
            whole.errors += one.errors
            whole.latencies_s += one.latencies_s
            whole.lags_s += one.lags_s
            whole.given_up |= one.given_up
        return whole

    def close(self) -> None:
        """End the callers."""
        for caller in self._callers:
            caller.kill()
            caller.join()


def _serve(pipe: Connection, target: Target, core: int) -> None:
    from benchmarks.service.services import speech_of  # noqa: PLC0415 - it starts callers itself

    os.sched_setaffinity(0, {core})
    speech = speech_of(target.service)
    caller = speech.caller(target.addresses)
    commands: dict[str, Callable[..., Any]] = {
        "run": lambda *arguments: open_loop(caller, *arguments),
        "scores": lambda count: [
            np.nan if one is None else speech.score(one) for one in answers(caller, count)
        ],
    }
    pipe.send(None)
    while True:
        command, *arguments = pipe.recv()
        pipe.send(commands[command](*arguments))
