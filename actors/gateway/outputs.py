"""What the models of the gateway give back, and what bounds what they take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from actors.evaluation import owner
from actors.gateway.tensors import Array, Datatype
from actors.gateway.upstream import Outcome
from actors.state import Loaded
from transport.client.errors import ProtocolError, ScorewireError, TooLargeError

#: Outputs by the names that MLServer's runtimes give them, beside those of the scores.
PREDICT: Final = "predict"
PROBABILITIES: Final = "predict_proba"
#: Rows of one request that are under way at a time.
WINDOW: Final = 256

Metadata = list[dict[str, Any]]
Tensors = Mapping[str, tuple[Datatype, Array]]


class Outputs:
    """The outputs of one inference.

    Args:
        usual: name to datatype and elements, of those that are given when none are named.
        own: the scores among them of the model without a name, in its order.
        version: the release that scored; several, in their order, where a canary took some rows.
    """

    def __init__(self, usual: Tensors, own: Sequence[str], version: str) -> None:
        self.usual = usual
        self.version = version
        self._own = own

    def get(self, name: str) -> tuple[Datatype, Array]:
        """Return one output: a usual one, or what MLServer's runtimes call those of their model.

        Raises:
            ProtocolError: there is none of that name.
        """
        found = self.usual.get(name)
        if found is None and name in (PREDICT, PROBABILITIES) and self._own:
            table = np.stack([self.usual[one][1] for one in self._own], axis=1)
            if name == PROBABILITIES:
                return "FP64", table
            if len(self._own) == 1:
                return "FP64", table[:, 0]
            return _labels([self._own[place] for place in table.argmax(axis=1)])
        if found is None:
            why = (
                f"there is no output {name!r}: there are {', '.join(self.usual)}, {PREDICT}, {PROBABILITIES}"
            )
            raise ProtocolError(why, field="outputs", rule="name")
        return found


def check_rows(count: int, most: int) -> None:
    """Refuse a request without rows, or with more than it may have.

    Raises:
        ProtocolError, TooLargeError: it is one.
    """
    if count < 1:
        raise ProtocolError("a request has one row or more", field="inputs", rule="shape")
    if count > most:
        why = f"a request may have {most} rows, this one has {count}"
        raise TooLargeError(why, field="inputs", rule="rows")


def tensor(name: str, datatype: Datatype, *shape: int) -> dict[str, Any]:
    """Describe a tensor; -1 is a size that a request chooses."""
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def all_good(outcomes: Sequence[Outcome]) -> list[bytes]:
    """Return all answers, or raise the first error, with its row."""
    for row, outcome in enumerate(outcomes):
        if isinstance(outcome, ScorewireError):
            if len(outcomes) > 1:
                outcome.detail = f"row {row}: {outcome.detail}"
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, bytes)]


def score_outputs(scores: Sequence[Mapping[str, float]], loaded: Loaded) -> tuple[Tensors, list[str]]:
    """Return each score as an output, and the names of those of the model without a name."""
    names = list(dict.fromkeys(name for one in scores for name in one))
    missing = float("nan")
    outputs: Tensors = {
        name: ("FP64", np.array([one.get(name, missing) for one in scores])) for name in names
    }
    known = [model.name for model in loaded.models]
    return outputs, [name for name in names if not owner(name, known)]


def _labels(labels: Sequence[str]) -> tuple[Datatype, Array]:
    try:
        return "INT64", np.array([int(label) for label in labels], np.int64)
    except ValueError:
        return "BYTES", texts_of(labels)


def texts_of(texts: Sequence[str]) -> Array:
    """Return texts as the elements of an output of BYTES."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
