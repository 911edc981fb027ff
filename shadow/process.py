"""The process of a candidate, as its node holds it: started, asked within a deadline, killed."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.config import Settings
from shadow import frames
from shadow.candidate_process import MARK, OUT_OF_MEMORY
from shadow.errors import CandidateDiedError, CandidateError, CandidateWaitsError

_ROOT = Path(__file__).parents[1]
#: The command line of a candidate's process, but for the descriptors that it is given.
PROGRAM = (sys.executable, "-m", "shadow.candidate_process")
#: Seconds that a process may take until it is ready for its first batch.
START_S = 180.0
#: Seconds that it may take to load what a batch needs, by the clock; and how often it may load for one.
LOAD_S = 600.0
_LOADS = 1000
_END_S = 5.0


@dataclass(frozen=True)
class Limits:
    """What a candidate's process may take.

    Attributes:
        memory_bytes: beyond what a process has before it loads anything.
        nice: how far it stands back behind live nodes on the same host, 0 to 19.
        cpu_s: seconds of CPU time for any batch, and
        cpu_ms_record: milliseconds more for each record of it.
        hang_s: seconds, by the clock, until a batch must be answered, on top of four times its CPU time.
    """

    memory_bytes: int = 4_000_000_000
    nice: int = 10
    cpu_s: float = 5.0
    cpu_ms_record: float = 20.0
    hang_s: float = 30.0

    def cpu_for(self, records: int) -> float:
        """Return the seconds of CPU time that a batch may take."""
        return self.cpu_s + records * self.cpu_ms_record / 1e3


def limits_of(settings: Settings) -> Limits:
    """Return what a candidate's process may take."""
    chosen = settings.shadow
    return Limits(
        memory_bytes=int(chosen.memory_mb * 1e6),
        nice=chosen.nice,
        cpu_s=chosen.cpu_s,
        cpu_ms_record=chosen.cpu_ms_record,
        hang_s=chosen.hang_s,
    )


class CandidateProcess:
    """One life of a candidate's process.

    Args:
        overrides: stage to digest.
        settings: the host's configuration.
        limits: what the process may take.
        program: its command line.

    Raises:
        CandidateDiedError: it does not get ready.
    """

    def __init__(
        self,
        overrides: Mapping[str, str],
        settings: Settings,
        limits: Limits,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._limits = limits
        self._link, theirs = socket.socketpair()
        memory = os.memfd_create("scorewire-mark")
        try:
            os.truncate(memory, MARK.size)
            self._mark = mmap.mmap(memory, MARK.size)
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own command line
                    [*program, str(theirs.fileno()), str(memory)],
                    cwd=_ROOT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), memory],
                    start_new_session=True,  # a group of its own, so that what it starts ends with it
                )
        finally:
            os.close(memory)
        greeting = {
            "overrides": dict(overrides),
            "settings": settings.model_dump_json(),
            "memory_bytes": limits.memory_bytes,
            "nice": limits.nice,
        }
        self._ask(greeting, START_S)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def evaluate(self, records: Sequence[bytes]) -> list[Any]:
        """Have records evaluated.

        Returns:
            for each record a list as of shadow.candidate.Evaluated, or the reason why it was refused.

        Raises:
            CandidateWaitsError: what it needs cannot be loaded now; ask again later.
            CandidateDiedError: it died, ran into a limit, or fell silent; it is gone.
        """
        cpu_s = self._limits.cpu_for(len(records))
        answer = self._ask({"records": list(records), "cpu_s": cpu_s}, self._limits.hang_s + 4 * cpu_s)
        if isinstance(answer, dict) and isinstance(answer.get("wait"), str):
            raise CandidateWaitsError(answer["wait"])
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(records) or not all(map(_fits, results)):
            raise self._gone("its answer is none")
        return results

    def stop(self) -> None:
        """End it, with all that it started. Stopping twice is harmless."""
        self._link.close()
        # The group lives for as long as its first process was not waited for.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.returncode is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ask(self, message: Any, seconds: float) -> Any:
        try:
            self._link.settimeout(seconds)
            frames.send(self._link, message)
            return self._answer(seconds)
        except TimeoutError as error:
            raise self._gone(f"no answer in {seconds:.0f} s") from error
        except (OSError, EOFError) as error:
            raise self._gone("") from error
        except CandidateError as error:
            raise self._gone(str(error)) from error

    def _answer(self, seconds: float) -> Any:
        """Return what it answers; while it loads it has more time."""
        allowed = seconds
        for _ in range(_LOADS):
            answer = frames.receive(self._link, time.monotonic() + allowed)
            if not isinstance(answer, dict) or "loading" not in answer:
                return answer
            allowed = LOAD_S if answer["loading"] else seconds
        raise CandidateError("it loads without end")

    def _gone(self, why: str) -> CandidateDiedError:
        """Kill it, and say what it died of."""
        if not why:  # it hung up: let it end by itself, so that its own reason is known
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        code = self._process.poll()
        self.stop()
        (place,) = MARK.unpack_from(self._mark)
        return CandidateDiedError(why or _cause(code), place)


def _cause(code: int | None) -> str:
    if code is None:
        return "it hung up"
    if code == OUT_OF_MEMORY:
        return "it ran out of memory (shadow.memory_mb)"
    if code == -signal.SIGXCPU:
        return "it used up its CPU time (shadow.cpu_s, shadow.cpu_ms_record)"
    if code < 0:
        return f"it was killed by {signal.Signals(-code).name}"
    return f"it ended with exit code {code}"


def _fits(result: Any) -> bool:
    """Say whether a result is one: a candidate may say anything."""
    if isinstance(result, str):
        return True
    if not isinstance(result, list) or len(result) != len(_PARTS):
        return False
    return all(fits(part) for fits, part in zip(_PARTS, result, strict=True))


def _is_scores(part: Any) -> bool:
    return (
        isinstance(part, dict)
        and bool(part)
        and all(isinstance(k, str) and isinstance(v, float) for k, v in part.items())
    )


def _is_us(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(k, str) and isinstance(v, int) for k, v in part.items())


def _is_drift(part: Any) -> bool:
    return isinstance(part, dict) and all(
        isinstance(k, str) and isinstance(v, list) and list(map(type, v)) == [float, float]
        for k, v in part.items()
    )


def _is_outcome(part: Any) -> bool:
    return part is None or isinstance(part, str)


def _is_reasons(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(reason, str) for reason in part)


_PARTS: tuple[Callable[[Any], bool], ...] = (_is_scores, _is_outcome, _is_reasons, _is_us, _is_drift)
