"""Makes a code package ready for use on a node: installed, loaded, its golden values found again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.code import calls
from actors.code.batch import CodeBatch
from actors.code.limits import CodeLimits
from actors.code.stage import CodeStage
from actors.errors import CodeStartError
from models.code.install import check_libraries, install
from models.code.interface import DecisionInterface, ModelInterface
from models.code.package import open_package
from models.errors import GoldenMismatchError
from transport.client.errors import ScorewireError

logger = logging.getLogger(__name__)


def open_stage(path: Path, digest: str, directory: Path, limits: CodeLimits) -> CodeStage:
    """Check and install a code package; nothing of it is run.

    Args:
        path: the wheel, whose sha256 was verified.
        digest: its sha256.
        directory: of all installations of this host.
        limits: of each worker.

    Raises:
        CodePackageError: it is no code package.
        LibraryError: what it needs is not here.
        InstallError: the disk is full, or not ours to write.
    """
    package = open_package(path)
    check_libraries(package)
    install(package, digest, directory)
    return CodeStage(package, digest, directory, limits)


def warm_up(stage: CodeStage, workers: int) -> None:
    """Start workers, and find the golden values again; the workers stay for whoever calls the package first.

    Raises:
        CodeStartError: it does not load, with its own reason.
        GoldenMismatchError: a golden value is another one here, or its request failed.
    """
    with CodeBatch(stage, spares=workers - 1) as batch:
        if not batch.wait_ready(stage.limits.start_s + _SLACK_S, workers):
            why = batch.workers.start_failure or "no worker came up"
            raise CodeStartError(f"{stage.name} does not load here: {why}")
        check_golden(stage, batch)
        logger.info("%s is loaded, and its golden values are found again", stage.name)


def check_golden(stage: CodeStage, batch: CodeBatch) -> None:
    """Compare what a package gives here with what it declares.

    Raises:
        GoldenMismatchError: names the first value that differs.
    """
    interface = stage.package.interface
    limit_s = stage.limits.start_s + len(interface.golden) * stage.limits.budget_s
    outcomes = batch.run(calls.golden_payloads(interface), limit_s)
    for number, outcome in enumerate(outcomes):
        why = str(outcome) if isinstance(outcome, ScorewireError) else _difference(interface, number, outcome)
        if why:
            raise GoldenMismatchError(f"{stage.name}: golden {number}: {why}")


def _difference(interface: Any, number: int, outcome: Any) -> str:
    golden = interface.golden[number]
    if isinstance(interface, DecisionInterface):
        decided = calls.read_decision(outcome)
        found, wanted = (decided.outcome, decided.reasons), (golden.outcome, golden.reasons)
        return "" if found == wanted else f"decided {found}, declared is {wanted}"
    if isinstance(interface, ModelInterface):
        scores = calls.read_scores(outcome, 1, len(interface.outputs))[0]
        return _differ(interface.outputs, scores, np.array(golden.scores, np.float64), interface.ulps)
    vector = np.frombuffer(calls.read_vector(outcome, len(interface.features)), "<f4")
    return _differ(interface.features, vector, np.array(golden.vector, np.float32), interface.ulps)


def _differ(names: Sequence[str], found: NDArray[Any], wanted: NDArray[Any], ulps: int) -> str:
    for name, one, other in zip(names, found, wanted, strict=True):
        if np.isnan(one) and np.isnan(other):
            continue
        # A comparison that NaN fails as well.
        if not abs(float(one) - float(other)) <= ulps * float(np.spacing(abs(other))):
            return f"{name!r} is {one!s}, declared is {other!s}, {ulps} ulps apart at most"
    return ""


#: Seconds beyond its own limit until a start is given up, were its process not even to die.
_SLACK_S = 5.0
