"""Code packages for the tests of workers: built, installed, and ready to be started."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.code.batch import CodeBatch
from actors.code.limits import CodeLimits
from actors.code.prepare import open_stage
from actors.code.stage import CodeStage
from tests.models.code.wheels import DECLARED, build

MakeStage = Callable[..., CodeStage]


@pytest.fixture
def make_stage(tmp_path: Path) -> MakeStage:
    """Build and install a package of features from its source."""

    def make(
        source: str,
        declared: str = DECLARED,
        *,
        budget_s: float = 5.0,
        memory_bytes: int = 1 << 30,
        start_s: float = 30.0,
        **more: Any,
    ) -> CodeStage:
        path = build(tmp_path / "wheels", source, declared, **more)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return open_stage(path, digest, tmp_path / "code", CodeLimits(budget_s, memory_bytes, start_s))

    return make


@pytest.fixture
def make_batch(make_stage: MakeStage) -> Iterator[Callable[..., CodeBatch]]:
    """Start the workers of a package."""
    made: list[CodeBatch] = []

    def make(
        source: str, declared: str = DECLARED, *, count: int = 1, spares: int = 1, **more: Any
    ) -> CodeBatch:
        made.append(CodeBatch(make_stage(source, declared, **more), count=count, spares=spares))
        assert made[-1].wait_ready(30, count + spares), made[-1].workers.start_failure
        return made[-1]

    yield make
    for batch in made:
        batch.workers.close()
        batch.close()
