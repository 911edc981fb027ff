"""Candidates: what is computed anew is right to the last bit, and the rest is the live record's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from actors.config import KafkaSettings
from actors.evaluation import Evaluator
from actors.loading import PipelineLoader
from governance.artifacts import register
from models.importers import import_model
from shadow.candidate import Candidate, Evaluated, Refused, plan
from tests.models.code.wheels import build as build_wheel
from tests.models.code.wheels import features_declared
from tests.shadow.world import World, build


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> World:
    return build(dsn, KafkaSettings(bootstrap_servers="127.0.0.1:9"), tmp_path)


@pytest.fixture
def candidate(world: World) -> Callable[..., Candidate]:
    settings = world.settings.model_copy(update={"allow_unsigned_code": True})
    loader = PipelineLoader(world.settings.cache, settings)

    def load(stages: Mapping[str, str], only: Collection[str], run: Collection[str]) -> Evaluator:
        with world.connect() as connection:
            return loader.load(connection, stages, only=only, run=run)

    return lambda **overrides: Candidate({s: world.digests[what] for s, what in overrides.items()}, load)


def evaluated(results: list[Evaluated | Refused]) -> list[Evaluated]:
    assert all(isinstance(one, Evaluated) for one in results), results
    return [one for one in results if isinstance(one, Evaluated)]


def test_a_shadow_of_the_champion_itself_finds_what_the_champion_found(
    world: World, candidate: Callable[..., Candidate]
) -> None:
    records = world.records(range(50))
    for overrides in ({"model": "model"}, {"features": "features"}, {"decision": "decision"}):
        for record, found in zip(records, evaluated(candidate(**overrides).evaluate(records)), strict=True):
            assert found.scores == record.scores
            assert record.decision is not None
            assert (found.outcome, list(found.reasons)) == tuple(record.decision.values())


def test_another_model_scores_the_stored_vector_and_the_live_rules_decide_again(
    world: World, candidate: Callable[..., Candidate]
) -> None:
    # The transaction is not looked at for features: it could not give this vector.
    records = [replace(r, transaction={"id": r.id}) for r in world.records(range(100))]
    found = evaluated(candidate(model="other").evaluate(records))
    assert any(one.scores != r.scores for one, r in zip(found, records, strict=True))
    assert any(one.outcome == "decline" for one in found)
    assert {tuple(one.us) for one in found} == {("model", "decision")}
    assert all(one.drift == {} for one in found)


def test_other_rules_decide_on_the_stored_scores(world: World, candidate: Callable[..., Candidate]) -> None:
    records = [replace(r, features={}) for r in world.records(range(100))]  # no vector is needed
    found = evaluated(candidate(decision="lenient").evaluate(records))
    for one, record in zip(found, records, strict=True):
        assert one.scores == record.scores
        assert one.outcome == ("decline" if list(record.scores.values())[-1] >= 0.2 else "approve")


def test_other_features_are_computed_scored_decided_and_their_drift_told(
    world: World, candidate: Callable[..., Candidate]
) -> None:
    records = world.records(range(100))
    found = evaluated(candidate(features="log").evaluate(records))
    for one, record in zip(found, records, strict=True):
        amount, age = record.transaction["amount"], record.transaction["age"]
        assert one.drift == {"amount": [amount, float(np.float32(np.log1p(amount)))], "age": [age, age]}
    assert {tuple(one.us) for one in found} == {("features", "model", "decision")}


def test_records_that_cannot_be_evaluated_are_refused_alone(
    world: World, candidate: Callable[..., Candidate]
) -> None:
    good, no_amount, no_vector, short, foreign = world.records(range(5))
    bad = [
        replace(no_amount, transaction={"id": "x"}),
        replace(no_vector, features={}),
        replace(short, features={"features": b"1234"}),
        replace(foreign, pipeline={**foreign.pipeline, "features": "0" * 64}),
    ]
    by_features = candidate(features="log").evaluate([bad[0], good])
    assert isinstance(by_features[0], Refused)
    assert "amount" in by_features[0].reason
    assert isinstance(by_features[1], Evaluated)
    by_model = candidate(model="other").evaluate([*bad[1:], good])
    reasons = [one.reason for one in by_model if isinstance(one, Refused)]
    assert ["no vector" in reasons[0], "4 bytes" in reasons[1], "registered" in reasons[2]] == [True] * 3
    assert isinstance(by_model[3], Evaluated)


def test_a_row_that_the_model_refuses_is_refused_alone(
    world: World, candidate: Callable[..., Candidate], tmp_path: Path
) -> None:
    x = np.random.default_rng(0).uniform(0, 100, (300, 2)).astype(np.float32)
    forest = DecisionTreeClassifier(max_depth=3).fit(x, x[:, 0] > 50)
    bundle = import_model(forest, tmp_path / "strict", feature_names=["amount", "age"], sparse=True)
    with world.connect() as connection:
        path = bundle.path
        world.digests["strict"] = register(connection, path, kind="bundle", name="strict", by="ann").digest
    records = world.records(range(5))
    records[3] = replace(records[3], features={"features": np.array([1, np.nan], "<f4").tobytes()})
    found = candidate(model="strict").evaluate(records)
    (refused,) = [one for one in found if isinstance(one, Refused)]
    assert found[3] is refused
    assert refused.reason == "model: feature 'age': row 0 has NaN, which the model's library refuses"


def test_what_the_field_policy_hides_is_refused_by_name(
    world: World, candidate: Callable[..., Candidate]
) -> None:
    for overrides in ({"features": "prying"}, {"decision": "prying rules"}):
        (found,) = candidate(**overrides).evaluate(world.records([1]))
        assert isinstance(found, Refused)
        assert "field policy of the features first 1 hides secret" in found.reason


def test_only_what_depends_on_an_override_is_computed_anew() -> None:
    pipeline = {name: name for name in ("features", "model", "decision", "model:risk", "features:risk")}

    def planned(**overrides: str) -> tuple[set[str], set[str], bool, set[str]]:
        found = plan(pipeline, {name.replace("_", ":"): what for name, what in overrides.items()})
        return set(found.features), set(found.models), found.decides, set(found.load)

    risk = {"features:risk", "model:risk", "decision"}
    assert planned(features_risk="x") == ({"features:risk"}, {"model:risk"}, True, risk)
    assert planned(features="x") == ({"features"}, {"model"}, True, {"features", "model", "decision"})
    assert planned(model_new="x") == (set(), {"model:new"}, True, {"model:new", "features", "decision"})
    assert planned(decision="x") == (set(), set(), True, {"decision"})


CODE = """
import os
def features(transaction):
    amount = transaction["amount"]
    if amount == 1300:
        os._exit(1)
    if amount == 1400:
        raise ValueError("no fourteen")
    return [amount, transaction.get("age") or 0]
"""


def test_code_in_the_place_of_features_finds_the_same_and_fails_for_its_own_records_alone(
    world: World, candidate: Callable[..., Candidate], tmp_path: Path
) -> None:
    declared = features_declared({"id": "1", "amount": 2, "age": 30}, [2, 30], ["amount", "age"])
    with world.connect() as connection:
        wheel = build_wheel(tmp_path / "wheels", CODE, declared)
        code = register(connection, wheel, kind="code_package", name="code", by="ann").digest
    world.digests["code"] = code
    records = world.records(range(20))
    for place, amount in ((3, 1300), (7, 1400)):
        transaction = {**records[place].transaction, "amount": amount}
        records[place] = replace(records[place], transaction=transaction)
    found = candidate(features="code").evaluate(records)
    refused = {place: one.reason for place, one in enumerate(found) if isinstance(one, Refused)}
    assert set(refused) == {3, 7}
    assert "ended with 1" in refused[3]
    assert "no fourteen" in refused[7]
    plain = candidate(features="features").evaluate(records)
    for place, (one, other) in enumerate(zip(found, plain, strict=True)):
        if place not in refused:
            assert isinstance(one, Evaluated)
            assert isinstance(other, Evaluated)
            assert (one.scores, one.outcome) == (other.scores, other.outcome)
