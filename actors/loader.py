"""The loader actor: fetches, verifies and warms what a release needs, off every serving thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from actors.checks import check_fit, check_latency, check_memory
from actors.child import Child
from actors.config import Settings
from actors.state import Loaded
from governance.cache import ArtifactCache
from governance.database import connect
from governance.policy import policy_of
from governance.releases import Release
from governance.signing import check_signed
from models.bundle import open_bundle
from models.decision import load_decision
from models.forest import Forest
from models.spec import load_spec

logger = logging.getLogger(__name__)

#: The slot that nodes serve.
CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Load:
    """The message that asks for a release to be loaded."""

    release: Release


@dataclass(frozen=True, slots=True)
class LoadDone:
    """The message that a release is ready for use."""

    loaded: Loaded


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The message that a release cannot be used on this node.

    Attributes:
        release: its number.
        reason: why, for a person.
        transient: whether trying again may help; if not, the node refuses the release.
    """

    release: int
    reason: str
    transient: bool


class LoaderActor(Child):
    """Makes releases ready for use, one after another.

    Args:
        dsn: where the artifacts come from.
        cache: the directory of this host's artifacts.
        scores: whether this node scores, and so needs the models and not only the feature specs.
        settings: how models are mapped, how much memory they may take, which keys are trusted.
        report: takes each LoadDone or LoadFailed.
    """

    def __init__(
        self,
        dsn: str,
        cache: Path,
        *,
        scores: bool,
        settings: Settings,
        report: Callable[[LoadDone | LoadFailed], None],
    ) -> None:
        super().__init__()
        self._dsn = dsn
        self._cache = ArtifactCache(cache)
        self._scores = scores
        self._settings = settings.scorer
        self._trusted = settings.trusted
        self._report = report
        # Releases share artifacts: a model that stays is not mapped, checked and warmed a second time.
        self._forests: dict[str, Forest] = {}

    def on_receive(self, message: Any) -> Any:
        """Load a release and report the outcome; leave all else to the base."""
        if not isinstance(message, Load):
            return super().on_receive(message)
        number = message.release.number
        try:
            self._report(LoadDone(self._load(message.release)))
        except psycopg.OperationalError as error:
            self._report(LoadFailed(number, f"the database is away: {error}", transient=True))
        except Exception as error:
            # Whatever a file or a disk may do: the rollout has to learn of it, and this node serves on.
            logger.exception("release %d cannot be prepared", number)
            self._report(LoadFailed(number, f"{type(error).__name__}: {error}", transient=False))
        return None

    def _load(self, release: Release) -> Loaded:
        stages = dict(release.slots[CHAMPION].stages)
        with connect(self._dsn) as connection:
            if self._trusted:
                for digest in stages.values():
                    check_signed(connection, digest, self._trusted)
            policy = policy_of(connection, release.environment)
            spec = load_spec(self._cache.fetch(connection, stages["features"]))
            forest = self._forest(connection, stages["model"]) if self._scores else None
            wanted = None if self._scores else stages.get("decision")
            rules = load_decision(self._cache.fetch(connection, wanted)) if wanted else None
        if forest is not None:
            check_fit(spec, forest)
            median_us = check_latency(forest, policy.latency_us)
            logger.info("release %d takes %.1f us a row here", release.number, median_us)
        logger.info("release %d of %s is prepared", release.number, release.environment)
        return Loaded(release.number, release.environment, stages, spec, forest, rules)

    def _forest(self, connection: psycopg.Connection[Any], digest: str) -> Forest:
        known = self._forests.get(digest)
        if known is not None:
            return known
        # The cache has verified the digest in this very read; the structure is checked here.
        path = self._cache.fetch(connection, digest)
        held = (forest.bundle.size for forest in self._forests.values())
        check_memory(held, path.stat().st_size, self._settings.models_bytes)
        forest = Forest(open_bundle(path, pages=self._settings.pages))
        forest.check_golden()
        forest.warm()
        huge, size = forest.bundle.huge, forest.bundle.size
        logger.info(
            "model %s is mapped (%s): %d of %d bytes in huge pages", digest, self._settings.pages, huge, size
        )
        self._forests[digest] = forest
        while len(self._forests) > _FORESTS_KEPT:
            del self._forests[next(iter(self._forests))]
        return forest


#: Current, previous and coming: more are never in use at once.
_FORESTS_KEPT = 3
