"""A gateway before a real preprocessor and real scorers, all in this process."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pykka
import pytest
import zmq
from sklearn.ensemble import RandomForestClassifier

from actors.child import life_of
from actors.config import GatewaySettings
from actors.evaluation import NamedModel
from actors.gateway.actor import GatewayActor
from actors.preprocessor import PreprocessorActor
from actors.scorer import ScorerActor
from actors.serving import RefreshPeers
from actors.state import Holdings, Loaded, NodeState
from actors.supervisor import ChildSpec, Supervisor
from actors.traces import Traces
from models.forest import Forest
from models.importers import import_model
from models.spec import load_spec

LIMIT_S = 20
SPEC = b"""
name = "three"
version = 1
id = "id"
[fields.a]
type = "number"
[fields.b]
type = "number"
missing = "nan"
[fields.kind]
type = "category"
categories = ["shop", "online"]
[[features]]
name = "a"
kind = "numeric"
field = "a"
[[features]]
name = "b"
kind = "numeric"
field = "b"
[[features]]
name = "kind"
kind = "category"
field = "kind"
"""
GOOD = {"id": "t1", "a": 0.25, "b": None, "kind": "online"}


@dataclass
class Reply:
    """What a gateway answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class House:
    """What runs, and a way to ask it."""

    loaded: Loaded
    forest: RandomForestClassifier
    state: NodeState
    settings: GatewaySettings
    refs: dict[str, pykka.ActorRef[Any]]
    supervisor: pykka.ActorRef[Any]
    nodes: list[NodeState]
    context: Any = None
    connections: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.state.endpoints["gateway"].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        self.connections.append(http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S))
        return self.connections[-1]

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = self.connect()
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, raw, dict(headers or {}))
        answer = connection.getresponse()
        return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def score_of(self, row: Sequence[float]) -> float:
        return float(self.forest.predict_proba(np.array([row], np.float32))[0, 1])

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.supervisor.stop()


def wait_until(condition: Callable[[], Any], what: str = "it") -> Any:
    give_up_at = time.monotonic() + LIMIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at, what
        time.sleep(0.005)
    return found


@pytest.fixture(scope="session")
def forest() -> RandomForestClassifier:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((300, 3)).astype(np.float32)
    x[::7, 1] = np.nan
    return RandomForestClassifier(7, random_state=0).fit(x, (x[:, 0] > 0).astype(int))


@pytest.fixture(scope="session")
def loaded(forest: RandomForestClassifier, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    path = tmp_path_factory.mktemp("m") / "m.bundle"
    bundle = import_model(forest, path, feature_names=["a", "b", "kind"])
    model = NamedModel("", "features", Forest(bundle), bundle.meta.outputs)
    pipeline = {"features": "f" * 64, "model": "m" * 64}
    return Loaded({"features": load_spec(SPEC)}, (model,), release=3, environment="test", pipeline=pipeline)


def start_house(
    loaded: Loaded, forest: RandomForestClassifier, traces: Traces | None = None, **limits: Any
) -> House:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    holdings = Holdings(MappingProxyType({loaded.release: loaded}), loaded.release)
    scorers = [NodeState(f"s{n}", "test", "scorer", holdings) for n in range(2)]
    preprocessor = NodeState("p", "test", "preprocessor", holdings)
    gateway = NodeState("g", "test", "gateway", holdings)
    for state in (*scorers, preprocessor, gateway):
        state.traces = traces
    settings = GatewaySettings(**{"port": 0, "leave_s": 0.0, "deadline_ms": LIMIT_S * 1e3, **limits})
    refs: dict[str, pykka.ActorRef[Any]] = {}

    def spec(name: str, start: Callable[[], pykka.ActorRef[Any]]) -> ChildSpec:
        def start_and_note() -> pykka.ActorRef[Any]:
            refs[name] = start()
            return refs[name]

        return ChildSpec(name, start_and_note)

    anywhere = "tcp://127.0.0.1:*"
    supervisor = Supervisor.start(
        [
            *(
                spec(s.node_id, lambda s=s: ScorerActor.start(s.node_id, s, context, anywhere))  # type: ignore[misc]
                for s in scorers
            ),
            spec("p", lambda: PreprocessorActor.start("p", preprocessor, context, anywhere)),
            spec("gateway", lambda: GatewayActor.start(gateway, context, settings, settings.port)),
        ],
        max_restarts=50,
    )
    assert life_of(supervisor).started.wait(LIMIT_S)
    preprocessor.scorers = gateway.scorers = tuple(e for s in scorers for e in s.endpoints.values())
    gateway.preprocessors = tuple(preprocessor.endpoints.values())
    for name in ("p", "gateway"):
        refs[name].ask(RefreshPeers(), timeout=LIMIT_S)
    counted = gateway.counters["gateway"]
    wait_until(lambda: counted().get("preprocessors.members.ready") == 1, "the preprocessor is known")
    wait_until(lambda: counted().get("scorers.members.ready") == len(scorers), "the scorers are known")
    return House(loaded, forest, gateway, settings, refs, supervisor, [*scorers, preprocessor], context)


@pytest.fixture(scope="module")
def house(loaded: Loaded, forest: RandomForestClassifier) -> Iterator[House]:
    running = start_house(loaded, forest)
    yield running
    running.close()
    running.context.destroy(linger=0)


@pytest.fixture
def build(loaded: Loaded, forest: RandomForestClassifier) -> Iterator[Callable[..., House]]:
    """Start houses with limits of their own."""
    made: list[House] = []

    def make(**limits: Any) -> House:
        made.append(start_house(loaded, forest, **limits))
        return made[-1]

    yield make
    for one in made:
        one.close()
        one.context.destroy(linger=0)
