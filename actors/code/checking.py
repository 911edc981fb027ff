"""What a node would say of a code package, asked before anybody registers it."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from actors.code import calls
from actors.code.batch import CodeBatch
from actors.code.limits import CodeLimits
from actors.code.prepare import check_golden, open_stage
from actors.code.stage import CodeStage
from actors.errors import CodeStartError

#: Calls, one after another, of which the time of one is told.
_CALLS: Final = 300


def check(path: Path, limits: CodeLimits) -> dict[str, Any]:
    """Check a wheel as a node does: its files, its libraries, its start, its golden values. It is run.

    Returns:
        what it is, and what a call takes.

    Raises:
        ModelError, ActorError: what a node would refuse it for.
    """
    # A worker that is just being started may still write there: what it leaves is the system's to clear.
    with tempfile.TemporaryDirectory(prefix="scorewire-code-", ignore_cleanup_errors=True) as directory:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        stage = open_stage(path, digest, Path(directory), limits)
        began = time.perf_counter()
        with CodeBatch(stage) as batch:
            if not batch.wait_ready(limits.start_s + 5):
                raise CodeStartError(f"{stage.name} does not load: {batch.workers.start_failure}")
            started_s = time.perf_counter() - began
            check_golden(stage, batch)
            taken = _time(stage, batch)
        p50, p99 = np.quantile(taken, (0.5, 0.99)) * 1e6
        return {
            **stage.package.describe(),
            "digest": digest,
            "bytes": path.stat().st_size,
            "start_ms": round(started_s * 1e3),
            "call_us_p50": round(float(p50)),
            "call_us_p99": round(float(p99)),
        }


def _time(stage: CodeStage, batch: CodeBatch) -> list[float]:
    """Return the seconds of each of some calls, from a node to its worker and back."""
    payloads = calls.golden_payloads(stage.package.interface)
    taken = []
    for number in range(_CALLS):
        began = time.perf_counter()
        batch.run([payloads[number % len(payloads)]], stage.limits.start_s)
        taken.append(time.perf_counter() - began)
    return taken
