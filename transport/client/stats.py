"""What a pool counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class PoolStats:
    """What a pool has counted since it was made.

    Attributes:
        sent: requests that were sent to a node, repetitions included.
        answered: requests that were answered.
        refused: requests that ended with an error that a node gave.
        retried: repetitions elsewhere, after a node failed or said no.
        throttled: requests that were refused here, since the nodes refuse more than they take.
        unaffordable: repetitions that the budget for them did not allow.
        hedged: second askings of slow requests.
        hedges_won: those whose answer came first.
        duplicates: answers that came after another had been taken.
        expired: requests whose deadline passed.
        late: answers to nothing that is waited for: after the deadline, or after the node was left out.
        ejected: times that a node was left out for its silence, or its lost connection.
        failing: times that a node was left out for its errors.
        behind: times that nobody was left who acts on the newest release, and older ones were asked.
        unreadable: frames that could not be read.
    """

    sent: int = 0
    answered: int = 0
    refused: int = 0
    retried: int = 0
    throttled: int = 0
    unaffordable: int = 0
    hedged: int = 0
    hedges_won: int = 0
    duplicates: int = 0
    expired: int = 0
    late: int = 0
    ejected: int = 0
    failing: int = 0
    behind: int = 0
    unreadable: int = 0
