"""Nodes, artifacts and connections for the tests of governance."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from governance.artifacts import register
from governance.database import Connection, connect
from governance.membership import join
from models.importers import import_model

SPEC = """
name = "{name}"
version = 1
[fields.a]
type = "number"
[[features]]
name = "a"
kind = "numeric"
field = "a"
"""


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


@pytest.fixture(scope="session")
def bundle_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.arange(20, dtype=np.float32).reshape(-1, 1)
    model = RandomForestClassifier(2, random_state=0).fit(x, np.arange(20) % 2)
    path = tmp_path_factory.mktemp("bundle") / "m.bundle"
    import_model(model, path, feature_names=["a"])
    return path


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(SPEC.format(name="first"))
    return path


@pytest.fixture
def stages(connection: Connection, bundle_file: Path, spec_file: Path) -> dict[str, str]:
    """A pipeline whose artifacts are registered."""
    model = register(connection, bundle_file, kind="bundle", name="m", by="ann")
    features = register(connection, spec_file, kind="feature_spec", name="f", by="ann")
    return {"model": model.digest, "features": features.digest}


def enter(connection: Connection, node_id: str, environment: str = "qa", **more: Any) -> None:
    """Enter a node that lives in this process."""
    facts = {"role": "scorer", "host": socket.gethostname(), "pid": os.getpid(), **more}
    join(connection, node_id=node_id, environment=environment, **facts)


def grow_old(connection: Connection, node_id: str, seconds: float = 60) -> None:
    """Let a node's last beat lie back, as if it had fallen silent."""
    connection.execute(
        "UPDATE member SET beat_at = beat_at - make_interval(secs => %s) WHERE node_id = %s",
        (seconds, node_id),
    )
