"""A stage of the evaluation that is a code package: installed here, checked, ready to start workers."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from actors.code.calls import golden_payloads
from actors.code.limits import CodeLimits
from actors.code.worker import Worker
from models.code.install import install
from models.code.interface import DecisionInterface, FeaturesInterface, ModelInterface
from models.code.package import CodePackage


class CodeStage:
    """What is shared by all that call one code package in this process. Safe from any thread.

    It keeps workers that were started and found good in prepare until an actor takes them over; when nobody
    holds it any more, they end.

    Args:
        package: checked.
        digest: the sha256 of its file.
        directory: of all installations of this host.
        limits: of each worker.
    """

    def __init__(self, package: CodePackage, digest: str, directory: Path, limits: CodeLimits) -> None:
        self.package = package
        self.digest = digest
        self.limits = limits
        self._directory = directory
        self._warm: deque[Worker] = deque()

    @property
    def name(self) -> str:
        """What people call it, with its version."""
        return f"{self.package.name} {self.package.version}"

    def start(self) -> Worker:
        """Start a worker; it says later that it is ready. What is installed is checked before each start.

        Raises:
            OSError: no process can be started.
            InstallError, CodePackageError: it is damaged here, and cannot be installed anew.
        """
        place = install(self.package, self.digest, self._directory)
        return Worker(_orders(self.package, place, self.limits))

    def put_by(self, workers: list[Worker]) -> None:
        """Keep workers that are ready, for whoever takes them."""
        self._warm.extend(workers)

    def take(self) -> Worker | None:
        """Return a worker that was put by; None if there is none."""
        while True:
            try:
                worker = self._warm.popleft()
            except IndexError:
                return None
            if not worker.has_died():
                return worker
            worker.end()


def _orders(package: CodePackage, directory: Path, limits: CodeLimits) -> dict[str, Any]:
    interface = package.interface
    orders: dict[str, Any] = {
        "stage": package.stage,
        "directory": str(directory.resolve()),
        "module": package.module,
        "object": package.object,
        "budget_s": limits.budget_s,
        "memory_bytes": limits.memory_bytes,
        "start_s": limits.start_s,
        "warm": golden_payloads(interface)[0],
    }
    if isinstance(interface, FeaturesInterface | ModelInterface):
        orders["features"] = list(interface.features)
    if isinstance(interface, ModelInterface):
        orders["outputs"] = list(interface.outputs)
    if isinstance(interface, DecisionInterface):
        orders["reasons"] = list(interface.reasons)
    return orders
