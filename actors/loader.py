"""The loader actor: fetches, verifies and warms what a release needs, off every serving thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psycopg

from actors.child import Child
from actors.config import Settings
from actors.errors import MemoryBudgetError
from actors.evaluation import NamedModel, outputs_of
from actors.loading import PipelineLoader
from actors.state import Loaded
from governance.artifacts import find_any, split_stage
from governance.database import Connection, connect
from governance.policy import policy_of
from governance.releases import CHAMPION, Release
from models.features.drift import DriftCounter
from models.spec import FeatureSpec

logger = logging.getLogger(__name__)

#: Role to the kinds of stages that its nodes hold, and to those whose code they run: a scorer knows how wide
#: the features are and does not compute them, a gateway knows what there is to be asked.
NEEDED: Final[Mapping[str, Container[str]]] = {
    "scorer": ("features", "model"),
    "preprocessor": ("features", "decision"),
    "gateway": ("features",),
}
RUN: Final[Mapping[str, Container[str]]] = {
    "scorer": ("model",),
    "preprocessor": ("features", "decision"),
    "gateway": (),
}


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
        role: what this node is: a key of NEEDED, which says what it has to hold.
        settings: how models are mapped, how much memory they may take, which keys are trusted.
        report: takes each LoadDone or LoadFailed.
    """

    def __init__(
        self,
        dsn: str,
        cache: Path,
        *,
        role: str,
        settings: Settings,
        report: Callable[[LoadDone | LoadFailed], None],
    ) -> None:
        super().__init__()
        self._dsn = dsn
        self._pipelines = PipelineLoader(cache, settings, settings.scorer.actors if role == "scorer" else 1)
        self._role = role
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
        only, run = (_of(stages, named[self._role]) for named in (NEEDED, RUN))
        with connect(self._dsn) as connection:
            policy = policy_of(connection, release.environment)
            found = self._pipelines.load(connection, stages, only=only, run=run, latency_us=policy.latency_us)
            told = self._role == "gateway"
            models = _with_outputs(connection, stages, found.models) if told else found.models
        number, environment = release.number, release.environment
        logger.info("release %d of %s is prepared", number, environment, extra={"release": number})
        return Loaded(
            found.specs,
            models,
            found.rules,
            release=release.number,
            environment=release.environment,
            pipeline=stages,
            drift=_drift(found.specs) if self._role == "preprocessor" else {},
        )


def _drift(specs: Mapping[str, object]) -> dict[str, DriftCounter]:
    """Return what counts live transactions, where a spec has a training profile."""
    own = {stage: spec for stage, spec in specs.items() if isinstance(spec, FeatureSpec)}
    counters = {stage: spec.drift_counter() for stage, spec in own.items()}
    return {stage: counter for stage, counter in counters.items() if counter is not None}


def _of(stages: Mapping[str, str], kinds: Container[str]) -> set[str]:
    """Return the stages of some kinds, whatever score they are of."""
    return {stage for stage in stages if split_stage(stage)[0] in kinds}


def _with_outputs(
    connection: Connection, stages: Mapping[str, str], models: Iterable[NamedModel]
) -> tuple[NamedModel, ...]:
    """Have models that are not loaded know their outputs, as they were noted when they were registered."""
    named = {model.name: f"model:{model.name}" if model.name else "model" for model in models}
    told = {name: find_any(connection, stages[stage]).provenance["outputs"] for name, stage in named.items()}
    return tuple(replace(model, outputs=outputs_of(model.name, told[model.name])) for model in models)
