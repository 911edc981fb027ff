"""What a gate says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a gate says.

    Attributes:
        gate: its name, as the policy has it.
        passed: whether it lets the pipeline through.
        detail: with which figures.
    """

    gate: str
    passed: bool
    detail: str
