"""Transactions as a model of the Open Inference Protocol: through the features stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from actors.gateway.how import How, pack
from actors.gateway.outputs import (
    WINDOW,
    Metadata,
    Outputs,
    all_good,
    check_rows,
    score_outputs,
    tensor,
    texts_of,
)
from actors.gateway.tensors import Array, Datatype
from actors.gateway.upstream import Upstream
from actors.state import Loaded
from models.spec import FeatureSpec
from transport.client.answer import Answer, unpack_answer
from transport.client.errors import ProtocolError, TransactionRefusedError
from transport.client.wire import Kind

#: What stands behind a model's name where it takes transactions.
SUFFIX: Final = "-transactions"
#: The input that is a whole transaction, as JSON.
TRANSACTION: Final = "transaction"


class TransactionModel:
    """Transactions, through the features stage: an input for each field, or whole ones as JSON.

    Args:
        upstream: whom to ask.
        rows: how many a request may have.
    """

    def __init__(self, upstream: Upstream, rows: int) -> None:
        self._upstream = upstream
        self._rows = rows
        self._decoder = msgspec.json.Decoder(dict[str, Any])

    def describe(self, loaded: Loaded) -> tuple[Metadata, Metadata]:
        """Return the inputs and outputs of a release: its fields, and what an answer says."""
        fields: dict[str, Datatype] = {}
        for spec in loaded.specs.values():
            if spec.id_field:
                fields[spec.id_field] = "BYTES"
            if isinstance(spec, FeatureSpec):
                fields |= {name: _FIELDS.get(one.type, "BYTES") for name, one in spec.recipe.fields.items()}
        inputs = [tensor(name, datatype, -1) for name, datatype in fields.items()]
        names = [name for model in loaded.models for name in model.outputs]
        outputs = [tensor(name, "FP64", -1) for name in names]
        outputs += [tensor(name, datatype, -1) for name, datatype in _ANSWER.items()]
        return inputs or [tensor(TRANSACTION, "BYTES", -1)], outputs

    async def infer(self, inputs: Mapping[str, Array], loaded: Loaded, how: How) -> Outputs:
        """Score transactions; one that is refused refuses the request.

        Raises:
            ScorewireError: an input is at fault, or they cannot be scored.
        """
        transactions = self._transactions(inputs)
        bodies = [pack(one, how) for one in transactions]
        newest = how.release is None
        outcomes = await self._upstream.ask_many(Kind.SCORE, bodies, how.deadline, WINDOW, newest=newest)
        answers = [unpack_answer(frame) for frame in all_good(outcomes)]
        scores, own = score_outputs([dict(answer.scores) for answer in answers], loaded)
        said = {name: (datatype, _column(answers, name, datatype)) for name, datatype in _ANSWER.items()}
        releases = dict.fromkeys(str(answer.trace.release) for answer in answers)
        return Outputs({**said, **scores}, own, ",".join(releases))

    def _transactions(self, inputs: Mapping[str, Array]) -> list[dict[str, Any]]:
        columns = {name: array.ravel().tolist() for name, array in inputs.items()}
        counts = {len(column) for column in columns.values()}
        if len(counts) != 1 or any(array.shape[:1] != (array.size,) for array in inputs.values()):
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
            raise ProtocolError(
                f"each field is an input of [rows] or [rows, 1], as many in each: {shapes}",
                field="inputs",
                rule="shape",
            )
        check_rows(counts.pop(), self._rows)
        if set(columns) == {TRANSACTION}:
            return [self._parse(text) for text in columns[TRANSACTION]]
        texts = {name: [_text(name, value) for value in column] for name, column in columns.items()}
        return [dict(zip(texts, row, strict=True)) for row in zip(*texts.values(), strict=True)]

    def _parse(self, text: bytes | str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError, RecursionError) as error:
            why = f"a transaction is a JSON object of named fields: {error}"
            raise TransactionRefusedError(why, field=TRANSACTION, rule="json") from error
        return found


def _text(name: str, value: Any) -> Any:
    """Return a value of a field: what arrived as bytes is text."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        why = f"field {name!r} is no UTF-8: {error}"
        raise TransactionRefusedError(why, field=name, rule="utf8") from error


#: Type of a field to the datatype that fits it best; others are taken all the same.
_FIELDS: Final[Mapping[str, Datatype]] = {"number": "FP64", "flag": "BOOL"}
#: What an answer says beside its scores.
_ANSWER: Final[Mapping[str, Datatype]] = {
    "decision": "BYTES",
    "reasons": "BYTES",
    "fallback": "BOOL",
    "release": "INT64",
    "trace": "BYTES",
}


def _column(answers: Sequence[Answer], name: str, datatype: Datatype) -> Array:
    values = [_SAID[name](answer) for answer in answers]
    if datatype == "BYTES":
        return texts_of(values)
    return np.array(values, bool if datatype == "BOOL" else np.int64)


_SAID: Final[Mapping[str, Callable[[Answer], Any]]] = {
    "decision": lambda answer: answer.decision.outcome if answer.decision else "",
    "reasons": lambda answer: ",".join(answer.decision.reasons) if answer.decision else "",
    "fallback": lambda answer: answer.fallback,
    "release": lambda answer: answer.trace.release,
    "trace": lambda answer: msgspec.json.encode(answer.trace).decode(),
}
