"""What a stage that is code is called with, and what it gives, as bytes between a node and its worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from models.code.interface import DecisionInterface, FeaturesInterface, Interface
from models.decision import Decision
from transport.client.errors import CodeFailedError, TransactionRefusedError


def pack_transaction(transaction: Mapping[str, Any]) -> bytes:
    """Pack what a features stage is called with."""
    return _pack(transaction)


def pack_case(transaction: Mapping[str, Any], scores: Mapping[str, float]) -> bytes:
    """Pack what a decision stage is called with."""
    return _pack([transaction, dict(scores)])


def pack_rows(rows: NDArray[np.float32]) -> bytes:
    """Pack what a model stage is called with: float32 [rows, features]."""
    return _pack(rows.astype("<f4", copy=False).tobytes())


def read_vector(result: Any, features: int) -> bytes:
    """Return the vector that a features stage gave: raw float32.

    Raises:
        CodeFailedError: it is none: a worker checks its package, but not who writes to its socket beside it.
    """
    if not isinstance(result, bytes) or len(result) != 4 * features:
        raise _garbage("features")
    return result


def read_decision(result: Any) -> Decision:
    """Return what a decision stage gave.

    Raises:
        CodeFailedError: it is none.
    """
    match result:
        case [("approve" | "review" | "decline") as outcome, [*reasons]] if all(
            isinstance(one, str) for one in reasons
        ):
            return Decision(outcome, tuple(reasons), 0)
    raise _garbage("decision")


def read_scores(result: Any, rows: int, outputs: int) -> NDArray[np.float64]:
    """Return what a model stage gave: float64 [rows, outputs].

    Raises:
        CodeFailedError: it is something else.
    """
    if not isinstance(result, bytes) or len(result) != 8 * rows * outputs:
        raise _garbage("model")
    return np.frombuffer(result, "<f8").reshape(rows, outputs)


def golden_payloads(interface: Interface) -> list[bytes]:
    """Pack a package's golden requests."""
    if isinstance(interface, FeaturesInterface):
        return [pack_transaction(one.transaction) for one in interface.golden]
    if isinstance(interface, DecisionInterface):
        return [pack_case(one.transaction, one.scores) for one in interface.golden]
    return [pack_rows(np.array([one.vector], np.float32)) for one in interface.golden]


def _garbage(stage: str) -> CodeFailedError:
    return CodeFailedError("its worker gave an answer that is none", field=stage, rule="crash")


def _pack(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TransactionRefusedError(str(error), field="transaction", rule="type") from error
    return packed
