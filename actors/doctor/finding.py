"""What a check finds, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from actors.config import Settings

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: what was looked at: `ports`, `database`, ...
        level: `failure` where something will not work, `warning` where it may not, or only worse.
        found: what is the case.
        advice: what to do; "" where all is well.
    """

    check: str
    level: Level
    found: str
    advice: str = ""


#: Looks at one thing. It raises nothing: what cannot be looked at is a finding.
Check = Callable[[Settings], Iterable[Finding]]


def ok(check: str, found: str) -> Finding:
    """Say that all is well."""
    return Finding(check, "ok", found)


def warning(check: str, found: str, advice: str) -> Finding:
    """Say that something may not work, or only worse."""
    return Finding(check, "warning", found, advice)


def failure(check: str, found: str, advice: str) -> Finding:
    """Say that something will not work."""
    return Finding(check, "failure", found, advice)
