"""A node that has lost the database follows the scorers that it asks: they tell on which release they act.

So a release that ended is served by no node that can still hear of that, and not for long. What nobody can
tell a node, it cannot know: for how long it may serve then what it holds is the operator's choice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from actors.state import Holdings, NodeState
from transport.mailbox import Timer

logger = logging.getLogger(__name__)

#: Seconds between two looks at what the scorers say.
FOLLOW_S: Final = 0.25


def follower(state: NodeState, heard: Callable[[], tuple[int, int]]) -> Timer:
    """Return the timer by which a node that stamps releases follows, for the loop that asks the scorers.

    Args:
        state: the node's.
        heard: the newest activation that a scorer has told of, and the release on which it acts; zeros where
            none did.
    """
    return Timer(FOLLOW_S, lambda: follow(state, heard()))


def follow(state: NodeState, heard: tuple[int, int]) -> None:
    """Act on the release that was heard of, or on none where it is not held, while the database is away."""
    away_s = time.monotonic() - state.looked_at
    if away_s > state.refuse_after_s:
        before, _ = state.change(lambda held: replace(held, current=None, canary=None))
        if before.current is not None:
            logger.error("the database is away for too long: this node serves nothing until it is back")
    elif away_s > state.stale_after_s:
        before, now = state.change(lambda held: _led(held, *heard))
        if before.activation != now.activation:
            said = "is followed" if now.current is not None else "is not held here: this node serves nothing"
            logger.warning("the database is away, and scorers act on another release: %d %s", heard[1], said)


def _led(held: Holdings, activation: int, release: int) -> Holdings:
    if activation <= held.activation:
        return held
    current = release if release in held.releases else None
    # Nobody told of the canary: without the database it could not be watched either.
    return replace(held, current=current, canary=None, activation=activation)
