"""What a node asks of a release before it says ready: signatures, memory, speed; each refusal has figures."""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pykka
import pytest
from sklearn.ensemble import RandomForestClassifier

from actors.config import load_settings
from actors.loader import Load, LoadDone, LoaderActor, LoadFailed
from governance.artifacts import find_any, register
from governance.database import Connection, connect
from governance.policy import Policy, set_policy
from governance.promotion import promote
from governance.signing import new_key, read_key, sign
from models.importers import import_model

SPEC = """
name = "first"
version = 1
[fields.a]
type = "number"
[[features]]
name = "a"
kind = "numeric"
field = "a"
"""
Loaded = Callable[..., LoadDone | LoadFailed]


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


@pytest.fixture
def load(dsn: str, connection: Connection, tmp_path: Path) -> Iterator[Loaded]:
    """Register a pipeline, promote it, and have a loader prepare it under some settings."""
    x = np.arange(20, dtype=np.float32).reshape(-1, 1)
    model = RandomForestClassifier(2, random_state=0).fit(x, np.arange(20) % 2)
    import_model(model, tmp_path / "m.bundle", feature_names=["a"])
    (tmp_path / "spec.toml").write_text(SPEC)
    register(connection, tmp_path / "m.bundle", kind="bundle", name="m", by="ann")
    register(connection, tmp_path / "spec.toml", kind="feature_spec", name="f", by="ann")
    release = promote(connection, environment="qa", stages={"model": "m", "features": "f"}, by="ann").release

    def load(**tables: dict[str, Any]) -> LoadDone | LoadFailed:
        file = tmp_path / "scorewire.toml"
        lines = [f"dsn = {json.dumps(dsn)}"]
        for name, values in tables.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
        file.write_text("\n".join(lines))
        reports: queue.Queue[LoadDone | LoadFailed] = queue.Queue()
        actor = LoaderActor.start(
            dsn,
            tmp_path / "cache",
            role="scorer",
            settings=load_settings(file),
            report=reports.put,
        )
        actor.tell(Load(release))
        return reports.get(timeout=60)

    yield load
    pykka.ActorRegistry.stop_all()


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Two keys: name to public half."""
    return {name: new_key(tmp_path / f"{name}.pem") for name in ("release", "other")}


def sign_with(connection: Connection, file: Path, *artifacts: str) -> None:
    for artifact in artifacts:
        sign(connection, find_any(connection, artifact), read_key(file), name="release", by="ann")


def test_a_release_is_prepared_where_nothing_is_asked(load: Loaded) -> None:
    done = load()
    assert isinstance(done, LoadDone)
    (model,) = done.loaded.models
    assert model.forest is not None
    assert model.forest.predict(np.zeros((1, 1), np.float32)).shape == (1, 2)


def test_a_node_that_trusts_keys_takes_only_what_they_have_signed(
    load: Loaded, connection: Connection, keys: dict[str, str], tmp_path: Path
) -> None:
    trusted = {"release": keys["release"]}
    refused = load(trusted_keys=trusted)
    assert isinstance(refused, LoadFailed)
    assert "SignatureError" in refused.reason
    assert not refused.transient
    # One artifact of the two is not enough.
    sign_with(connection, tmp_path / "release.pem", "m")
    assert isinstance(load(trusted_keys=trusted), LoadFailed)
    sign_with(connection, tmp_path / "release.pem", "f")
    assert isinstance(load(trusted_keys=trusted), LoadDone)
    # Another node trusts another key, under the same name.
    assert isinstance(load(trusted_keys={"release": keys["other"]}), LoadFailed)


def test_a_model_that_does_not_fit_into_memory_is_refused_with_the_figures(load: Loaded) -> None:
    refused = load(scorer={"models_mb": 0.001})
    assert isinstance(refused, LoadFailed)
    assert "MemoryBudgetError" in refused.reason
    assert "models_mb" in refused.reason
    assert isinstance(load(scorer={"models_mb": 10}), LoadDone)


def test_a_model_that_is_too_slow_here_is_refused_with_the_figures(
    load: Loaded, connection: Connection
) -> None:
    set_policy(connection, "qa", Policy(latency_us=1e-3), by="olga", reason="impossible")
    refused = load()
    assert isinstance(refused, LoadFailed)
    assert "LatencyError: a row takes" in refused.reason
    set_policy(connection, "qa", Policy(latency_us=1e9), by="olga", reason="generous")
    assert isinstance(load(), LoadDone)
