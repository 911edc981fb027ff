"""What a preprocessor counts while there is a canary: how the canary's answers differ from the champion's."""

from __future__ import annotations

from typing import Any

from models.histogram import bucket


class Tally:
    """What was counted of one release. One actor writes; another may take a snapshot at any time.

    Attributes:
        requests: transactions that were stamped with it and are over, however they ended.
        errors: how each ended that was not answered with scores, to how many; `rule` counts answers with a
            decision rule that could not be evaluated.
        latency: histogram of the microseconds that answers took in the preprocessor.
        scores: histogram of the last score of each.
    """

    __slots__ = ("errors", "latency", "requests", "scores")

    def __init__(self) -> None:
        self.requests = 0
        self.errors: dict[str, int] = {}
        self.latency: dict[int, int] = {}
        self.scores: dict[int, int] = {}

    def count(self, us: int, score: float) -> None:
        """Count an answer."""
        self.requests += 1
        place = bucket(us)
        self.latency[place] = self.latency.get(place, 0) + 1
        place = bucket(score)
        self.scores[place] = self.scores.get(place, 0) + 1

    def fail(self, kind: str) -> None:
        """Count a transaction that was not answered with scores."""
        self.requests += 1
        self.note(kind)

    def note(self, kind: str) -> None:
        """Count an error of a transaction that is counted elsewhere."""
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def snapshot(self) -> dict[str, Any]:
        """Return what was counted so far."""
        # Copies are made in one step each, whatever another thread does.
        return {
            "requests": self.requests,
            "errors": dict(self.errors),
            "latency": dict(self.latency),
            "scores": dict(self.scores),
        }


class Watch:
    """The tallies of one step of a canary on one node.

    Args:
        release: the canary's number.
        step: the step's number.

    Attributes:
        keyless: transactions without the key by which the canary is given.
    """

    __slots__ = ("canary", "champion", "keyless", "release", "step")

    def __init__(self, release: int, step: int) -> None:
        self.release = release
        self.step = step
        self.canary = Tally()
        self.champion = Tally()
        self.keyless = 0

    def snapshot(self) -> dict[str, Any]:
        """Return what was counted of both so far."""
        return {
            "canary": self.canary.snapshot(),
            "champion": self.champion.snapshot(),
            "keyless": self.keyless,
        }
