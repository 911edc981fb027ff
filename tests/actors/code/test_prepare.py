"""What a node asks of a release with code: a signature that it trusts, libraries, a start, golden values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from actors.code.stages import CodeFeatures, CodeRules
from actors.config import load_settings
from actors.errors import CodeStartError, PipelineMismatchError
from actors.loading import PipelineLoader
from actors.rescore import rescore
from governance.artifacts import find_any, register
from governance.database import Connection, connect
from governance.errors import PromotionRefusedError, SignatureError
from governance.promotion import promote
from governance.signing import new_key, read_key, sign
from governance.transactions import Transaction
from models.errors import GoldenMismatchError, InstallError, LibraryError
from tests.actors.code.test_live import DECIDE, DECIDE_DECLARED, DECLARED, FEATURES, MODEL, MODEL_DECLARED
from tests.models.code.wheels import build

Load = Callable[..., Any]


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


def stages_of(connection: Connection, tmp_path: Path, **sources: str) -> dict[str, str]:
    """Register a pipeline of nothing but code."""
    known = {
        "features": (FEATURES, DECLARED, "features"),
        "model": (MODEL, MODEL_DECLARED, "score"),
        "decision": (DECIDE, DECIDE_DECLARED, "decide"),
    }
    found = {}
    for stage, (source, declared, target) in known.items():
        group = f"scorewire.{stage}"
        wheel = build(
            tmp_path / "wheels",
            sources.get(stage, source),
            sources.get(f"{stage}_declared", declared),
            name=f"my_{stage}",
            group=group,
            target=target,
            requires=(sources["requires"],) if "requires" in sources else (),
        )
        found[stage] = register(connection, wheel, kind="code_package", name=stage, by="ann").digest
    return found


@pytest.fixture
def load(dsn: str, connection: Connection, tmp_path: Path) -> Load:
    def load(stages: dict[str, str], *, unsigned: bool = True, **more: Any) -> Any:
        file = tmp_path / "scorewire.toml"
        keys = more.pop("trusted_keys", {})
        lines = [f"{name} = {json.dumps(value)}" for name, value in keys.items()]
        file.write_text(
            f"dsn = {json.dumps(dsn)}\nallow_unsigned_code = {json.dumps(unsigned)}\n"
            + "\n".join(["[code]", "spares = 0", "[trusted_keys]", *lines])
        )
        return PipelineLoader(tmp_path / "cache", load_settings(file)).load(connection, stages, **more)

    return load


def test_a_pipeline_of_code_is_prepared_and_evaluates(
    connection: Connection, load: Load, tmp_path: Path
) -> None:
    found = load(stages_of(connection, tmp_path))
    assert set(found.code) == {"features", "model", "decision"}
    vectors = found.vectors({"id": 1, "a": 4.0})
    (scores,) = found.score(found.rows([vectors]))
    assert scores == {"tens": 40.0}
    assert found.decide(scores, {"kind": "gift"}).reasons == ("gift",)


def test_code_is_refused_without_a_trusted_signature_unless_that_is_allowed_by_name(
    connection: Connection, load: Load, tmp_path: Path
) -> None:
    stages = stages_of(connection, tmp_path)
    with pytest.raises(SignatureError, match="allow_unsigned_code"):
        load(stages, unsigned=False)
    # Whoever trusts keys is not talked out of it.
    keys = {"release": new_key(tmp_path / "release.pem")}
    with pytest.raises(SignatureError, match="no signature that this node trusts"):
        load(stages, unsigned=True, trusted_keys=keys)
    assert not (tmp_path / "cache" / "code").exists()
    for digest in stages.values():
        key = read_key(tmp_path / "release.pem")
        sign(connection, find_any(connection, digest), key, name="release", by="ann")
    assert load(stages, unsigned=False, trusted_keys=keys).code


def test_a_node_runs_only_the_code_of_its_own_stages(
    connection: Connection, load: Load, tmp_path: Path
) -> None:
    stages = stages_of(connection, tmp_path)
    scorer = load(stages, only={"features", "model"}, run={"model"})
    assert set(scorer.code) == {"model"}
    assert scorer.widths == {"features": 8}
    preprocessor = load(stages, only={"features", "decision"}, run={"features", "decision"})
    assert set(preprocessor.code) == {"features", "decision"}
    assert isinstance(preprocessor.spec, CodeFeatures)
    assert isinstance(preprocessor.rules, CodeRules)


@pytest.mark.parametrize(
    ("sources", "error", "says"),
    [
        ({"features": "import nothing_like_that"}, CodeStartError, "No module named"),
        ({"decision": "import os; os._exit(9)"}, CodeStartError, "ended with 9"),
        ({"features": "def features(t): return [1, 2]"}, GoldenMismatchError, "'a' is 1.0, declared is 1.5"),
        ({"decision": "def decide(t, s): return 'decline', []"}, GoldenMismatchError, "decline"),
        ({"model": "import numpy as np\ndef score(rows): return rows[:, 1]"}, GoldenMismatchError, "'tens'"),
        ({"requires": "numpy>=99"}, LibraryError, "numpy>=99"),
        (
            {"model_declared": MODEL_DECLARED.replace('["a", "b"]', '["a", "c"]')},
            PipelineMismatchError,
            "'b' in the feature spec and 'c'",
        ),
    ],
)
def test_a_release_with_code_that_does_not_hold_here_is_refused(
    connection: Connection,
    load: Load,
    tmp_path: Path,
    sources: dict[str, str],
    error: type[Exception],
    says: str,
) -> None:
    with pytest.raises(error, match=says):
        load(stages_of(connection, tmp_path, **sources))


def test_a_host_without_room_refuses(connection: Connection, load: Load, tmp_path: Path) -> None:
    stages = stages_of(connection, tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "code").write_text("a file where the directory should be")
    with pytest.raises(InstallError, match="name another cache"):
        load(stages)


def test_code_is_promoted_for_its_own_stage_alone(connection: Connection, tmp_path: Path) -> None:
    stages = stages_of(connection, tmp_path)
    rollout = promote(connection, environment="qa", stages=stages, by="ann")
    assert dict(rollout.release.slots["champion"].stages) == stages
    with pytest.raises(PromotionRefusedError, match="is code for the stage decision"):
        promote(connection, environment="qa", stages={"features": stages["decision"]}, by="ann")


def test_an_answer_of_code_is_computed_again_to_the_bit(
    connection: Connection, load: Load, tmp_path: Path
) -> None:
    found = load(stages_of(connection, tmp_path))
    tx = {"id": "7", "a": 2.25, "b": 1.0, "do": "", "kind": "gift"}
    vectors = found.vectors(tx)
    (scores,) = found.score(found.rows([vectors]))
    stored = Transaction(
        environment="qa",
        id="7",
        at=datetime.now(UTC),
        node="p",
        seq=1,
        release=1,
        outcome="review",
        reasons=("gift",),
        scores=scores,
        features=vectors,
        fields=tx,
    )
    again = rescore(found, stored)
    assert [(check.what, check.same) for check in again.checks] == [
        ("features", True),
        ("scores", True),
        ("decision", True),
    ]
    other = rescore(found, replace(stored, fields={**tx, "a": 2.5}, outcome="approve", reasons=()))
    assert [check.same for check in other.checks] == [False, True, False]
