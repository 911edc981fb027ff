"""All services of the table: started, found to give the right scores, and ended."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.cases import Case, prepare
from benchmarks.service.environments import python_of
from benchmarks.service.generator import Generator, Target
from benchmarks.service.ours import OURS, serve_ours
from benchmarks.service.peers import PEERS, Start
from benchmarks.service.processes import Processes, marked
from benchmarks.service.speech import Speech
from benchmarks.service.transactions import expected
from transport.ports import free_ports_in_a_row

NAMES = (*OURS, *PEERS)
_ROOT = Path(__file__).parents[2]
#: Transactions whose scores are compared before anything is measured, and by how much float32 leaves differ.
_COMPARED, _CLOSE = 50, 1e-6
_START_S = 180.0


class ServiceError(Exception):
    """A service does not start, or does not score as the forest does; the message says which and why."""


@dataclass(frozen=True)
class Running:
    """A service under way.

    Attributes:
        generator: the callers.
        processes: the service's own.
        started_s: how long it took until it answered.
    """

    generator: Generator
    processes: Processes
    started_s: float


def speech_of(service: str) -> Speech:
    """Return how a service is asked."""
    return OURS[service] if service in OURS else PEERS[service].speech


def prepare_service(service: str, case: Case) -> Path:
    """Make what a service needs, where it was not made before: files of the forest, an interpreter.

    Returns:
        the interpreter.

    Raises:
        MissingPeerError: its libraries cannot be installed.
    """
    prepare(case, ".bundle")
    if service in OURS:
        return Path(sys.executable)
    peer = PEERS[service]
    prepare(case, peer.suffix)
    return python_of(peer.environment, peer.modules, peer.requirements)


@contextmanager
def running(service: str, case: Case, serves_on: set[int], calls_on: set[int]) -> Iterator[Running]:
    """Start a service on some cores and callers on others; check its scores.

    Raises:
        ServiceError, MissingPeerError: it cannot be had.
    """
    python = prepare_service(service, case)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorewire-service-")))
        began = time.monotonic()
        if service in OURS:
            addresses, processes = serve_ours(stack, service, case, directory, serves_on)
        else:
            start = Start(python, case, directory, free_ports_in_a_row(3), len(serves_on))
            addresses, processes = _start(stack, service, start, serves_on)
        generator = Generator(Target(service, addresses), calls_on)
        stack.callback(generator.close)
        _check(service, generator, case)
        started_s = time.monotonic() - began
        processes.find()
        yield Running(generator, processes, started_s)


def _start(stack: ExitStack, service: str, start: Start, cores: set[int]) -> tuple[list[str], Processes]:
    command, port = PEERS[service].command(start), start.port
    log = stack.enter_context((start.directory / "log").open("w+"))
    with marked(cores) as processes:
        stack.callback(processes.end)
        process = subprocess.Popen(
            command.arguments,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **command.variables},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    give_up_at = time.monotonic() + _START_S
    while not _answers(service, port):
        if process.poll() is not None or time.monotonic() > give_up_at:
            log.seek(0)
            raise ServiceError(f"{service} does not start: {log.read()[-2000:]}")
        time.sleep(0.1)
    return [f"127.0.0.1:{port}"], processes


def _answers(service: str, port: int) -> bool:
    """Say whether it scores by now."""
    try:
        caller = speech_of(service).caller([f"127.0.0.1:{port}"])
    except OSError:
        return False
    from benchmarks.service.traffic import answers  # noqa: PLC0415

    return answers(caller, 1, 5.0) != [None]


def _check(service: str, generator: Generator, case: Case) -> None:
    found = np.array(generator.scores(_COMPARED))
    wrong = ~np.isclose(found, expected(case, _COMPARED), rtol=0, atol=_CLOSE)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ServiceError(f"{service} scores transaction {row} as {found[row]}, not as the forest does")
