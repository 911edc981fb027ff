"""Nothing is lost and nothing counted twice, whatever goes wrong, all of it in one run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.shadow.faults import run

COUNT = int(os.environ.get("SCOREWIRE_TEST_FAULTS", "10000"))


@pytest.mark.timeout(600 + COUNT // 25)
def test_each_record_has_one_result_through_all_faults() -> None:
    # Not pytest's own directory, which only its user may enter: PostgreSQL runs as another user than root.
    with tempfile.TemporaryDirectory(prefix="scorewire-faults-") as directory:
        found = run(COUNT, Path(directory))
    assert (found.rows, found.summed) == (found.sent, found.sent), found
    assert found.laid_aside == found.poison, found
    assert found.restarts >= 2, found
