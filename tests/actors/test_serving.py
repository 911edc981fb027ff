"""The serving actors on real sockets: bad vectors, crashes, and leaving without a loss."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pykka
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from actors.child import life_of
from actors.evaluation import NamedModel
from actors.preprocessor import PreprocessorActor
from actors.scorer import ScorerActor
from actors.serving import RefreshPeers
from actors.state import Canary, Holdings, Loaded, NodeState
from actors.supervisor import ChildSpec, Supervisor
from actors.tally import Watch
from models.decision import Decision as RuleDecision
from models.decision import DecisionFile, DecisionRules
from models.forest import Forest
from models.importers import import_model
from models.spec import load_spec
from transport.client import (
    Answer,
    Client,
    NodeFailedError,
    NoScoreError,
    ScorewireError,
    UnavailableError,
    wire,
)
from transport.client.answer import Decision
from transport.client.wire import Kind

LIMIT_S = 20
Context = zmq.Context[zmq.Socket[bytes]]

SPEC = b"""
name = "two"
version = 1
id = "id"
[fields.a]
type = "number"
[fields.b]
type = "number"
missing = "nan"
[[features]]
name = "a"
kind = "numeric"
field = "a"
[[features]]
name = "b"
kind = "numeric"
field = "b"
"""
SPEC_C = b"""
name = "one"
version = 1
[fields.c]
type = "number"
[[features]]
name = "c"
kind = "numeric"
field = "c"
"""


def wait_until(condition: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at
        time.sleep(0.005)
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    x = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    model = RandomForestClassifier(5, random_state=0).fit(x, x[:, 0] > 0)
    bundle = import_model(model, tmp_path_factory.mktemp("m") / "m.bundle", feature_names=["a", "b"])
    return load_with(SPEC, NamedModel("", "features", Forest(bundle), bundle.meta.outputs))


def load_with(spec: bytes, *models: NamedModel, **specs: bytes) -> Loaded:
    """A release of these models; features of a score by its name."""
    named = {f"features:{name}": load_spec(source) for name, source in specs.items()}
    pipeline = {"features": "f", "model": "m"}
    return Loaded(
        {"features": load_spec(spec), **named}, models, release=1, environment="test", pipeline=pipeline
    )


@pytest.fixture(scope="module")
def two_scores(loaded: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Beside that, a score `value` of one feature that a spec of its own makes."""
    x = np.random.default_rng(1).standard_normal((200, 1)).astype(np.float32)
    model = RandomForestRegressor(5, random_state=0).fit(x, x[:, 0])
    bundle = import_model(model, tmp_path_factory.mktemp("m") / "v.bundle", feature_names=["c"])
    value = NamedModel("ltv", "features:ltv", Forest(bundle), ("ltv.value",))
    return load_with(SPEC, value, *loaded.models, ltv=SPEC_C)


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


class Small:
    """Some preprocessors and scorers, supervised, in this process."""

    def __init__(self, context: Context, loaded: Loaded, *, scorers: int = 1, preprocessors: int = 1) -> None:
        self.refs: dict[str, pykka.ActorRef[Any]] = {}
        holdings = Holdings(MappingProxyType({loaded.release: loaded}), loaded.release)
        self.scorers = [NodeState(f"s{n}", "test", "scorer", holdings) for n in range(scorers)]
        names = ["p", *(f"p{n}" for n in range(1, preprocessors))]
        self.preprocessors = [NodeState(name, "test", "preprocessor", holdings) for name in names]
        self.state = self.preprocessors[0]
        specs = [self._spec(ScorerActor, f"s{n}", state, context) for n, state in enumerate(self.scorers)]
        specs += [self._spec(PreprocessorActor, one.node_id, one, context) for one in self.preprocessors]
        self.supervisor = Supervisor.start(specs, max_restarts=50)
        assert life_of(self.supervisor).started.wait(LIMIT_S)
        endpoints = tuple(e for state in self.scorers for e in state.endpoints.values())
        for one in self.preprocessors:
            one.scorers = endpoints
            self.refs[one.node_id].tell(RefreshPeers())
        addresses = [one.endpoints[one.node_id] for one in self.preprocessors]
        self.client = Client(addresses, deadline=LIMIT_S)

    def _spec(self, actor: Any, name: str, state: NodeState, context: Context) -> ChildSpec:
        def start() -> pykka.ActorRef[Any]:
            self.refs[name] = actor.start(name, state, context, "tcp://127.0.0.1:*")
            return self.refs[name]

        return ChildSpec(name, start)

    def asked_by(self, name: str) -> dict[str, str]:
        """What a preprocessor thinks of its scorers, by endpoint."""
        states: dict[str, str] = self.refs[name].proxy().pool.get().states()
        return states

    def close(self) -> None:
        self.client.close()
        self.supervisor.stop()


@pytest.fixture
def small(context: Context, loaded: Loaded) -> Iterator[Callable[..., Small]]:
    made: list[Small] = []

    def make(serving: Loaded = loaded, **more: Any) -> Small:
        made.append(Small(context, serving, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


@given(st.integers(1, 1000), st.integers() | st.text() | st.floats())
def test_a_key_that_is_given_the_canary_keeps_it_when_it_grows(release: int, key: Any) -> None:
    taken = [Canary(release, percent, "").takes(key) for percent in (0, 1, 5, 25, 50, 99, 100)]
    assert taken == sorted(taken)
    assert (taken[0], taken[-1]) == (False, True)


def test_a_canary_is_given_the_share_of_keys_that_it_should_have() -> None:
    for release, percent in ((2, 5.0), (3, 5.0), (2, 50.0)):
        canary = Canary(release, percent, "")
        count = sum(canary.takes(f"customer-{number}") for number in range(20_000))
        # Five standard deviations of a fair draw.
        assert abs(count - 200 * percent) < 5 * (200 * percent * (1 - percent / 100)) ** 0.5
    # Another canary is given other keys.
    both = [Canary(2, 5.0, "").takes(n) and Canary(3, 5.0, "").takes(n) for n in range(20_000)]
    assert sum(both) < 100


def test_some_keys_are_given_the_canary_and_all_others_the_current_release(
    small: Any, loaded: Loaded
) -> None:
    running = small()
    other = replace(loaded, release=2)
    canary = Canary(2, 30.0, "customer")
    holdings = Holdings(MappingProxyType({1: loaded, 2: other}), 1, canary)
    for state in (running.state, *running.scorers):
        state.holdings = holdings
    for number in range(60):
        answer = running.client.score({"id": number, "a": 0.5, "customer": f"c{number % 20}"})
        assert answer.trace.release == (2 if canary.takes(f"c{number % 20}") else 1)
    # Without its key a transaction is the current release's; and whoever names one is given that.
    assert running.client.score({"id": 1, "a": 0.5}).trace.release == 1
    taken = next(f"c{n}" for n in range(20) if canary.takes(f"c{n}"))
    assert running.client.score({"id": 1, "a": 0.5, "customer": taken}, release=1).trace.release == 1
    assert running.client.score({"id": 1, "a": 0.5}, release=2).trace.release == 2


def test_what_becomes_of_a_canary_and_of_the_current_release_is_counted(small: Any, loaded: Loaded) -> None:
    running = small()
    rules = [{"when": "tx.kind == 'gift'", "decide": "review", "reason": "gift"}]
    file = DecisionFile.model_validate({"name": "d", "version": 1, "rules": rules})
    watch = Watch(2, 1)
    canary = Canary(2, 50.0, "customer", watch)
    both = {1: loaded, 2: replace(loaded, release=2, rules=DecisionRules(file))}
    running.state.holdings = Holdings(MappingProxyType(both), 1, canary)
    running.scorers[0].holdings = running.state.holdings
    taken = {c: canary.takes(c) for c in range(40)}
    for customer in taken:
        running.client.score({"id": 1, "a": 0.5, "customer": customer, "kind": "book"})
    mine = sum(taken.values())
    # What is counted is counted after the answer has left.
    wait_until(lambda: (watch.canary.requests, watch.champion.requests) == (mine, 40 - mine))
    assert not watch.canary.errors
    assert sum(watch.canary.scores.values()) == sum(watch.canary.latency.values()) == mine
    # What is refused, by the features or by the model, and a rule that cannot be evaluated.
    customer = next(c for c in taken if taken[c])
    for wrong in ({"a": "x"}, {"a": 0.5, "b": 1e308}):
        with pytest.raises(ScorewireError):
            running.client.score({"id": 1, "customer": customer, "kind": "book", **wrong})
    running.client.score({"id": 1, "a": 0.5, "customer": customer})
    wait_until(lambda: watch.canary.requests == mine + 3)
    assert watch.canary.errors == {"bad_transaction": 2, "rule": 1}
    # Whoever names a release, and who has no key, tells nothing of the two.
    running.client.score({"id": 1, "a": 0.5, "customer": customer}, release=2)
    running.client.score({"id": 1, "a": 0.5})
    wait_until(lambda: watch.canary.requests + watch.champion.requests == 43)
    assert watch.snapshot()["keyless"] == 1


def test_a_pipeline_with_rules_answers_with_their_decision_and_reasons(small: Any, loaded: Loaded) -> None:
    rules = [
        {"when": "tx.kind == 'gift'", "decide": "review", "reason": "gift"},
        {"when": "score >= 0.5", "decide": "decline", "reason": "high"},
    ]
    file = DecisionFile.model_validate({"name": "d", "version": 1, "rules": rules})
    running = small(replace(loaded, rules=DecisionRules(file)))
    high = {"id": 1, "a": 2.0, "b": 0.0}
    assert running.client.score({**high, "kind": "book"}).decision == Decision("decline", ("high",))
    assert running.client.score({**high, "kind": "gift"}).decision == Decision("review", ("gift",))
    assert running.client.score({"id": 2, "a": -2.0, "kind": ""}).decision == Decision("approve", ())
    # A rule that cannot be evaluated asks for a review; the answer comes all the same.
    assert running.client.score(high).decision == Decision("review", ("gift.error",))
    assert running.client.score(high).to_dict()["decision"]["outcome"] == "review"


def test_where_no_score_comes_in_time_the_releases_fallback_is_answered_and_marked(
    small: Any, loaded: Loaded
) -> None:
    rules = [{"when": "score >= 0.5", "decide": "decline", "reason": "high"}]
    told = {"decide": "review", "reason": "no_score"}
    file = DecisionFile.model_validate({"name": "d", "version": 1, "rules": rules, "fallback": told})
    running = small(replace(loaded, rules=DecisionRules(file)))
    assert not running.client.score({"id": 1, "a": 2.0, "b": 0.0}).fallback
    running.scorers[0].holdings = Holdings()
    wait_until(lambda: list(running.asked_by("p").values()) == ["not_ready"])
    began = time.monotonic()
    answer = running.client.score({"id": 2, "a": 2.0}, deadline=0.5)
    assert time.monotonic() - began < 0.5
    assert (answer.fallback, answer.id, dict(answer.scores)) == (True, "2", {})
    assert answer.decision == Decision("review", ("no_score",))
    assert (answer.trace.release, answer.trace.nodes) == (1, {"preprocessor": "p"})
    with pytest.raises(NoScoreError, match="fallback"):
        _ = answer.score
    # Without one, it is an error that says what is missing.
    running.state.holdings = Holdings(MappingProxyType({1: loaded}), 1)
    with pytest.raises(UnavailableError):
        running.client.score({"id": 3, "a": 2.0}, deadline=0.1)


def test_an_answer_carries_its_scores_and_its_trace(small: Any, loaded: Loaded) -> None:
    answer = small().client.score({"id": 7, "a": 0.5, "b": None})
    expected = forest_of(loaded).predict(np.array([[0.5, np.nan]], np.float32))[0]
    assert list(answer.scores.items()) == [("False", expected[0]), ("True", expected[1])]
    assert (answer.id, answer.trace.release, answer.trace.environment) == ("7", 1, "test")
    assert answer.trace.pipeline == {"features": "f", "model": "m"}
    assert answer.trace.nodes == {"preprocessor": "p", "scorer": "s0"}
    assert set(answer.trace.us) == {"features", "scorer", "kernel", "decision", "total"}
    assert answer.decision is None
    assert answer.trace.us["total"] >= answer.trace.us["scorer"]


def forest_of(loaded: Loaded) -> Forest:
    forest = loaded.models[-1].forest
    assert isinstance(forest, Forest)
    return forest


def test_two_scores_with_features_of_their_own_come_in_one_answer_and_decide_together(
    small: Any, two_scores: Loaded
) -> None:
    rules = [{"when": "scores['ltv.value'] < 0.0 && score >= 0.5", "decide": "decline", "reason": "both"}]
    file = DecisionFile.model_validate({"name": "d", "version": 1, "rules": rules})
    running = small(replace(two_scores, rules=DecisionRules(file)))
    ltv = two_scores.models[0].forest
    assert ltv is not None
    for a, c, outcome in ((2.0, -1.0, "decline"), (2.0, 1.0, "approve"), (-2.0, -1.0, "approve")):
        answer = running.client.score({"id": 1, "a": a, "b": 0.0, "c": c})
        value = ltv.predict(np.array([[c]], np.float32))[0, 0]
        fraud = forest_of(two_scores).predict(np.array([[a, 0.0]], np.float32))[0]
        assert list(answer.scores.items()) == [("ltv.value", value), ("False", fraud[0]), ("True", fraud[1])]
        assert answer.score == fraud[1]
        assert answer.decision == Decision(outcome, ("both",) if outcome == "decline" else ())
    # A field of either spec that breaks its rule refuses the transaction.
    with pytest.raises(ScorewireError, match="c"):
        running.client.score({"id": 1, "a": 1.0, "b": 0.0, "c": "x"})


def test_a_scorer_refuses_a_vector_short_of_those_that_its_release_takes(
    small: Any, context: Context, two_scores: Loaded
) -> None:
    running = small(two_scores)
    for body, rule in (
        ({"vector": bytes(8)}, "length"),
        ({"vectors": {"features": bytes(8)}}, "length"),
        ({"vectors": {"features": bytes(8), "features:ltv": bytes(8)}}, "length"),
        ({"vectors": {"features": bytes(8), "features:ltv": [0.0]}}, "type"),
        ({"vectors": bytes(8)}, "type"),
    ):
        error = wire.unpack_error(ask_scorer(running, context, {"release": 1, **body}))
        assert (error.code, error.field, error.rule) == ("protocol", "vectors", rule)
    whole = {"features": bytes(8), "features:ltv": bytes(4), "features:later": bytes(1)}
    frame = ask_scorer(running, context, {"release": 1, "vectors": whole})
    assert set(wire.unpack_body(frame)["scores"]) == {"ltv.value", "False", "True"}


def test_answers_of_a_node_that_sees_the_database_no_more_say_for_how_long(small: Any) -> None:
    running = small()
    assert running.client.score({"id": 7, "a": 0.5}).trace.stale_s is None
    running.state.stale_after_s = 5.0
    running.state.looked_at = time.monotonic() - 4.0
    assert running.client.score({"id": 7, "a": 0.5}).trace.stale_s is None
    running.state.looked_at = time.monotonic() - 60.0
    stale_s = running.client.score({"id": 7, "a": 0.5}).trace.stale_s
    assert 60.0 <= stale_s < 60.0 + LIMIT_S


def test_scorers_that_the_membership_has_lost_are_asked_for_as_long_as_they_answer(small: Any) -> None:
    running = small(scorers=2)
    before = running.client.score({"id": 7, "a": 0.5})
    # As after an outage of the database, in which all beats grew old
    running.state.scorers = ()
    running.refs["p"].tell(RefreshPeers())
    assert running.client.score({"id": 7, "a": 0.5}).scores == before.scores
    # One that leaves, and one that ends, is asked nothing more
    running.refs["s0"].stop()
    wait_until(lambda: list(running.asked_by("p")) == [running.scorers[1].endpoints["s1"]])
    running.client.score({"id": 7, "a": 0.5})
    running.refs["s1"].stop()
    wait_until(lambda: not running.asked_by("p"))


def ask_scorer(small: Small, context: Context, body: dict[str, Any]) -> bytes:
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(small.scorers[0].endpoints["s0"])
        socket.send(wire.pack_header(Kind.VECTOR, 3, 10**7) + wire.pack_body(body))
        assert socket.poll(LIMIT_S * 1000)
        return socket.recv()


@pytest.mark.parametrize(
    ("body", "code", "field", "rule"),
    [
        ({}, "protocol", "release", "type"),
        ({"release": "1", "vector": b""}, "protocol", "release", "type"),
        ({"release": 1}, "protocol", "vector", "type"),
        ({"release": 1, "vector": [1.0]}, "protocol", "vector", "type"),
        ({"release": 1, "vector": b"abc"}, "protocol", "vector", "length"),
        ({"release": 1, "vector": bytes(12)}, "protocol", "vector", "length"),
        ({"release": 2, "vector": bytes(8)}, "unknown_release", "", ""),
        (
            {"release": 1, "vector": np.array([1, np.inf], "<f4").tobytes()},
            "bad_transaction",
            "b",
            "infinite",
        ),
    ],
)
def test_a_bad_vector_is_refused_by_field_and_rule(
    small: Any, context: Context, body: dict[str, Any], code: str, field: str, rule: str
) -> None:
    running = small()
    error = wire.unpack_error(ask_scorer(running, context, body))
    assert (error.code, error.field, error.rule) == (code, field, rule)
    assert isinstance(running.client.score({"a": 1}), Answer)


def test_a_bad_row_in_a_batch_harms_no_other(small: Any, context: Context) -> None:
    running = small()
    rows = [np.array([i, np.inf if i % 10 == 3 else 0], "<f4").tobytes() for i in range(100)]
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(running.scorers[0].endpoints["s0"])
        for number, row in enumerate(rows):
            body = wire.pack_body({"release": 1, "vector": row})
            socket.send(wire.pack_header(Kind.VECTOR, number, 10**7) + body)
        kinds = dict(wire.unpack_header(socket.recv())[::2][::-1] for _ in rows)
    assert [number for number in range(100) if kinds[number] is Kind.ERROR] == list(range(3, 100, 10))


class Broken:
    """A forest that raises what nobody foresaw, in so many actors, one after another."""

    def __init__(self, forest: Forest, actors: int) -> None:
        self.bundle, self._forest, self._left = forest.bundle, forest, actors
        self._own = threading.local()

    def predict(self, x: Any) -> Any:
        if self._left and not hasattr(self._own, "breaks"):
            self._left -= 1
            self._own.breaks = True
        if hasattr(self._own, "breaks"):
            raise ZeroDivisionError("nobody foresaw this")
        return self._forest.predict(x)


class Fussy:
    """A forest that raises on a row with 666 in it, so many times."""

    def __init__(self, forest: Forest, times: float = math.inf) -> None:
        self.bundle, self._forest, self._left = forest.bundle, forest, times

    def predict(self, x: Any) -> Any:
        if self._left and (x == 666).any():
            self._left -= 1
            raise ZeroDivisionError("nobody foresaw this")
        return self._forest.predict(x)


def hold(state: NodeState, loaded: Loaded, forest: Broken | Fussy) -> None:
    replaced = replace(loaded, models=(replace(loaded.models[-1], forest=forest),))  # type: ignore[arg-type]
    state.holdings = Holdings(MappingProxyType({1: replaced}), 1)


def test_an_actor_that_raises_costs_no_request_and_comes_back_at_its_address(
    small: Any, loaded: Loaded
) -> None:
    running = small(scorers=2)
    before = [running.refs[name] for name in ("s0", "s1")]
    for state in running.scorers:
        hold(state, loaded, Broken(forest_of(loaded), 1))
    old = [dict(state.endpoints) for state in running.scorers]
    results = list(running.client.score_many([{"id": i, "a": i} for i in range(500)]))
    assert [result.id for result in results if isinstance(result, Answer)] == [str(i) for i in range(500)]
    wait_until(lambda: all(ref.is_alive() for ref in running.refs.values()))
    assert all(running.refs[name] is not ref for name, ref in zip(("s0", "s1"), before, strict=True))
    assert [dict(state.endpoints) for state in running.scorers] == old
    assert isinstance(running.client.score({"a": 1}), Answer)


def test_a_row_on_which_an_actor_raises_fails_alone_and_its_batch_is_answered(
    small: Any, loaded: Loaded, context: Context
) -> None:
    running = small()
    state, before = running.scorers[0], running.refs["s0"]
    hold(state, loaded, Fussy(forest_of(loaded)))
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(state.endpoints["s0"])
        for number in range(8):  # as many as are one batch, whatever they take
            row = np.array([number if number != 5 else 666, 0], "<f4").tobytes()
            body = wire.pack_body({"release": 1, "vector": row})
            socket.send(wire.pack_header(Kind.VECTOR, number, 10**7) + body)
        headers = [wire.unpack_header(socket.recv()) for _ in range(8)]
    kinds = {header.id: header.kind for header in headers}
    assert {kinds[number] for number in kinds if number != 5} == {Kind.ANSWER}
    assert kinds.get(5) is Kind.ERROR
    assert running.refs["s0"] is before
    assert before.is_alive()


def test_odd_rows_one_after_another_cost_no_actor_and_no_other_request(small: Any, loaded: Loaded) -> None:
    running = small(scorers=2)
    before = dict(running.refs)
    for state in running.scorers:
        hold(state, loaded, Fussy(forest_of(loaded)))
    odd = range(0, 500, 5)
    results = list(
        running.client.score_many([{"id": i, "a": 666 if i in odd else i % 600} for i in range(500)])
    )
    failed = [place for place, result in enumerate(results) if not isinstance(result, Answer)]
    assert failed == list(odd)
    assert {type(results[place]) for place in odd} == {NodeFailedError}
    assert running.refs == before


def test_a_request_that_breaks_every_scorer_is_given_up_and_the_next_one_works(
    small: Any, loaded: Loaded
) -> None:
    running = small(scorers=2)
    for state in running.scorers:
        hold(state, loaded, Broken(forest_of(loaded), 2))
    with pytest.raises(NodeFailedError, match="nodes in turn failed"):
        running.client.score({"a": 1})
    assert isinstance(running.client.score({"a": 1}), Answer)


def test_a_bug_in_one_evaluation_costs_neither_the_actor_nor_other_requests(
    small: Any, loaded: Loaded
) -> None:
    class Buggy:
        feature_names, n_features, id_field = loaded.spec.feature_names, 2, "id"

        def packed(self, transaction: Any) -> Any:
            if transaction.get("trip"):
                raise KeyError("a bug")
            return loaded.spec.packed(transaction)

    running = small()
    buggy = replace(loaded, specs={"features": Buggy()})  # type: ignore[dict-item]
    running.state.holdings = Holdings(MappingProxyType({1: buggy}), 1)
    results = list(running.client.score_many([{"id": i, "a": 1, "trip": i == 5} for i in range(20)]))
    assert [isinstance(result, ScorewireError) for result in results] == [i == 5 for i in range(20)]
    assert running.refs["p"].is_alive()


def test_a_bug_in_making_an_answer_costs_neither_the_actor_nor_other_requests(
    small: Any, loaded: Loaded
) -> None:
    class Buggy:
        fallback = None

        def decide(self, _: Any, transaction: Any) -> Any:
            if transaction.get("trip"):
                raise KeyError("a bug")
            return RuleDecision("approve", (), 0)

    running = small()
    before = running.refs["p"]
    buggy = replace(loaded, rules=Buggy())  # type: ignore[arg-type]
    running.state.holdings = Holdings(MappingProxyType({1: buggy}), 1)
    results = list(running.client.score_many([{"id": i, "a": 1, "trip": i == 5} for i in range(20)]))
    assert [isinstance(result, ScorewireError) for result in results] == [i == 5 for i in range(20)]
    assert running.refs["p"] is before
    assert before.is_alive()
    assert before.proxy().in_flight().get() == 0


def test_a_leaving_actor_finishes_what_it_has_and_its_callers_move_on(small: Any) -> None:
    running = small(scorers=2)
    results: list[Any] = []
    stream = running.client.score_many(({"id": i, "a": i} for i in range(3000)), window=50)
    for number, result in enumerate(stream):
        results.append(result)
        if number == 500:
            running.refs["s0"].stop(block=False)
    assert all(isinstance(result, Answer) for result in results)
    assert len(results) == 3000
