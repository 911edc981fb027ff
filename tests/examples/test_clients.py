"""The examples for users of the client run, against the server that the client brings for tests."""

from __future__ import annotations

import json
import re
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.javascript import EXAMPLE, HAS_NODE, install
from transport.client import CodeFailedError, OverloadedError, TransactionRefusedError
from transport.client.testing import Reply, Server, answer

ROOT = Path(__file__).parents[2]
needs_node = pytest.mark.skipif(not HAS_NODE, reason="Node.js is not here: install node and npm")

pytestmark = pytest.mark.usefixtures("installed")


def judge(transaction: dict[str, Any]) -> Any:
    """Refuse negative amounts, decide by the amount."""
    amount = transaction["amount"]
    if amount is None or amount < 0:
        raise TransactionRefusedError("is below 0", field="amount", rule="min")
    outcome = "decline" if amount > 90 else "approve"
    return answer({"0": 1 - amount / 100, "1": amount / 100}, id=transaction["id"], outcome=outcome)


def test_the_plain_example_acts_on_each_answer_and_error() -> None:
    from examples.clients.plain import decide_all

    said: list[tuple[Reply, str]] = [
        ({"fraud": 0.95}, "decline"),
        ({"fraud": 0.2}, "accept"),
        (answer({"fraud": 0.95}, outcome="review", reasons=("new_card",)), "review (new_card)"),
        (answer({}, outcome="approve", fallback=True), "approve (no reason)"),
        (
            TransactionRefusedError("no", field="amount", rule="missing"),
            "mend it: amount breaks the rule missing",
        ),
        (OverloadedError("full", retry_after=0.1), "accept unseen, and slow down for 0.1 s"),
        (None, "accept unseen: deadline_exceeded"),
        (CodeFailedError("it raised"), "accept unseen, and tell who promoted the release: it raised"),
    ]
    with Server(None) as server:

        def payments() -> Any:
            for reply, _ in said:
                server.reply = reply
                yield {"amount": 1.0}

        for what, (_, expected) in zip(decide_all(server.address, payments()), said, strict=True):
            assert what.startswith(expected)


def test_the_service_answers_with_scores_and_with_what_its_caller_can_do() -> None:
    from fastapi.testclient import TestClient

    from examples.clients.service import app

    with Server(judge) as server, TestClient(app(server.address)) as http:
        done = http.post("/payments", json={"id": "7", "amount": 95.0})
        assert (done.status_code, done.json()) == (
            200,
            {"id": "7", "score": 0.95, "decision": "decline", "release": 1},
        )
        done = http.post("/payments", json={"id": "7", "amount": -1})
        assert (done.status_code, done.json()["field"], done.json()["rule"]) == (422, "amount", "min")
        server.reply = OverloadedError("full", retry_after=2.0)
        done = http.post("/payments", json={"id": "7", "amount": 1})
        assert (done.status_code, done.headers["Retry-After"]) == (503, "2")
        server.reply = answer({}, outcome="review", fallback=True)
        assert http.post("/payments", json={}).json()["score"] is None


def test_frames_come_back_scored_in_their_order_as_spark_wants_them() -> None:
    from examples.clients.frames import SCHEMA, score_frames

    count = 700
    frame = pd.DataFrame({"id": [str(n) for n in range(count)], "amount": np.arange(count) % 100})
    frame["at"] = pd.Timestamp("2026-01-02T03:04:05")
    other = pd.DataFrame({"id": ["a", "b", "c"], "amount": [50.0, -1.0, np.nan], "at": pd.NaT})
    # As Spark has arrays, structures and decimals.
    other["tags"] = [np.array(["x", "y"]), np.array([[1, 2]]), None]
    other["card"] = [{"digits": np.array([1.0, np.nan]), "limit": Decimal("2.50")}, {}, np.nan]
    with Server(judge) as server:
        first, second = score_frames(iter([frame, other]), server.address)
        asked = {transaction["id"]: transaction for transaction in server.transactions}
    assert asked["5"] == {"id": "5", "amount": 5, "at": "2026-01-02 03:04:05"}
    card = {"digits": [1.0, None], "limit": 2.5}
    assert asked["a"] == {"id": "a", "amount": 50.0, "at": None, "tags": ["x", "y"], "card": card}
    assert asked["b"]["tags"] == [[1, 2]]
    assert asked["c"] == {"id": "c", "amount": None, "at": None, "tags": None, "card": None}
    assert ", ".join(first.columns) == ", ".join(part.split()[0] for part in SCHEMA.split(", "))
    assert list(first["id"]) == list(frame["id"])
    assert np.array_equal(first["score"], frame["amount"] / 100)
    assert set(first["outcome"]) == {"approve", "decline"}
    assert first["error"].isna().all()
    assert second["score"].tolist()[0] == 0.5
    assert second["error"].isna().tolist() == [True, False, False]
    assert second["error"][1] == "bad_transaction: is below 0"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node.js example with its packages, beside this checkout."""
    return install(tmp_path_factory.mktemp("node") / "example")


@needs_node
def test_the_client_in_javascript_packs_and_reads_the_golden_messages(node: Path) -> None:
    command = ["node", "vectors.mjs", str(ROOT / "tests/transport/wire_vectors.json")]
    done = subprocess.run(command, cwd=node, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 wrong" in done.stdout


@needs_node
def test_the_client_in_javascript_scores_on_two_nodes_of_which_one_dies(node: Path) -> None:
    payments: list[dict[str, Any]] = [{"id": str(n), "amount": n - 0.5} for n in range(100)]
    lines = "".join(json.dumps(payment) + "\n" for payment in payments)
    # One answers two and keeps the rest; the other can serve only once it does.
    dying = Server(lambda transaction: judge(transaction) if transaction["amount"] < 1 else None)
    living = Server(judge)
    living.ready = False
    with dying, living:
        command = ["node", "score.mjs", dying.address, living.address]
        with subprocess.Popen(command, cwd=node, stdin=-1, stdout=-1, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(lines)
            process.stdin.close()
            while len(dying.transactions) < len(payments):
                assert process.poll() is None
            living.ready = True
            dying.stop()
            found = [json.loads(line) for line in process.stdout]
        assert process.returncode == 0
    assert [one["error"] for one in found[:1]] == ["bad_transaction"]
    assert (found[0]["field"], found[0]["rule"]) == ("amount", "min")
    assert [one["score"] for one in found[1:]] == [payment["amount"] / 100 for payment in payments[1:]]
    assert [name for name, _ in found[1]["scores"]] == ["0", "1"]
    assert [one["id"] for one in found[1:]] == [payment["id"] for payment in payments[1:]]


def test_no_lock_file_names_a_registry() -> None:
    lock = json.loads((EXAMPLE / "package-lock.json").read_text())
    assert len(lock["packages"]) > 2
    assert not [one for one in lock["packages"].values() if "resolved" in one]


def test_what_the_readme_of_the_client_shows_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "transport/client/README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    with Server({"fraud": 0.5}) as server:
        for block in blocks:
            exec(block.replace("tcp://10.0.0.1:7301,tcp://10.0.0.2:7301", server.address), {})
    assert capsys.readouterr().out == "{'fraud': 0.5} 1\n" + "0.5\n" * 1_000
