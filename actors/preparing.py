"""Preparing: which releases a node has asked its loader for, and what came of it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Container, Iterable
from typing import Any

from pykka import ActorDeadError, ActorRef

from actors.loader import Load, LoadFailed
from governance.releases import Release

#: Seconds until a release that could not be loaded is tried again.
RETRY_S = 2.0
#: The same for one that nobody waits for.
SPARE_RETRY_S = 60.0
#: Seconds until the loader is asked again for a release of which it said nothing: it may have died.
ASK_AGAIN_S = 60.0


class Preparing:
    """Asks the loader for what a node does not hold: at once what is wanted now, one by one what is spare.

    Args:
        loader: gives the loader that lives now.
    """

    def __init__(self, loader: Callable[[], ActorRef[Any]]) -> None:
        self._loader = loader
        self._asked: dict[int, tuple[str, float]] = {}
        self._spare: set[int] = set()
        self._failed: dict[int, tuple[str, float]] = {}
        self._spare_failed: dict[int, float] = {}

    def ask(self, wanted: Iterable[Release], spare: Iterable[Release], held: Container[int]) -> None:
        """Ask for what is missing.

        Args:
            wanted: what is to be held now, the most urgent first.
            spare: what is to be held when there is time and room for it, the most useful first.
            held: numbers of the releases that are held.
        """
        now = time.monotonic()
        missing = [release for release in wanted if release.number not in held]
        for release in missing:
            number = release.number
            self._spare.discard(number)
            if self._failed.get(number, ("", 0.0))[1] <= now:
                self._ask_for(release, now)
        if missing:
            return
        # One at a time: whatever is promoted meanwhile waits for the end of that one.
        for release in spare:
            number = release.number
            if number not in held and self._spare_failed.get(number, 0.0) <= now:
                self._spare.add(number)
                self._ask_for(release, now)
                return

    def _ask_for(self, release: Release, now: float) -> None:
        loader = self._loader()
        # A loader that has taken another's place knows nothing of what that was asked.
        asked_of, asked_at = self._asked.get(release.number, ("", -math.inf))
        if asked_of == loader.actor_urn and asked_at > now - ASK_AGAIN_S:
            return
        self._asked[release.number] = (loader.actor_urn, now)
        with contextlib.suppress(ActorDeadError):  # its successor is asked with the next view
            loader.tell(Load(release))

    def done(self, number: int) -> None:
        """Take that a release is loaded."""
        for known in (self._asked, self._failed, self._spare_failed):
            known.pop(number, None)
        self._spare.discard(number)

    def failed(self, message: LoadFailed) -> None:
        """Take that a release could not be loaded. One that was spare is refused to nobody."""
        number, now = message.release, time.monotonic()
        self._asked.pop(number, None)
        if number in self._spare:
            self._spare.discard(number)
            self._spare_failed[number] = now + SPARE_RETRY_S
        else:
            self._failed[number] = ("" if message.transient else message.reason, now + RETRY_S)

    def again(self, number: int) -> None:
        """Forget that a release was asked for: what kept it from being loaded is out of the way."""
        self._asked.pop(number, None)

    def refusal(self, number: int) -> str:
        """Return why this node refuses a release; "" if it does not."""
        return self._failed.get(number, ("", 0.0))[0]
