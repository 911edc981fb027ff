"""Pipelines made ready from their digests: named scores, what is left out, budgets over all models."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from actors.config import load_settings
from actors.errors import LatencyError, MemoryBudgetError, PipelineMismatchError
from actors.loading import PipelineLoader
from governance.artifacts import register
from governance.database import Connection, connect
from models.forest import Forest
from models.importers import import_model
from models.spec import load_spec

SPEC = """
name = "{name}"
version = 1
[fields.{name}]
type = "number"
[[features]]
name = "{name}"
kind = "numeric"
field = "{name}"
"""
RULES = "name = 'd'\nversion = 1\n[[rules]]\nwhen = 'score > 0.5'\ndecide = 'review'\nreason = 'r'\n"


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


@pytest.fixture
def stages(connection: Connection, tmp_path: Path) -> dict[str, str]:
    """Two models of features of their own, a third that shares, and rules."""
    x = np.arange(40, dtype=np.float32).reshape(-1, 1)
    found = {}
    for stage, name, seed in (("", "a", 0), (":ato", "b", 1), (":mule", "a", 2)):
        forest = RandomForestClassifier(3, random_state=seed).fit(x, np.arange(40) % 2)
        import_model(forest, tmp_path / f"m{seed}.bundle", feature_names=[name])
        bundle = register(connection, tmp_path / f"m{seed}.bundle", kind="bundle", name="m", by="ann")
        found[f"model{stage}"] = bundle.digest
        if stage != ":mule":
            (tmp_path / "s.toml").write_text(SPEC.format(name=name))
            spec = register(connection, tmp_path / "s.toml", kind="feature_spec", name="s", by="ann")
            found[f"features{stage}"] = spec.digest
    (tmp_path / "d.toml").write_text(RULES)
    rules = register(connection, tmp_path / "d.toml", kind="decision_rules", name="d", by="ann")
    return {**found, "decision": rules.digest}


def loader(dsn: str, tmp_path: Path, **scorer: Any) -> PipelineLoader:
    file = tmp_path / "scorewire.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in scorer.items()]
    file.write_text("\n".join([f"dsn = {json.dumps(dsn)}", "[scorer]", *lines]))
    return PipelineLoader(tmp_path / "cache", load_settings(file))


def test_models_take_their_own_features_or_the_common_ones_and_the_unnamed_comes_last(
    dsn: str, connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    found = loader(dsn, tmp_path).load(connection, stages)
    assert [(model.name, model.features) for model in found.models] == [
        ("ato", "features:ato"),
        ("mule", "features"),
        ("", "features"),
    ]
    transactions = [{"a": 3.0, "b": 30.0}, {"a": 7.0, "b": 0.0}, {"a": 39.0, "b": 2.0}]
    rows = found.rows([found.vectors(one) for one in transactions])
    together = found.score(rows)
    assert list(together[0]) == ["ato.0", "ato.1", "mule.0", "mule.1", "0", "1"]
    assert found.score(found.rows([])) == []
    # A batch is its rows, and a row is what each model says alone.
    for transaction, scores in zip(transactions, together, strict=True):
        alone = found.rows([found.vectors(transaction)])
        assert found.score(alone) == [scores]
        for model in found.models:
            assert model.forest is not None
            (expected,) = model.forest.predict(alone[model.features]).tolist()
            assert [scores[name] for name in model.outputs] == expected
        decision = found.decide(scores, transaction)
        assert decision is not None
        assert decision.outcome == ("review" if scores["1"] > 0.5 else "approve")


def test_what_is_left_out_is_taken_from_what_is_known(
    dsn: str, connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    known = {"ato.0": 0.9, "ato.1": 0.1, "mule.0": 0.6, "mule.1": 0.4, "0": 0.3, "1": 0.7}
    pipelines = loader(dsn, tmp_path)
    named = pipelines.load(connection, stages, only={"features", "features:ato", "model:ato"})
    (scores,) = named.score(named.rows([named.vectors({"a": 1.0, "b": 2.0})]))
    assert set(scores) == {"ato.0", "ato.1"}
    whole = named.complete(scores, known)
    assert list(whole) == list(known)
    assert whole == {**known, **scores}
    plain = pipelines.load(connection, stages, only={"features", "model", "decision"})
    (scores,) = plain.score(plain.rows([plain.vectors({"a": 1.0})]))
    assert plain.complete(scores, known) == {**known, **scores}
    assert list(plain.complete(scores, known)) == list(known)


def test_a_score_whose_outputs_would_be_anothers_is_refused(
    dsn: str, connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    x = np.arange(40, dtype=np.float32).reshape(-1, 1)
    labels = np.where(np.arange(40) % 2, "ato.yes", "ato.no")
    import_model(RandomForestClassifier(2).fit(x, labels), tmp_path / "odd.bundle", feature_names=["a"])
    odd = register(connection, tmp_path / "odd.bundle", kind="bundle", name="odd", by="ann").digest
    with pytest.raises(PipelineMismatchError, match=r"'ato\.no' would be taken for one of model 'ato'"):
        loader(dsn, tmp_path).load(connection, {**stages, "model": odd})


def test_the_budgets_are_those_of_all_models_together(
    dsn: str, connection: Connection, stages: dict[str, str], tmp_path: Path
) -> None:
    pipelines = loader(dsn, tmp_path)
    found = pipelines.load(connection, stages)
    sizes = [model.forest.bundle.size for model in found.models if isinstance(model.forest, Forest)]
    assert len(sizes) == 3
    enough = loader(dsn, tmp_path, models_mb=sum(sizes) / 1e6 + 1e-5)
    held = enough.load(connection, stages)
    little = loader(dsn, tmp_path, models_mb=sum(sizes) / 1e6 - 1e-5)
    with pytest.raises(MemoryBudgetError, match=f"{sum(sizes) / 1e6 - 1e-5:.1f} in all"):
        little.load(connection, stages)
    with pytest.raises(LatencyError, match="policy allows"):
        pipelines.load(connection, stages, latency_us=1e-3)
    # What a release shares with one that is held is not loaded again, and what nobody holds counts no more.
    assert enough.load(connection, stages).models[0].forest is held.models[0].forest
    del held
    gc.collect()
    assert isinstance(enough.load(connection, stages).spec, type(load_spec(SPEC.format(name="a").encode())))
