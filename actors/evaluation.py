"""Evaluation: from a transaction to vectors, from vectors to scores, from scores to a decision.

Live nodes, shadow nodes and whoever computes an old answer again run this code and no other. It is pure:
whatever it needs was loaded before (`actors/loading.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.code.stage import CodeStage
from actors.code.stages import CodeFeatures, CodeModel, CodeRules
from models.decision import Decision, DecisionRules
from models.spec import FeatureSpec

if TYPE_CHECKING:
    # The kernel takes most of a second to load, and the command line needs none of it.
    from models.forest import Forest

#: The stage of the vector that a model takes which has no features of its own.
FEATURES: Final = "features"
#: The stage that decides.
DECISION: Final = "decision"
#: How a vector travels: raw float32, little-endian.
VECTOR_DTYPE: Final = np.dtype("<f4")

Vectors = Mapping[str, bytes]
#: What each stage may be: data that runs here, or code that runs in workers of its own.
Features = FeatureSpec | CodeFeatures
Model: TypeAlias = "Forest | CodeModel"
Rules = DecisionRules | CodeRules


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model of a pipeline.

    Attributes:
        name: the name of its score; "" of the one that every pipeline has.
        features: the stage whose vector it takes: `features`, or `features:<name>`.
        forest: the model, golden vectors scored again, or code in its place; None where this process does not
            score with it.
        outputs: its outputs as answers name them: with `<name>.` before them, where it has a name.
    """

    name: str
    features: str
    forest: Model | None = None
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evaluator:
    """What evaluates transactions: a pipeline, or the stages of it that one process needs.

    Attributes:
        specs: features stage to its feature spec.
        models: its models; the one without a name is the last, so that the last score is its last output.
        rules: its decision rules; None where the pipeline has none, and where this process decides nothing.
        widths: features stage to how many bytes its vector has.
        code: the stages that are code which this process runs; live actors call it without waiting.
        scores_by_code: whether a model is among them.
    """

    specs: Mapping[str, Features]
    models: tuple[NamedModel, ...] = ()
    rules: Rules | None = None
    widths: Mapping[str, int] = field(init=False, repr=False, compare=False)
    code: Mapping[str, CodeStage] = field(init=False, repr=False, compare=False)
    scores_by_code: bool = field(init=False, repr=False, compare=False)
    # Worked out once: a small model takes two microseconds, and this is done for each batch.
    _scoring: tuple[tuple[str, Model], ...] = field(init=False, repr=False, compare=False)
    _outputs: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what is the same for all transactions."""
        widths = {stage: spec.n_features * VECTOR_DTYPE.itemsize for stage, spec in self.specs.items()}
        scoring = [(model, model.forest) for model in self.models if model.forest is not None]
        outputs = tuple(name for model, _ in scoring for name in model.outputs)
        for name, value in (
            ("widths", widths),
            ("code", _code(self.specs, self.models, self.rules)),
            ("scores_by_code", any(isinstance(forest, CodeModel) for _, forest in scoring)),
            ("_scoring", tuple((model.features, forest) for model, forest in scoring)),
            ("_outputs", outputs),
        ):
            object.__setattr__(self, name, value)

    @property
    def spec(self) -> Features:
        """The feature spec without a name, which says what a transaction's id is."""
        return self.specs[FEATURES]

    def vectors(self, transaction: Mapping[str, Any]) -> dict[str, bytes]:
        """Compute the features of one transaction.

        Returns:
            features stage to its vector, raw float32 as VECTOR_DTYPE.

        Raises:
            TransactionError: a field breaks a rule; names both.
            CodeFailedError: a stage that is code failed on it.
        """
        return {stage: spec.packed(transaction) for stage, spec in self.specs.items()}

    def vectors_of_specs(self, transaction: Mapping[str, Any]) -> dict[str, bytes]:
        """Compute the features that are no code. Returns and raises as vectors."""
        return {
            stage: spec.packed(transaction) for stage, spec in self.specs.items() if stage not in self.code
        }

    def rows(self, vectors: Sequence[Vectors]) -> dict[str, NDArray[np.float32]]:
        """Lay vectors together: features stage to float32 [vectors, features].

        Raises:
            KeyError, ValueError: a vector is missing, or has another width than the others.
        """
        # frombuffer over joined rows: one copy, and the rows are aligned for the kernel.
        size = VECTOR_DTYPE.itemsize
        return {
            stage: np.frombuffer(b"".join([one[stage] for one in vectors]), VECTOR_DTYPE).reshape(
                -1, width // size
            )
            for stage, width in self.widths.items()
        }

    def score(self, rows: Mapping[str, NDArray[np.float32]]) -> list[dict[str, float]]:
        """Score rows with all models that are loaded.

        Args:
            rows: features stage to float32 [rows, features], C-contiguous.

        Returns:
            for each row, the name of each output to its value, in the order of `models`.

        Raises:
            InputError: a value that a model's library refuses.
            CodeFailedError: a model that is code failed.
        """
        return self.name_scores([forest.predict(rows[stage]) for stage, forest in self._scoring])

    def scoring(self) -> tuple[tuple[str, Model], ...]:
        """Return the models that are loaded, in their order, each behind the features stage that it takes."""
        return self._scoring

    def name_scores(self, found: Sequence[NDArray[np.float64]]) -> list[dict[str, float]]:
        """Name the outputs of all models that are loaded: float64 [rows, outputs] of each, in their order."""
        table = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
        names = self._outputs
        return [dict(zip(names, row, strict=True)) for row in table.tolist()]

    def complete(self, scores: Mapping[str, float], known: Mapping[str, float]) -> dict[str, float]:
        """Put together the scores of the models that are loaded, and of all others those that are known.

        Args:
            scores: what `score` gave for one row.
            known: the scores of a pipeline with the same names, as of the live answer to that transaction.
        """
        names = [model.name for model in self.models]
        found: dict[str, float] = {}
        for model in self.models:
            if model.forest is not None:
                found |= {name: scores[name] for name in model.outputs}
            else:
                found |= {name: value for name, value in known.items() if owner(name, names) == model.name}
        return found

    def decide(self, scores: Mapping[str, float], transaction: Mapping[str, Any]) -> Decision | None:
        """Decide on one transaction; None where there are no rules."""
        return None if self.rules is None else self.rules.decide(scores, transaction)


def _code(
    specs: Mapping[str, Features], models: Sequence[NamedModel], rules: Rules | None
) -> dict[str, CodeStage]:
    named = {f"model:{model.name}" if model.name else "model": model.forest for model in models}
    parts: dict[str, object] = {**specs, **named, DECISION: rules}
    found = {}
    for stage, part in parts.items():
        if isinstance(part, CodeFeatures | CodeModel | CodeRules) and part.code is not None:
            found[stage] = part.code
    return found


def outputs_of(name: str, outputs: Iterable[str]) -> tuple[str, ...]:
    """Return a model's outputs as answers name them."""
    return tuple(f"{name}.{output}" for output in outputs) if name else tuple(outputs)


def owner(output: str, names: Iterable[str]) -> str:
    """Return the name of the model that an output of an answer is of; "" for the one without a name."""
    prefix, dot, _ = output.partition(".")
    return prefix if dot and prefix in names else ""
