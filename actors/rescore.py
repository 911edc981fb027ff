"""Rescoring: an old answer computed again with the code that live nodes run, and compared to the bit."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from actors.config import Settings
from actors.evaluation import Evaluator, Features
from actors.loading import PipelineLoader
from governance.database import Connection
from governance.trace import Trace
from governance.transactions import Transaction
from models.field_policy import policy_of


@dataclass(frozen=True)
class Check:
    """A part of an answer that was computed again.

    Attributes:
        what: `features`, `scores` or `decision`; with the stage behind a colon where there are several.
        same: whether it is the same to the bit; None where it cannot be computed again.
        detail: what differs, or why it cannot be computed.
    """

    what: str
    same: bool | None
    detail: str = ""


@dataclass(frozen=True)
class Rescored:
    """An answer that was computed again.

    Attributes:
        scores: the scores, computed from the stored vectors.
        checks: each part.
    """

    scores: Mapping[str, float]
    checks: tuple[Check, ...]

    @property
    def same(self) -> bool:
        """Whether all that can be computed again is the same."""
        return all(check.same is not False for check in self.checks)


def load_pipeline(connection: Connection, settings: Settings, found: Trace) -> Evaluator:
    """Load the pipeline that gave an answer, from the artifacts in the database.

    Raises:
        as PipelineLoader.load.
    """
    loader = PipelineLoader(Path(settings.cache).expanduser(), settings)
    return loader.load(connection, found.stages)


def rescore(evaluator: Evaluator, stored: Transaction) -> Rescored:
    """Compute an answer again.

    Scores come from the vectors that are stored, so they need nothing that a field policy hides. Features and
    the decision come from the stored transaction, where it still has all fields that they look at.
    """
    if not stored.scores:
        why = "no score came in time: this was the fallback answer of the release's rules"
        return Rescored({}, (Check("scores", None, why),))
    (scores,) = evaluator.score(evaluator.rows([stored.features]))
    checks = [_features(stage, spec, stored, evaluator) for stage, spec in evaluator.specs.items()]
    checks.append(_scores(scores, stored.scores))
    if evaluator.rules is not None:
        checks.append(_decision(evaluator, scores, stored))
    return Rescored(scores, tuple(checks))


def _features(stage: str, spec: Features, stored: Transaction, evaluator: Evaluator) -> Check:
    what = "features" if stage == "features" else stage
    hidden = _hidden(evaluator, spec.reads)
    if hidden:
        return Check(what, None, f"the field policy hides {', '.join(hidden)}")
    computed, kept = spec.packed(stored.fields), stored.features.get(stage, b"")
    if computed == kept:
        return Check(what, True)
    size = struct.calcsize("<f")
    names = [
        name
        for place, name in enumerate(spec.feature_names)
        if computed[place * size : (place + 1) * size] != kept[place * size : (place + 1) * size]
    ]
    return Check(what, False, f"{', '.join(names[:10])} differ")


def _scores(computed: Mapping[str, float], kept: Mapping[str, float]) -> Check:
    if list(computed) != list(kept):
        return Check("scores", False, f"their names are {list(computed)}, and were {list(kept)}")
    different = [
        f"{name} is {value!r}, and was {kept[name]!r}"
        for name, value in computed.items()
        if struct.pack("<d", value) != struct.pack("<d", kept[name])
    ]
    return Check("scores", not different, "; ".join(different))


def _decision(evaluator: Evaluator, scores: Mapping[str, float], stored: Transaction) -> Check:
    assert evaluator.rules is not None  # noqa: S101 - the caller has looked
    fields = evaluator.rules.fields
    if fields is None:
        policy = policy_of(evaluator.specs.values())
        if policy.hashed or policy.dropped or policy.only is not None:
            return Check("decision", None, "the rules may look at fields that the field policy hides")
    elif hidden := _hidden(evaluator, fields):
        return Check("decision", None, f"the field policy hides {', '.join(hidden)}")
    found = evaluator.decide(scores, stored.fields)
    assert found is not None  # noqa: S101 - it has rules
    if (found.outcome, tuple(found.reasons)) == (stored.outcome, stored.reasons):
        return Check("decision", True)
    told = f"{found.outcome} {list(found.reasons)}, and was {stored.outcome} {list(stored.reasons)}"
    return Check("decision", False, f"it is {told}")


def _hidden(evaluator: Evaluator, fields: Iterable[str]) -> list[str]:
    """Return those of some fields that are not stored as they were."""
    policy = policy_of(evaluator.specs.values())
    return sorted(
        name
        for name in fields
        if name in policy.hashed
        or name in policy.dropped
        or (policy.only is not None and name not in policy.only)
    )
