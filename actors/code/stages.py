"""Code packages in the places of feature spec, model and decision rules: the same names, the same answers.

Their methods wait for a worker, and so are for prepare, shadow nodes and whoever computes an answer again.
Live actors call the same workers without waiting (actors/code/live.py).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from actors.code import calls
from actors.code.batch import CodeBatch, Outcome
from actors.code.stage import CodeStage
from models.code.interface import DecisionInterface, FeaturesInterface, ModelInterface
from models.code.package import CodePackage
from models.decision import Decision
from models.errors import InputError
from models.spec_errors import TransactionError
from transport.client.errors import ScorewireError, TransactionRefusedError

#: Rows in one call of a model; the time budget is for a call.
ROWS_A_CALL: Final = 64
#: Seconds beyond the budgets that a synchronous call waits, for a worker that has to be started.
_SLACK_S: Final = 5.0


class CodeCaller:
    """Calls a code package and waits. Safe from any thread, one at a time; workers are taken when needed.

    Args:
        stage: the package; None where this process knows what it declares and never calls it.
    """

    def __init__(self, stage: CodeStage | None) -> None:
        self.stage = stage
        self._batch: CodeBatch | None = None
        self._lock = threading.Lock()

    def call(self, payloads: Sequence[bytes]) -> list[Outcome]:
        """Return each request's result, or its ScorewireError, in their order."""
        assert self.stage is not None  # noqa: S101 - whoever calls has asked for a stage that runs
        limits = self.stage.limits
        with self._lock:
            if self._batch is None:
                self._batch = CodeBatch(self.stage)
            return self._batch.run(payloads, limits.start_s + _SLACK_S + len(payloads) * limits.budget_s)

    def rest(self) -> None:
        """Put the workers by, for whoever calls the package next."""
        with self._lock:
            batch, self._batch = self._batch, None
            if batch is not None:
                batch.close()

    def __del__(self) -> None:
        self.rest()


class CodeFeatures:
    """A code package where a feature spec could be.

    Attributes:
        name, version, id_field, feature_names, storage, undeclared, declared: as those of a feature spec.
        reads: the fields that golden transactions have: nobody knows which the code looks at.
        code: what live actors call.
    """

    def __init__(self, package: CodePackage, interface: FeaturesInterface, caller: CodeCaller) -> None:
        self.name = package.name
        self.version = package.version
        self.id_field = interface.id
        self.feature_names: tuple[str, ...] = tuple(interface.features)
        self.storage: Mapping[str, Any] = MappingProxyType(dict(interface.storage))
        self.undeclared = interface.undeclared
        self.declared = frozenset(interface.fields)
        self.reads = frozenset(name for golden in interface.golden for name in golden.transaction)
        self.code = caller.stage
        self._caller = caller

    @property
    def n_features(self) -> int:
        """The length of a vector."""
        return len(self.feature_names)

    def packed(self, transaction: Mapping[str, Any]) -> bytes:
        """Compute the features of one transaction: raw float32, little-endian.

        Raises:
            TransactionError: the package refuses the transaction; names field and rule.
            CodeFailedError: the package failed on it.
        """
        (outcome,) = self._caller.call([calls.pack_transaction(transaction)])
        return _features(outcome, self.n_features)

    def vector(self, transaction: Mapping[str, Any]) -> NDArray[np.float32]:
        """Compute the features of one transaction: float32 [n_features]. Raises as packed."""
        return np.frombuffer(self.packed(transaction), np.dtype("<f4"))

    def matrix(self, transactions: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
        """Compute the features of many transactions: float32 [transactions, n_features]. Raises as packed."""
        outcomes = self._caller.call([calls.pack_transaction(one) for one in transactions])
        joined = b"".join(_features(outcome, self.n_features) for outcome in outcomes)
        return np.frombuffer(joined, np.dtype("<f4")).reshape(-1, self.n_features)

    def rest(self) -> None:
        """Put its workers by."""
        self._caller.rest()


class CodeModel:
    """A code package where a forest could be.

    Attributes:
        feature_names, outputs: what it takes and gives.
        smoke_rows: rows to try it on: float32 [golden, features].
        code: what live actors call.
    """

    def __init__(self, interface: ModelInterface, caller: CodeCaller) -> None:
        self.feature_names: tuple[str, ...] = tuple(interface.features)
        self.outputs: tuple[str, ...] = tuple(interface.outputs)
        self.smoke_rows = np.array([golden.vector for golden in interface.golden], np.float32)
        self.code = caller.stage
        self._caller = caller

    def predict(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """Score rows: float32 [rows, features] -> float64 [rows, outputs].

        Raises:
            InputError: the package refuses a row.
            CodeFailedError: the package failed.
        """
        parts = [rows[start : start + ROWS_A_CALL] for start in range(0, len(rows), ROWS_A_CALL)]
        outcomes = self._caller.call([calls.pack_rows(part) for part in parts])
        found = []
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, TransactionRefusedError):
                raise InputError(outcome.field, outcome.rule, outcome.detail)
            if isinstance(outcome, ScorewireError):
                raise outcome
            found.append(calls.read_scores(outcome, len(part), len(self.outputs)))
        return np.concatenate(found) if found else np.empty((0, len(self.outputs)))

    def rest(self) -> None:
        """Put its workers by."""
        self._caller.rest()


class CodeRules:
    """A code package where decision rules could be.

    Attributes:
        fields: those of the golden transactions, as those of a feature spec that is code.
        code: what live actors call.
    """

    #: Code names no fallback: where no score comes in time, that is an error.
    fallback: Decision | None = None

    def __init__(self, interface: DecisionInterface, caller: CodeCaller) -> None:
        self.fields = frozenset(name for golden in interface.golden for name in golden.transaction)
        self.code = caller.stage
        self._caller = caller

    def decide(self, scores: Mapping[str, float], transaction: Mapping[str, Any]) -> Decision:
        """Decide on one transaction.

        Raises:
            ScorewireError: the package refuses the transaction, or failed on it.
        """
        (outcome,) = self._caller.call([calls.pack_case(transaction, scores)])
        if isinstance(outcome, ScorewireError):
            raise outcome
        return calls.read_decision(outcome)

    def rest(self) -> None:
        """Put its workers by."""
        self._caller.rest()


CodePart = CodeFeatures | CodeModel | CodeRules


def make_part(package: CodePackage, stage: CodeStage | None) -> CodePart:
    """Return what stands in a pipeline for a code package.

    Args:
        package: checked.
        stage: what runs it; None where this process only needs to know what it declares.
    """
    interface, caller = package.interface, CodeCaller(stage)
    if isinstance(interface, FeaturesInterface):
        return CodeFeatures(package, interface, caller)
    if isinstance(interface, ModelInterface):
        return CodeModel(interface, caller)
    return CodeRules(interface, caller)


def _features(outcome: Outcome, features: int) -> bytes:
    if isinstance(outcome, TransactionRefusedError):
        raise TransactionError(outcome.field, outcome.rule, outcome.detail)
    if isinstance(outcome, ScorewireError):
        raise outcome
    return calls.read_vector(outcome, features)
