"""The loader actor: fetches, verifies and warms what a release needs, off every serving thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from actors.child import Child
from actors.config import Settings
from actors.errors import MemoryBudgetError
from actors.loading import PipelineLoader
from actors.state import Loaded
from governance.artifacts import split_stage
from governance.database import connect
from governance.policy import policy_of
from governance.releases import CHAMPION, Release
from models.features.drift import DriftCounter
from models.spec import FeatureSpec

logger = logging.getLogger(__name__)


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
        no_room: whether it would fit if other models were let go.
    """

    release: int
    reason: str
    transient: bool
    no_room: bool = False


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
        self._pipelines = PipelineLoader(cache, settings, settings.scorer.actors if scores else 1)
        self._scores = scores
        self._report = report

    def on_receive(self, message: Any) -> Any:
        """Load a release and report the outcome; leave all else to the base."""
        if not isinstance(message, Load):
            return super().on_receive(message)
        number = message.release.number
        try:
            self._report(LoadDone(self._load(message.release)))
        except psycopg.OperationalError as error:
            self._report(LoadFailed(number, f"the database is away: {error}", transient=True))
        except MemoryBudgetError as error:
            self._report(LoadFailed(number, f"MemoryBudgetError: {error}", transient=False, no_room=True))
        except Exception as error:
            # Whatever a file or a disk may do: the rollout has to learn of it, and this node serves on.
            logger.exception("release %d cannot be prepared", number, extra={"release": number})
            self._report(LoadFailed(number, f"{type(error).__name__}: {error}", transient=False))
        return None

    def _load(self, release: Release) -> Loaded:
        stages = dict(release.slots[CHAMPION].stages)
        only = {stage for stage in stages if _is_needed(stage, scores=self._scores)}
        with connect(self._dsn) as connection:
            policy = policy_of(connection, release.environment)
            # A scorer knows how wide the features are, and does not compute them.
            run = {stage for stage in only if self._scores == (split_stage(stage)[0] == "model")}
            found = self._pipelines.load(connection, stages, only=only, run=run, latency_us=policy.latency_us)
        number, environment = release.number, release.environment
        logger.info("release %d of %s is prepared", number, environment, extra={"release": number})
        return Loaded(
            found.specs,
            found.models,
            found.rules,
            release=release.number,
            environment=release.environment,
            pipeline=stages,
            drift={} if self._scores else _drift(found.specs),
        )


def _drift(specs: Mapping[str, object]) -> dict[str, DriftCounter]:
    """Return what counts live transactions, where a spec has a training profile."""
    own = {stage: spec for stage, spec in specs.items() if isinstance(spec, FeatureSpec)}
    counters = {stage: spec.drift_counter() for stage, spec in own.items()}
    return {stage: counter for stage, counter in counters.items() if counter is not None}


def _is_needed(stage: str, *, scores: bool) -> bool:
    """Say whether a node needs a stage: scorers the models, preprocessors the rules, both the features."""
    base, _ = split_stage(stage)
    return base == "features" or scores == (base == "model")
