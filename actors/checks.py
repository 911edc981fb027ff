"""What a node asks of a release before it says that it is ready, beside what bundles ask of themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from actors.code.stages import CodeModel
from actors.errors import LatencyError, MemoryBudgetError, PipelineMismatchError
from actors.evaluation import Features, Model, NamedModel, owner

#: Single rows in a smoke test.
_SMOKE_ROWS = 200


def check_fit(spec: Features, model: Model) -> None:
    """Refuse a pipeline whose feature spec does not make what its model takes.

    Raises:
        PipelineMismatchError: names, order or number of the features differ.
    """
    made, taken = tuple(spec.feature_names), features_of(model)
    if made == taken:
        return
    if len(made) != len(taken):
        why = f"the feature spec makes {len(made)} features, the model takes {len(taken)}"
    else:
        index = next(i for i, (a, b) in enumerate(zip(made, taken, strict=True)) if a != b)
        why = f"feature {index} is {made[index]!r} in the feature spec and {taken[index]!r} in the model"
    raise PipelineMismatchError(f"{why}: promote a feature spec and a model that belong together")


def features_of(model: Model) -> tuple[str, ...]:
    """Return the names of the features that a model takes."""
    return model.feature_names if isinstance(model, CodeModel) else tuple(model.bundle.meta.feature_names)


def check_memory(held: Iterable[int], coming: int, budget: int | None) -> None:
    """Refuse a model that does not fit beside those that are held.

    Args:
        held: bytes of each model that this node holds.
        coming: bytes of the one that comes.
        budget: bytes that all together may have; None for no limit.

    Raises:
        MemoryBudgetError: with the figures.
    """
    old = sum(held)
    if budget is not None and old + coming > budget:
        raise MemoryBudgetError(
            f"the model has {coming / 1e6:.1f} MB, this node holds {old / 1e6:.1f} MB of models, and may "
            f"hold {budget / 1e6:.1f} in all (scorer.models_mb)"
        )


def check_outputs(models: Sequence[NamedModel]) -> None:
    """Refuse a pipeline in which an output's name does not tell whose it is.

    Raises:
        PipelineMismatchError: the model without a name has an output that looks like one of another's.
    """
    names = [model.name for model in models]
    for model in models:
        for output in model.outputs:
            if owner(output, names) != model.name:
                other = owner(output, names)
                raise PipelineMismatchError(
                    f"the model's output {output!r} would be taken for one of model {other!r}: promote that "
                    "under another name"
                )


def check_latency(forests: Sequence[Model], limit_us: float | None) -> float:
    """Refuse models that are slower on this node than their environment's policy allows.

    Args:
        forests: all models of a pipeline, warm.
        limit_us: what the median of single rows may take, with all of them; None for no limit.

    Returns:
        the median in microseconds, over rows of the bundles' own.

    Raises:
        LatencyError: with the figures.
    """
    taken = []
    golden = [one.smoke_rows if isinstance(one, CodeModel) else one.bundle.golden.x for one in forests]
    for number in range(_SMOKE_ROWS):
        rows = [x[number % len(x)][None, :] for x in golden]
        began = time.perf_counter_ns()
        for forest, row in zip(forests, rows, strict=True):
            forest.predict(row)
        taken.append(time.perf_counter_ns() - began)
    median = float(np.median(taken)) / 1e3
    if limit_us is not None and median > limit_us:
        raise LatencyError(f"a row takes {median:.1f} us here, the policy allows {limit_us:g} (latency_us)")
    return median
