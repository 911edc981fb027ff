"""Feature vectors as a model of the Open Inference Protocol: straight to the scorers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actors.evaluation import FEATURES, VECTOR_DTYPE
from actors.gateway.how import How
from actors.gateway.outputs import WINDOW, Metadata, Outputs, all_good, check_rows, score_outputs, tensor
from actors.gateway.tensors import Array
from actors.gateway.upstream import Upstream
from actors.state import Loaded
from actors.traces import TRACEPARENT
from transport.client import wire
from transport.client.errors import ProtocolError
from transport.client.wire import Kind


class VectorModel:
    """Feature vectors, straight to the scorers.

    Args:
        upstream: whom to ask.
        rows: how many a request may have.
    """

    def __init__(self, upstream: Upstream, rows: int) -> None:
        self._upstream = upstream
        self._rows = rows

    def describe(self, loaded: Loaded) -> tuple[Metadata, Metadata]:
        """Return the inputs and outputs of a release: a matrix for each features stage."""
        inputs = [tensor(stage, "FP32", -1, spec.n_features) for stage, spec in loaded.specs.items()]
        names = [name for model in loaded.models for name in model.outputs]
        return inputs, [tensor(name, "FP64", -1) for name in names]

    async def infer(self, inputs: Mapping[str, Array], loaded: Loaded, how: How) -> Outputs:
        """Score vectors.

        Raises:
            ScorewireError: an input is at fault, or they cannot be scored.
        """
        matrices = _matrices(inputs, loaded, self._rows)
        head: dict[str, Any] = {**(wire.REPLAY if how.replay else {}), "release": loaded.release}
        more = {TRACEPARENT: how.traceparent} if how.traceparent else {}
        bodies = [wire.pack_body({**head, **sent, **more}) for sent in _sent(matrices)]
        outcomes = await self._upstream.ask_many(Kind.VECTOR, bodies, how.deadline, WINDOW)
        answers = [wire.unpack_body(frame) for frame in all_good(outcomes)]
        scores, own = score_outputs([answer["scores"] for answer in answers], loaded)
        return Outputs(scores, own, str(loaded.release))


def _matrices(inputs: Mapping[str, Array], loaded: Loaded, most: int) -> dict[str, Array]:
    """Return features stage to float32 [rows, features]."""
    named = dict(inputs)
    if len(loaded.specs) == 1:
        stage, spec = next(iter(loaded.specs.items()))
        if set(named) == set(spec.feature_names) and stage not in named:
            named = {stage: _from_columns([named[name] for name in spec.feature_names])}
        elif len(named) == 1:  # whatever it is called
            named = {stage: next(iter(named.values()))}
    found: dict[str, Array] = {}
    for stage, spec in loaded.specs.items():
        if stage not in named:
            raise ProtocolError(
                f"there is no input {stage!r}: release {loaded.release} takes {', '.join(loaded.specs)}",
                field=stage,
                rule="missing",
            )
        found[stage] = _matrix(stage, named.pop(stage), spec.n_features)
    if named:
        odd = next(iter(named))
        raise ProtocolError(f"nobody takes the input {odd!r}", field=odd, rule="name")
    counts = {len(matrix) for matrix in found.values()}
    if len(counts) > 1:
        raise ProtocolError("the inputs have not the same number of rows", field="inputs", rule="shape")
    check_rows(counts.pop(), most)
    return found


def _from_columns(columns: Sequence[Array]) -> Array:
    flat = [column.ravel() for column in columns]
    if len({len(column) for column in flat}) > 1 or any(column.dtype == object for column in flat):
        raise ProtocolError("columns are numbers, as many in each", field="inputs", rule="shape")
    return np.stack([column.astype(np.float64) for column in flat], axis=1)


def _matrix(stage: str, array: Array, width: int) -> Array:
    if array.dtype == object:
        raise ProtocolError(f"input {stage!r} has no numbers", field=stage, rule="type")
    if array.ndim == 1:  # one row, or one feature of several
        array = array.reshape(1, -1) if len(array) == width else array.reshape(-1, 1)
    if array.ndim != 2 or array.shape[1] != width:  # noqa: PLR2004 - rows and features
        why = f"input {stage!r} has the shape {list(array.shape)}, and is [rows, {width}]"
        raise ProtocolError(why, field=stage, rule="shape")
    if array.dtype != np.float64:  # float32 holds all others, to its precision
        return array.astype(VECTOR_DTYPE, copy=False)
    with np.errstate(over="ignore"):
        found = array.astype(VECTOR_DTYPE)
    if bool((np.isinf(found) & ~np.isinf(array)).any()):
        raise ProtocolError(f"input {stage!r} has a number that FP32 cannot hold", field=stage, rule="range")
    return found


def _sent(matrices: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Return what scorers are sent of each row."""
    if set(matrices) == {FEATURES}:
        return [{"vector": row.tobytes()} for row in matrices[FEATURES]]
    rows = zip(*matrices.values(), strict=True)
    return [{"vectors": {s: row.tobytes() for s, row in zip(matrices, one, strict=True)}} for one in rows]
