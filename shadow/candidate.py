"""A candidate: what a shadow makes of live records, computing anew what it overrides and nothing else."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.errors import ActorError
from actors.evaluation import DECISION, FEATURES, VECTOR_DTYPE, Evaluator, Features
from governance.artifacts import split_stage
from governance.errors import CacheError, GovernanceError
from models.errors import InputError, ModelError
from models.spec import TransactionError
from shadow.errors import HiddenFieldError
from shadow.record import LiveRecord
from transport.client.errors import ScorewireError

Pipeline = Mapping[str, str]
#: Loads of a pipeline the stages that are named first, and starts the code of those that are named second;
#: see actors.loading.PipelineLoader.load.
Load = Callable[[Pipeline, Collection[str], Collection[str]], Evaluator]

#: Pipelines of live records that are kept ready: the current one, and those before and after a rollout.
_PIPELINES_KEPT = 4


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What a candidate made of a record.

    Attributes:
        scores: name to score; the live ones where no model is computed anew.
        outcome: what was decided; the live outcome where nothing is decided anew.
        reasons: the codes of that.
        us: stage to microseconds, of what was computed anew; a model's is its batch's mean.
        drift: feature to (live value, the candidate's), where features are overridden.
    """

    scores: Mapping[str, float]
    outcome: str | None
    reasons: Sequence[str]
    us: Mapping[str, int]
    drift: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Refused:
    """That a candidate cannot evaluate a record, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a pipeline is computed anew.

    Attributes:
        features: the features stages that are overridden.
        models: the model stages that are overridden, or take a vector that is.
        decides: whether it is decided anew: other rules, or other scores.
        load: the stages that this needs.
    """

    features: frozenset[str]
    models: frozenset[str]
    decides: bool
    load: frozenset[str]


def plan(pipeline: Pipeline, overrides: Pipeline) -> Plan:
    """Say what a shadow computes anew for records of a pipeline."""
    whole = {**pipeline, **overrides}
    features = frozenset(stage for stage in overrides if split_stage(stage)[0] == "features")
    takes = {stage: _features_of(stage, whole) for stage in whole if split_stage(stage)[0] == "model"}
    models = frozenset(s for s, vector in takes.items() if s in overrides or vector in features)
    decides = "decision" in whole and ("decision" in overrides or bool(models))
    # The spec of a vector that is taken from the record is loaded as well: it says what the vector holds.
    needed = features | models | {takes[stage] for stage in models}
    return Plan(features, models, decides, needed | ({"decision"} if decides else set()))


def refuse_hidden(evaluator: Evaluator, plan: Plan, live: Features) -> None:
    """Refuse a shadow that needs a field which live records do not hold as it was.

    Args:
        evaluator: what the shadow computes with.
        plan: what it computes anew.
        live: the champion's feature spec, whose field policy the tee applies.

    Raises:
        HiddenFieldError: names the fields.
    """
    needed = {name for stage in plan.features for name in evaluator.specs[stage].reads}
    if plan.decides and evaluator.rules is not None:
        needed |= evaluator.rules.fields or set()
    dropped = needed - live.declared if live.undeclared == "drop" else set()
    hidden = sorted(needed & live.storage.keys() | dropped)
    if hidden:
        raise HiddenFieldError(
            f"the field policy of the features {live.name} {live.version} hides {', '.join(hidden)}, which "
            "the shadow needs: promote features that keep them, or a shadow that does without"
        )


def _features_of(model: str, pipeline: Pipeline) -> str:
    own = f"{FEATURES}:{split_stage(model)[1]}"
    return own if own in pipeline else FEATURES


class _Ready:
    """A shadow made ready for the records of one pipeline."""

    def __init__(self, pipeline: Pipeline, overrides: Pipeline, load: Load) -> None:
        self.plan = plan(pipeline, overrides)
        anew = {*self.plan.features, *self.plan.models, *((DECISION,) if self.plan.decides else ())}
        self.evaluator = load({**pipeline, **overrides}, self.plan.load, anew)
        live = self.plan.features & pipeline.keys()
        self._live = load(pipeline, live, ()).specs if live else {}
        self._shared = {stage: self._places(stage) for stage in live}
        refuse_hidden(self.evaluator, self.plan, load(pipeline, {FEATURES}, ()).spec)

    def _places(self, stage: str) -> list[tuple[str, int, int]]:
        """Return the features that both specs of a stage have, with their places."""
        live = {name: place for place, name in enumerate(self._live[stage].feature_names)}
        names = self.evaluator.specs[stage].feature_names
        return [(name, live[name], place) for place, name in enumerate(names) if name in live]

    def vectors(self, record: LiveRecord) -> dict[str, bytes]:
        """Return the vectors that the models take: computed anew, or the record's.

        Raises:
            TransactionError: the transaction breaks a rule of the spec.
            LookupError: the record has no such vector, or one of another width.
        """
        found = {}
        for stage, spec in self.evaluator.specs.items():
            if stage in self.plan.features:
                found[stage] = spec.packed(record.transaction)
            else:
                found[stage] = _checked(record, stage, self.evaluator.widths[stage])
        return found

    def drift(self, record: LiveRecord, vectors: Mapping[str, bytes]) -> dict[str, list[float]]:
        """Return the features that both have, the record's value first."""
        found = {}
        for stage, places in self._shared.items():
            live = _checked(record, stage, self._live[stage].n_features * VECTOR_DTYPE.itemsize)
            a = np.frombuffer(live, VECTOR_DTYPE).tolist()
            b = np.frombuffer(vectors[stage], VECTOR_DTYPE).tolist()
            found.update({name: [a[here], b[there]] for name, here, there in places})
        return found


def check_candidate(pipeline: Pipeline, overrides: Pipeline, load: Load) -> None:
    """Make a shadow ready for records of a pipeline, as its nodes will, to find out whether they can.

    Raises:
        GovernanceError, ModelError, ActorError: an artifact cannot be had, trusted or used.
        HiddenFieldError: the field policy hides what it needs.
        psycopg.OperationalError: the database is away.
    """
    _Ready(pipeline, overrides, load)


class Candidate:
    """Evaluates live records by a shadow's overrides.

    Args:
        overrides: stage to digest.
        load: loads what a pipeline needs.
        mark: told the place of each record when its turn comes, so that it is known what a process died of.
    """

    def __init__(self, overrides: Pipeline, load: Load, mark: Callable[[int], None] = lambda _: None) -> None:
        self._overrides = overrides
        self._load = load
        self.mark = mark
        self._ready: dict[tuple[tuple[str, str], ...], _Ready | Refused] = {}

    def evaluate(self, records: Sequence[LiveRecord]) -> list[Evaluated | Refused]:
        """Evaluate records; the result at a place is that of the record at that place.

        A record that cannot be evaluated is refused alone.

        Raises:
            psycopg.OperationalError, CacheError: what is needed cannot be loaded now; later it may.
        """
        groups: dict[tuple[tuple[str, str], ...], list[int]] = defaultdict(list)
        for place, record in enumerate(records):
            groups[tuple(sorted(record.pipeline.items()))].append(place)
        found: list[Evaluated | Refused] = [Refused("not evaluated")] * len(records)
        for key, places in groups.items():
            ready = self._ready_for(key)
            if isinstance(ready, Refused):
                results: list[Evaluated | Refused] = [ready] * len(places)
            else:
                results = self._evaluate(ready, records, places)
            for place, result in zip(places, results, strict=True):
                found[place] = result
        return found

    def _evaluate(
        self, ready: _Ready, records: Sequence[LiveRecord], places: Sequence[int]
    ) -> list[Evaluated | Refused]:
        """Evaluate the records at these places, all of one pipeline."""
        found: dict[int, Evaluated | Refused] = {}
        begun: list[tuple[int, dict[str, bytes], dict[str, list[float]], dict[str, int]]] = []
        for place in places:
            self.mark(place)
            record, began = records[place], time.perf_counter()
            try:
                vectors = ready.vectors(record)
                us = {"features": _us(time.perf_counter() - began)} if ready.plan.features else {}
                begun.append((place, vectors, ready.drift(record, vectors), us))
            except (TransactionError, ScorewireError, LookupError) as error:
                found[place] = Refused(f"features: {error}")
        scored, model_us = _scores(ready, [vectors for _, vectors, _, _ in begun])
        for (place, _, drift, us), scores in zip(begun, scored, strict=True):
            if isinstance(scores, Refused):
                found[place] = scores
                continue
            if ready.plan.models:
                us["model"] = model_us
            self.mark(place)
            found[place] = _decided(ready, records[place], scores, us, drift)
        return [found[place] for place in places]

    def _ready_for(self, key: tuple[tuple[str, str], ...]) -> _Ready | Refused:
        known = self._ready.pop(key, None)
        if known is None:
            try:
                known = _Ready(dict(key), self._overrides, self._load)
            except CacheError:
                raise
            except (GovernanceError, ModelError, ActorError, HiddenFieldError) as error:
                known = Refused(f"{type(error).__name__}: {error}")
        self._ready[key] = known  # the last in the order: the one that was used of late
        while len(self._ready) > _PIPELINES_KEPT:
            del self._ready[next(iter(self._ready))]
        return known


def _scores(
    ready: _Ready, vectors: Sequence[Mapping[str, bytes]]
) -> tuple[Sequence[Mapping[str, float] | Refused], int]:
    """Score vectors as one batch, or one by one where a model refuses one; and microseconds a vector."""
    if not ready.plan.models or not vectors:
        return [{}] * len(vectors), 0
    rows = ready.evaluator.rows(vectors)
    began = time.perf_counter()
    try:
        found: Sequence[Mapping[str, float] | Refused] = ready.evaluator.score(rows)
    except (InputError, ScorewireError):
        found = [_score_one(ready, rows, place) for place in range(len(vectors))]
    return found, _us((time.perf_counter() - began) / len(vectors))


def _score_one(
    ready: _Ready, rows: Mapping[str, NDArray[np.float32]], place: int
) -> Mapping[str, float] | Refused:
    try:
        return ready.evaluator.score({stage: matrix[place : place + 1] for stage, matrix in rows.items()})[0]
    except (InputError, ScorewireError) as error:
        return Refused(f"model: {error}")


def _decided(
    ready: _Ready,
    record: LiveRecord,
    scores: Mapping[str, float],
    us: dict[str, int],
    drift: Mapping[str, Sequence[float]],
) -> Evaluated | Refused:
    whole = ready.evaluator.complete(scores, record.scores) if ready.plan.models else record.scores
    if not ready.plan.decides:
        live: Mapping[str, Any] = record.decision or {}
        return Evaluated(whole, live.get("outcome"), live.get("reasons", ()), us, drift)
    began = time.perf_counter()
    try:
        decision = ready.evaluator.decide(whole, record.transaction)
    except ScorewireError as error:
        return Refused(f"decision: {error}")
    us["decision"] = _us(time.perf_counter() - began)
    outcome, reasons = (decision.outcome, decision.reasons) if decision else (None, ())
    return Evaluated(whole, outcome, reasons, us, drift)


def _checked(record: LiveRecord, stage: str, width: int) -> bytes:
    vector = record.features.get(stage)
    if vector is None:
        raise LookupError(f"the record has no vector of the stage {stage}")
    if len(vector) != width:
        raise LookupError(f"the record's vector of {stage} has {len(vector)} bytes, {width} are needed")
    return vector


def _us(seconds: float) -> int:
    return int(seconds * 1e6)
