"""What a worker of a code package may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CodeLimits:
    """What a worker may take.

    Attributes:
        budget_s: seconds for one request (for a model, for one batch).
        memory_bytes: its address space.
        start_s: seconds until it has loaded its package.
    """

    budget_s: float = 0.1
    memory_bytes: int = 1 << 30
    start_s: float = 30.0


@dataclass(frozen=True)
class CodeCrew:
    """The workers of a package in an actor.

    Attributes:
        workers: those that take requests.
        spares: those that are ready to follow one that dies.
    """

    workers: int = 1
    spares: int = 1
