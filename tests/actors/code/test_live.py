"""Code in the stages of live releases: asynchronous, beside plain releases, and harmless to them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
from sklearn.ensemble import RandomForestClassifier

from actors.code.prepare import warm_up
from actors.code.stages import CodeModel, CodePart, CodeRules, make_part
from actors.evaluation import NamedModel
from actors.state import Holdings, Loaded
from models.forest import Forest
from models.importers import import_model
from models.spec_errors import TransactionError
from tests.actors.code.conftest import MakeStage
from tests.actors.test_serving import SPEC, Small, load_with
from transport.client import CodeFailedError, ScorewireError, TransactionRefusedError
from transport.client.answer import Decision

LIMIT_S = 20

FEATURES = """
import ctypes, os, time

class Refused(ValueError):
    field, rule = "a", "range"

def features(transaction):
    do = transaction.get("do", "")
    if do == "die":
        os._exit(3)
    if do == "loop":
        while True:
            pass
    if do == "refuse":
        raise Refused("is refused by code")
    if do == "sleep":
        time.sleep(0.2)
    return [transaction["a"], transaction.get("b", float("nan"))]
"""
DECLARED = """
id = "id"
features = ["a", "b"]
[fields.card]
store = "hash"
[[golden]]
transaction = { id = "g", a = 1.5, b = 2 }
vector = [1.5, 2]
"""
DECIDE = """
import os
def decide(transaction, scores):
    if transaction.get("do") == "die deciding":
        os._exit(3)
    return ("review", ["gift"]) if transaction.get("kind") == "gift" else ("approve", [])
"""
DECIDE_DECLARED = """
reasons = ["gift"]
[[golden]]
transaction = { kind = "gift" }
scores = { yes = 0.5 }
outcome = "review"
reasons = ["gift"]
"""
MODEL = """
import os
import numpy as np
def score(rows):
    if (rows[:, 0] == 666).any():
        os._exit(3)
    if (rows[:, 0] == 667).any():
        raise ValueError("no")
    return rows[:, :1] * 10.0
"""
MODEL_DECLARED = """
features = ["a", "b"]
outputs = ["tens"]
[[golden]]
vector = [2, 1]
scores = [20]
"""
Pack = Callable[..., CodePart]


@pytest.fixture
def pack(make_stage: MakeStage) -> Pack:
    """Prepare a package for a live node."""

    def make(source: str, declared: str, **more: Any) -> CodePart:
        stage = make_stage(source, declared, **more)
        warm_up(stage, 2)
        return make_part(stage.package, stage)

    return make


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    x = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    model = RandomForestClassifier(5, random_state=0).fit(x, x[:, 0] > 0)
    bundle = import_model(model, tmp_path_factory.mktemp("m") / "m.bundle", feature_names=["a", "b"])
    return load_with(SPEC, NamedModel("", "features", Forest(bundle), bundle.meta.outputs))


@pytest.fixture
def running(plain: Loaded) -> Iterator[Small]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    small = Small(context, plain)
    yield small
    small.close()
    context.destroy(linger=0)


def hold(running: Small, *releases: Loaded) -> None:
    """Have all nodes hold these releases, the last as the current one."""
    held = MappingProxyType({one.release: one for one in releases})
    current = releases[-1].release
    running.state.holdings = Holdings(held, current)
    for state in running.scorers:
        state.holdings = Holdings(held, current)


def test_features_by_code_score_as_those_of_a_spec_and_plain_releases_stay_as_they_are(
    running: Small, plain: Loaded, pack: Pack
) -> None:
    part: Any = pack(FEATURES, DECLARED)
    hold(running, plain, replace(plain, specs={"features": part}, release=2))
    for number in range(20):
        tx = {"id": number, "a": number / 7 - 1, "b": 0.25}
        by_code, by_spec = running.client.score(tx), running.client.score(tx, release=1)
        assert by_code.scores == by_spec.scores
        assert (by_code.trace.release, by_spec.trace.release) == (2, 1)
        assert by_code.id == str(number)
    results = list(running.client.score_many([{"id": n, "a": n / 50} for n in range(200)], window=64))
    assert not any(isinstance(one, ScorewireError) for one in results)


def test_what_code_does_to_one_transaction_is_its_error_alone(
    running: Small, plain: Loaded, pack: Pack
) -> None:
    part: Any = pack(FEATURES, DECLARED, budget_s=0.5)
    hold(running, plain, replace(plain, specs={"features": part}, release=2))
    does = {5: "die", 17: "loop", 30: "refuse", 31: "die"}
    stream = [{"id": n, "a": 0.5, "do": does.get(n, "")} for n in range(60)]
    results = list(running.client.score_many(stream, window=32))
    errors = {n: one for n, one in enumerate(results) if isinstance(one, ScorewireError)}
    assert set(errors) == set(does)
    assert [(type(errors[n]), errors[n].rule) for n in sorted(does)] == [
        (CodeFailedError, "crash"),
        (CodeFailedError, "budget"),
        (TransactionRefusedError, "range"),
        (CodeFailedError, "crash"),
    ]
    assert (errors[30].field, errors[30].detail) == ("a", "is refused by code")
    (counted,) = running.state.code_counters["p"]().values()
    assert (counted["failed"], counted["crashes"], counted["overruns"], counted["refused"]) == (3, 2, 1, 1)
    # The plain release beside it never noticed.
    assert running.client.score({"id": 1, "a": 0.5}, release=1).trace.release == 1


def test_a_plain_release_answers_while_code_is_slow(running: Small, plain: Loaded, pack: Pack) -> None:
    part: Any = pack(FEATURES, DECLARED)
    hold(running, plain, replace(plain, specs={"features": part}, release=2))
    slow = {"id": 1, "a": 0.5, "do": "sleep"}
    order: list[int] = []
    import threading

    def score(release: int, tx: dict[str, Any]) -> None:
        running.client.score(tx, release=release)
        order.append(release)

    first = threading.Thread(target=score, args=(2, slow))
    first.start()
    deadline = time.monotonic() + LIMIT_S
    while not running.refs["p"].proxy().in_flight().get():
        assert time.monotonic() < deadline
    score(1, {"id": 2, "a": 0.5})
    first.join()
    assert order == [1, 2]


def test_code_decides_with_declared_reasons_or_fails_alone(running: Small, plain: Loaded, pack: Pack) -> None:
    rules = pack(DECIDE, DECIDE_DECLARED, group="scorewire.decision", target="decide")
    assert isinstance(rules, CodeRules)
    hold(running, plain, replace(plain, rules=rules, release=2))
    tx = {"id": 1, "a": 0.5}
    assert running.client.score({**tx, "kind": "gift"}).decision == Decision("review", ("gift",))
    answer = running.client.score(tx)
    assert answer.decision == Decision("approve", ())
    assert answer.trace.us["total"] >= answer.trace.us["decision"] > 0
    with pytest.raises(CodeFailedError) as caught:
        running.client.score({**tx, "do": "die deciding"})
    assert (caught.value.field, caught.value.rule) == ("decision", "crash")
    assert running.client.score(tx).decision == Decision("approve", ())


def test_code_scores_and_one_poison_row_of_a_batch_fails_alone(
    running: Small, plain: Loaded, pack: Pack
) -> None:
    model = pack(MODEL, MODEL_DECLARED, group="scorewire.model", target="score")
    assert isinstance(model, CodeModel)
    named = NamedModel("tens", "features", model, ("tens.tens",))
    both = replace(plain, models=(named, *plain.models), release=2)
    # A preprocessor scores nothing, and so runs no code of models.
    hold(running, plain, both)
    running.state.holdings = Holdings(MappingProxyType({1: plain, 2: replace(plain, release=2)}), 2)
    answer = running.client.score({"id": 1, "a": 2.5, "b": 1.0})
    assert answer.scores["tens.tens"] == 25.0
    assert list(answer.scores) == ["tens.tens", "False", "True"]
    stream = [{"id": n, "a": {40: 666, 41: 667}.get(n, 0.5), "b": 0.0} for n in range(100)]
    results = list(running.client.score_many(stream, window=64))
    errors = {n: one for n, one in enumerate(results) if isinstance(one, ScorewireError)}
    assert {n: (type(one), one.rule) for n, one in errors.items()} == {
        40: (CodeFailedError, "crash"),
        41: (CodeFailedError, "exception"),
    }


def test_workers_go_with_the_last_release_that_uses_them(running: Small, plain: Loaded, pack: Pack) -> None:
    part: Any = pack(FEATURES, DECLARED)
    coded = replace(plain, specs={"features": part}, release=2)
    hold(running, plain, coded)
    running.client.score({"id": 1, "a": 0.5})
    pids = [pid for found in running.refs["p"].proxy().code.get().pids().values() for pid in found]
    assert len(pids) == 2
    # The release before the current one stays at hand for a rollback, with its workers.
    hold(running, coded, replace(plain, release=3))
    assert running.client.score({"id": 1, "a": 0.5}, release=2).trace.release == 2
    assert pids == [pid for found in running.refs["p"].proxy().code.get().pids().values() for pid in found]
    hold(running, replace(plain, release=3))
    del part, coded
    deadline = time.monotonic() + LIMIT_S
    while running.refs["p"].proxy().code.get().pids():
        assert time.monotonic() < deadline


def test_an_actor_that_dies_takes_its_workers_along_and_its_successor_has_others(
    running: Small, plain: Loaded, pack: Pack
) -> None:
    part: Any = pack(FEATURES, DECLARED)
    hold(running, plain, replace(plain, specs={"features": part}, release=2))
    running.client.score({"id": 1, "a": 0.5})
    before = running.refs["p"]
    pids = [pid for found in before.proxy().code.get().pids().values() for pid in found]
    before.tell(_Explode())
    assert running.client.score({"id": 1, "a": 0.5}).trace.release == 2
    assert running.refs["p"] is not before
    deadline = time.monotonic() + LIMIT_S
    while any(map(psutil.pid_exists, pids)):
        assert time.monotonic() < deadline


class _Explode:
    """A message that an actor's handling of trips over."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # isinstance asks for it
        raise RuntimeError("exploded on purpose")


def test_shadows_and_rescoring_call_the_same_code_and_wait(plain: Loaded, pack: Pack) -> None:
    features: Any = pack(FEATURES, DECLARED)
    rules: Any = pack(DECIDE, DECIDE_DECLARED, group="scorewire.decision", target="decide", name="decider")
    model: Any = pack(MODEL, MODEL_DECLARED, group="scorewire.model", target="score", name="scoring")
    whole = replace(
        plain,
        specs={"features": features},
        models=(NamedModel("", "features", model, ("tens",)),),
        rules=rules,
    )
    assert (features.storage, features.undeclared, features.n_features) == ({"card": "hash"}, "keep", 2)
    vectors = [whole.vectors({"id": n, "a": n, "b": 0}) for n in range(3)]
    scores = whole.score(whole.rows(vectors))
    assert scores == [{"tens": 0.0}, {"tens": 10.0}, {"tens": 20.0}]
    decided = whole.decide(scores[0], {"kind": "gift"})
    assert decided is not None
    assert (decided.outcome, decided.reasons) == ("review", ("gift",))
    assert features.matrix([{"a": n} for n in range(200)])[:, 0].tolist() == list(range(200))
    assert model.predict(np.full((150, 2), 3, np.float32)).tolist() == [[30.0]] * 150
    with pytest.raises(TransactionError, match="is refused by code"):
        whole.vectors({"a": 1, "do": "refuse"})
    with pytest.raises(CodeFailedError, match="ended with 3"):
        whole.vectors({"a": 1, "do": "die"})
    assert whole.vectors({"id": 0, "a": 0, "b": 0}) == vectors[0]


def test_a_stopped_worker_fails_its_request_and_is_replaced(
    running: Small, plain: Loaded, pack: Pack
) -> None:
    part: Any = pack(FEATURES, DECLARED, budget_s=0.5)
    hold(running, plain, replace(plain, specs={"features": part}, release=2))
    running.client.score({"id": 1, "a": 0.5})
    ((first, _),) = running.refs["p"].proxy().code.get().pids().values()
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(CodeFailedError) as caught:
        running.client.score({"id": 2, "a": 0.5})
    assert caught.value.rule == "budget"
    assert running.client.score({"id": 3, "a": 0.5}).id == "3"
