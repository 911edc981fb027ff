"""The governance actor: keeps its node at the release that Postgres names, and tells Postgres where it is.

It only ever changes what the node holds, never how it serves: with the database away, the node goes on
with the release in hand.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import psycopg
from pykka import ActorRef

from actors.drift_watch import DriftWatch
from actors.loader import LoadDone, LoadFailed
from actors.mailbox_actor import MailboxActor
from actors.preparing import Preparing
from actors.serving import RefreshPeers
from actors.state import Canary, Holdings, NodeState
from actors.tally import Watch
from actors.watch import WatchSource
from governance.canary_watch import look, report
from governance.membership import beat, join, leave
from governance.releases import Release
from governance.rollouts import acknowledge, settle
from governance.watcher import View, Watcher
from transport.mailbox import Timer

logger = logging.getLogger(__name__)

#: Seconds between two beats of a node to the database.
BEAT_S = 1.0


@dataclass(frozen=True, slots=True)
class Peers:
    """How the governance actor reaches the others of its node; each call gives those that live now."""

    serving: Callable[[], Iterable[ActorRef[Any]]]
    loader: Callable[[], ActorRef[Any]]


class GovernorActor(MailboxActor):
    """Brings the node to what Postgres says: prepares what comes, activates what is current.

    Args:
        dsn: the database.
        state: what the node's actors share; this actor is the one that writes it.
        peers: the node's other actors.
        keep: how many releases that were current before stay loaded for a return, as far as there is room.
    """

    def __init__(self, dsn: str, state: NodeState, peers: Peers, keep: int = 1) -> None:
        super().__init__()
        self._dsn = dsn
        self._keep = keep
        self._state = state
        self._peers = peers
        self._view: View | None = None
        self._preparing = Preparing(peers.loader)
        self._acknowledged: set[int] = set()
        self._joined = False
        self._stale = False
        self._drift = DriftWatch(state)

    def on_start(self) -> None:
        """Begin to watch."""
        watcher = Watcher(self._dsn, self._state.environment, keep=self._keep)
        self._watch = WatchSource(self.loop, watcher, self._take_view)
        self.loop.add(Timer(BEAT_S, self._beat))

    def on_stop(self) -> None:
        """Leave the membership, so that nobody waits for this node, and fail its health checks."""
        self._state.leaving = True
        self._drift.tell(self._watch.do, now=True)
        self._watch.do(lambda connection: leave(connection, self._state.node_id))
        self._watch.close()

    def on_failure(self, *_: object) -> None:
        """Let the connection go."""
        self._watch.close()

    def on_receive(self, message: Any) -> Any:
        """Take what the loader reports; leave all else to the base."""
        if isinstance(message, LoadDone):
            self._take_loaded(message)
        elif isinstance(message, LoadFailed):
            self._take_failure(message)
        else:
            return super().on_receive(message)
        return None

    # -- what Postgres says

    def _take_view(self, view: View) -> None:
        self._state.looked_at = time.monotonic()
        if not self._joined:
            # Joined first, read after: no rollout can start between the two and miss this node.
            self._beat()
            if not self._joined:
                return
        self._view = view
        self._take_peers(view)
        self._ask_for_missing(view)
        self._adopt(view)
        self._acknowledge(view)
        if view.coming is not None:
            self._watch.do(lambda connection: settle(connection, self._state.environment))

    def _take_peers(self, view: View) -> None:
        """Note where those are that this node asks, and tell its actors if that changed."""
        state = self._state
        asked = _ASKED.get(state.role, ())
        scorers, preprocessors = (
            _endpoints(view, role) if role in asked else () for role in ("scorer", "preprocessor")
        )
        if (scorers, preprocessors) != (state.scorers, state.preprocessors):
            state.scorers, state.preprocessors = scorers, preprocessors
            for actor in self._peers.serving():
                actor.tell(RefreshPeers())

    def _ask_for_missing(self, view: View) -> None:
        self._preparing.ask(_wanted(view), view.earlier, self._state.holdings.releases)

    def _adopt(self, view: View) -> None:
        """Make the current release the one that is stamped, as soon as it is held; drop what is over."""
        wanted = {release.number for release in (*_wanted(view), *view.earlier)}
        current = view.current.number if view.current else None

        def adopted(held: Holdings) -> Holdings:
            if current not in held.releases:
                return held
            kept = {number: loaded for number, loaded in held.releases.items() if number in wanted}
            canary = _canary(view, kept, held.canary)
            found = Holdings(MappingProxyType(kept), current, canary, view.activation)
            return held if found == held else found

        before, held = self._state.change(adopted)
        if held.current == current != before.current:
            logger.info(
                "release %s is active on %s", current, self._state.node_id, extra={"release": current}
            )
            self._beat()

    def _acknowledge(self, view: View) -> None:
        rollout = view.coming
        if rollout is None or rollout.id in self._acknowledged:
            return
        number = rollout.release.number
        reason = self._preparing.refusal(number)
        ready = number in self._state.holdings.releases
        if not ready and not reason:
            return
        node_id = self._state.node_id
        if self._watch.do(
            lambda connection: acknowledge(connection, rollout.id, node_id, ready=ready, reason=reason),
        ):
            self._acknowledged.add(rollout.id)

    # -- what the loader says

    def _take_loaded(self, message: LoadDone) -> None:
        number = message.loaded.release
        self._preparing.done(number)
        more = {number: message.loaded}
        self._state.change(lambda held: replace(held, releases=MappingProxyType({**held.releases, **more})))
        self._settle_view()

    def _take_failure(self, message: LoadFailed) -> None:
        if message.no_room and self._make_room(message.release):
            self._preparing.again(message.release)
        else:
            self._preparing.failed(message)
            number, reason = message.release, message.reason
            logger.error("release %d is not prepared here: %s", number, reason, extra={"release": number})
        self._settle_view()

    def _make_room(self, number: int) -> bool:
        """Let go the least useful release that is held for a return only; say whether that may help."""
        view, held = self._view, self._state.holdings
        if view is None:
            return False
        wanted = {release.number for release in _wanted(view)}
        earlier = (release.number for release in view.earlier)
        spare = [one for one in earlier if one in held.releases and one not in wanted]
        if number not in wanted or not spare:
            return False
        logger.info("release %d makes room for %d", spare[-1], number)
        kept = {one: loaded for one, loaded in held.releases.items() if one != spare[-1]}
        self._state.change(lambda held: replace(held, releases=MappingProxyType(kept)))
        return True

    def _settle_view(self) -> None:
        if self._view is not None:
            self._ask_for_missing(self._view)
            self._adopt(self._view)
            self._acknowledge(self._view)

    # -- what Postgres is told

    def _beat(self) -> None:
        state = self._state
        word = {
            "state": "ready" if state.is_ready() else "starting",
            "release": state.holdings.current,
            "endpoints": tuple(state.endpoints.values()),
            "health": state.health,
        }
        self._watch.do(lambda connection: self._say(connection, word))
        self._watch_canary()
        self._tell_if_stale()
        self._drift.tell(self._watch.do)

    def _tell_if_stale(self) -> None:
        """Say once that the last look is too long ago, and once that it is not any more."""
        stale_s, number = self._state.stale_s(time.monotonic()), self._state.holdings.current
        if (stale_s is not None) != self._stale:
            self._stale = stale_s is not None
            if self._stale:
                logger.warning("serving release %s, by a look of %.0f s ago at the database", number, stale_s)
            else:
                logger.info("serving release %s, as the database has it", number)

    def _watch_canary(self) -> None:
        """Say what was counted of the canary, and see whether it is time that it grows or ends."""
        canary = self._state.holdings.canary
        if canary is not None and canary.watch is not None and self._state.role == "preprocessor":
            watch, environment, node_id = canary.watch, self._state.environment, self._state.node_id
            self._watch.do(
                lambda connection: report(
                    connection,
                    environment,
                    number=watch.release,
                    step=watch.step,
                    node_id=node_id,
                    counts=watch.snapshot(),
                )
            )
        if self._view is not None and self._view.canary is not None and self._view.canary.watched:
            self._watch.do(self._look)

    def _look(self, connection: psycopg.Connection[Any]) -> None:
        done = look(connection, self._state.environment, by=self._state.node_id)
        if done:
            logger.warning("%s", done)

    def _say(self, connection: psycopg.Connection[Any], word: dict[str, Any]) -> None:
        if self._joined and beat(connection, self._state.node_id, **word):
            return
        join(
            connection,
            node_id=self._state.node_id,
            environment=self._state.environment,
            role=self._state.role,
            host=socket.gethostname(),
            pid=os.getpid(),
            **word,
        )
        self._joined = True


#: Role to the roles that it asks.
_ASKED = {"preprocessor": ("scorer",), "gateway": ("scorer", "preprocessor")}


def _endpoints(view: View, role: str) -> tuple[str, ...]:
    """Return where all actors of a role listen that are ready."""
    ready = (member for member in view.members if member.role == role and member.state == "ready")
    return tuple(sorted(endpoint for member in ready for endpoint in member.endpoints))


def _wanted(view: View) -> list[Release]:
    """Return the releases that cannot be done without, the most urgent first."""
    coming = view.coming.release if view.coming else None
    canary = view.canary.release if view.canary else None
    found = {release.number: release for release in (view.current, coming, canary) if release}
    return list(found.values())


def _canary(view: View, held: Container[int], before: Canary | None) -> Canary | None:
    """Return the canary to stamp, if this node holds it by now. Each of its steps is counted apart."""
    found = view.canary
    if found is None or found.release.number not in held:
        return None
    number, watch = found.release.number, before.watch if before else None
    if watch is None or (watch.release, watch.step) != (number, found.step):
        watch = Watch(number, found.step)
    return Canary(number, found.percent, found.key, watch)
