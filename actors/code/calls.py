"""What a stage that is code is called with, and what it gives, as bytes between a node and its worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from models.code.interface import DecisionInterface, FeaturesInterface, Interface
from transport.client.answer import Decision
from transport.client.errors import TransactionRefusedError


def pack_transaction(transaction: Mapping[str, Any]) -> bytes:
    """Pack what a features stage is called with."""
    return _pack(transaction)


def pack_case(transaction: Mapping[str, Any], scores: Mapping[str, float]) -> bytes:
    """Pack what a decision stage is called with."""
    return _pack([transaction, dict(scores)])


def pack_rows(rows: NDArray[np.float32]) -> bytes:
    """Pack what a model stage is called with: float32 [rows, features]."""
    return _pack(rows.astype("<f4", copy=False).tobytes())


def read_vector(result: bytes) -> NDArray[np.float32]:
    """Return the vector that a features stage gave: float32 [features]."""
    return np.frombuffer(result, "<f4")


def read_decision(result: Any) -> Decision:
    """Return what a decision stage gave."""
    outcome, reasons = result
    return Decision(outcome, tuple(reasons))


def read_scores(result: bytes, rows: int) -> NDArray[np.float64]:
    """Return what a model stage gave: float64 [rows, outputs]."""
    return np.frombuffer(result, "<f8").reshape(rows, -1)


def golden_payloads(interface: Interface) -> list[bytes]:
    """Pack a package's golden requests."""
    if isinstance(interface, FeaturesInterface):
        return [pack_transaction(one.transaction) for one in interface.golden]
    if isinstance(interface, DecisionInterface):
        return [pack_case(one.transaction, one.scores) for one in interface.golden]
    return [pack_rows(np.array([one.vector], np.float32)) for one in interface.golden]


def _pack(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TransactionRefusedError(str(error), field="transaction", rule="type") from error
    return packed
