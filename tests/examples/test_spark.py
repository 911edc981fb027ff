"""The example for frames in a real Spark."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.examples.test_clients import judge
from transport.client.testing import Server

ROOT = Path(__file__).parents[2]
#: Names a Python that has pyspark, pandas, pyarrow, msgpack and pyzmq. Spark takes the Java of JAVA_HOME.
PYTHON = "SCOREWIRE_TEST_SPARK"
HAS_JAVA = "JAVA_HOME" in os.environ or shutil.which("java") is not None


@pytest.mark.timeout(300)
def test_spark_scores_its_partitions_in_their_order(tmp_path: Path) -> None:
    python = os.environ.get(PYTHON, sys.executable if find_spec("pyspark") else "")
    if not (python and HAS_JAVA):
        pytest.skip(f"needs Java (JAVA_HOME), and pyspark: name in {PYTHON} a Python that has it")
    (tmp_path / "scorewire_client").symlink_to(ROOT / "transport/client")
    payments: list[dict[str, Any]] = [
        {"id": str(n), "amount": n - 0.5, "at": None, "tags": ["a", "b"], "card": {"digits": [n, None]}}
        for n in range(100)
    ]
    with Server(judge) as server:
        done = subprocess.run(
            [python, str(Path(__file__).with_name("spark_job.py")), server.address, "3"],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            input="".join(json.dumps(one) + "\n" for one in payments),
            capture_output=True,
            text=True,
            check=False,
        )
        asked = {transaction["id"]: transaction for transaction in server.transactions}
    assert done.returncode == 0, done.stderr[-3000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found[0] == {"error": "bad_transaction: is below 0"}
    assert [one["id"] for one in found[1:]] == [one["id"] for one in payments[1:]]
    assert [one["score"] for one in found[1:]] == [one["amount"] / 100 for one in payments[1:]]
    assert {one["outcome"] for one in found[1:]} == {"approve", "decline"}
    assert asked["7"] == payments[7]
