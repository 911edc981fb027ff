"""Code packages in a whole Scorewire: signed, promoted under load, led back, and harmless when they fail."""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pytest
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner, Result

import run
from governance.database import migrate
from governance.embedded import EmbeddedPostgres
from governance.signing import new_key
from models.importers import import_model
from tests.acceptance.conftest import System, start_system
from transport.client import Client, CodeFailedError, ScorewireError

SPEC = """
name = "plain"
version = 1
id = "id"
[fields.amount]
type = "number"
[fields.age]
type = "number"
missing = "nan"
[[features]]
name = "log_amount"
kind = "log1p"
field = "amount"
[[features]]
name = "age"
kind = "numeric"
field = "age"
"""
#: What may go wrong in a worker, each on the word of a transaction.
HARMFUL = """
import ctypes, math, os, sys, time

kept = []

def features(transaction):
    do = transaction.get("do")
    if do == "loop":
        while True:
            pass
    if do == "segfault":
        ctypes.string_at(0)
    if do == "leak":
        while True:
            kept.append(bytearray(1 << 24))
    if do == "print":
        print("garbage" * 10_000, flush=True)
        print("garbage" * 10_000, file=sys.stderr, flush=True)
    try:
        if do == "fork" and os.fork() == 0:
            time.sleep(600)
    except OSError:
        pass  # beside root the kernel refuses
    return [math.log1p(transaction["amount"]), transaction.get("age", math.nan)]
"""


@pytest.fixture(scope="module")
def coded(directory: Path) -> Iterator[System]:
    """One preprocessor and one scorer, which trust one key."""
    public = new_key(directory / "release.pem")
    own = {
        "SCOREWIRE_TRUSTED_KEYS": json.dumps({"release": public}),
        "SCOREWIRE_CODE__BUDGET_MS": "2000",
        "SCOREWIRE_CODE__MEMORY_MB": "600",
    }
    with pytest.MonkeyPatch.context() as patch, EmbeddedPostgres(directory / "postgres") as postgres:
        for name, value in own.items():
            patch.setenv(name, value)
        migrate(postgres.dsn)
        running = start_system(directory, postgres, preprocessors=1, scorers=1)
        try:
            yield running
        finally:
            running.host.stop()


@pytest.fixture(scope="module")
def invoke() -> Callable[..., Result]:
    def invoke(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(run.app, [str(part) for part in arguments])
        assert result.exit_code == code, result.output + result.stderr
        return result

    return invoke


@pytest.fixture(scope="module")
def wheels(directory: Path, invoke: Callable[..., Result]) -> Path:
    """The package that `code new` writes, built by pip in two versions."""
    invoke("code", "new", "payfeatures", "--directory", directory)
    project = directory / "payfeatures"
    _build(project, directory / "wheels")
    for file, before, after in (
        ("pyproject.toml", "0.1.0", "0.2.0"),
        ("payfeatures/__init__.py", "math.log1p(amount)", "-math.log1p(amount)"),
        ("payfeatures/scorewire.toml", "[2.6026897", "[-2.6026897"),
    ):
        (project / file).write_text((project / file).read_text().replace(before, after))
    _build(project, directory / "wheels")
    return directory / "wheels"


def _build(project: Path, out: Path) -> None:
    # The build's own leavings would be built in the second time.
    subprocess.run(["rm", "-rf", project / "build"], check=True)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "-w", out, project], check=True, capture_output=True)


class Load:
    """Scores without a pause from a thread of its own, and keeps what came."""

    def __init__(self, addresses: list[str]) -> None:
        self.answers: list[Any] = []
        self._client = Client(addresses, deadline=10.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        def feed() -> Iterator[dict[str, Any]]:
            for number in itertools.count():
                if self._stop.is_set():
                    return
                yield {"id": number, "amount": number % 100, "age": 30}

        self.answers.extend(self._client.score_many(feed(), window=8))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()


def workers_of(system: System) -> list[psutil.Process]:
    node = psutil.Process(system.host.pids()["preprocessor-0"])
    return [one for one in node.children() if any("child.py" in part for part in one.cmdline())]


@pytest.mark.timeout(240)
def test_code_lives_as_every_artifact_does(
    coded: System,
    invoke: Callable[..., Result],
    wheels: Path,
    wait_until: Callable[..., Any],
) -> None:
    config = ("--config", coded.file)
    directory = coded.directory

    def told(*arguments: object, code: int = 0) -> Any:
        return json.loads(invoke(*arguments, *config, "--json", code=code).stdout)

    def register(file: Path, name: str) -> str:
        digest: str = told("register", file, "--name", name, "--by", "ann")["digest"]
        return digest

    def sign(name: str) -> None:
        key = ("--key", directory / "release.pem", "--name", "release")
        invoke("sign", name, *key, "--by", "ann", *config)

    # What a node would say is known before anything is registered.
    first, second = sorted(wheels.glob("*.whl"))
    facts = json.loads(invoke("code", "check", first, "--json").stdout)
    assert (facts["package"], facts["version"], facts["stage"]) == ("payfeatures", "0.1.0", "features")

    x = np.random.default_rng(0).random((300, 2)).astype(np.float32) * 5
    model = RandomForestClassifier(5, random_state=0).fit(x, x[:, 0] > 2.5)
    import_model(model, directory / "m.bundle", feature_names=["log_amount", "age"])
    (directory / "plain.toml").write_text(SPEC)
    register(directory / "m.bundle", "m")
    register(directory / "plain.toml", "plain")
    digests = [register(first, "code-1"), register(second, "code-2")]
    sign("m")
    sign("plain")
    coded.wait_for_nodes()
    assert told("promote", "--model", "m", "--features", "plain")["state"] == "active"

    # Nobody has signed the code yet: the nodes refuse, and nothing has changed.
    refused = told("promote", "--features", "code-1", code=1)
    assert refused["state"] == "abandoned"
    assert "SignatureError" in refused["reason"]
    sign("code-1")
    sign("code-2")

    with Load(coded.addresses()) as load:
        assert told("promote", "--features", "code-1")["state"] == "active"
        assert told("promote", "--features", "code-2")["state"] == "active"
        wait_until(lambda: len(workers_of(coded)) == 4, "two workers of each version at once")
        assert told("rollback", "--reason", "worse")["state"] == "active"
        time.sleep(0.2)
    failed = [one for one in load.answers if isinstance(one, ScorewireError)]
    assert not failed, failed[:3]
    served = {one.trace.pipeline["features"] for one in load.answers}
    assert served >= set(digests)

    # Code and spec make the same features, and so the same scores.
    with Client(coded.addresses(), deadline=10.0) as client:
        answer = client.score({"id": 1, "amount": 12.5, "age": 40})
        assert answer.trace.pipeline["features"] == digests[0]
        row = np.array([[math.log1p(12.5), 40]], np.float32)
        assert list(answer.scores.values()) == model.predict_proba(row)[0].tolist()
        # A refusal by the package names field and rule, as one by a spec does.
        with pytest.raises(ScorewireError) as caught:
            client.score({"id": 1, "amount": -1})
        assert (caught.value.code, caught.value.field, caught.value.rule) == (
            "bad_transaction",
            "amount",
            "range",
        )


@pytest.mark.timeout(240)
def test_what_code_does_harms_one_request_alone_and_bad_code_does_not_come_in(
    coded: System,
    invoke: Callable[..., Result],
    wheels: Path,
    wait_until: Callable[..., Any],
) -> None:
    from tests.models.code.wheels import build, features_declared

    assert wheels
    config = ("--config", coded.file)
    key = ("--key", coded.directory / "release.pem", "--name", "release")
    names = ["log_amount", "age"]
    declared = features_declared({"id": "1", "amount": 0, "age": 40}, [0, 40], names)

    def promote(name: str, source: str, *, code: int = 0) -> Any:
        wheel = build(coded.directory / "own", source, declared, name=name)
        invoke("register", wheel, "--name", name, *config)
        invoke("sign", name, *key, *config)
        return json.loads(invoke("promote", "--features", name, *config, "--json", code=code).stdout)

    for name, source, says in (
        ("broken", "import nothing_of_that_name", "CodeStartError"),
        ("wrong", "def features(t): return [1, 1]", "GoldenMismatchError"),
        ("dying", "import os\ndef features(t): os._exit(1)", "CodeStartError"),
    ):
        refused = promote(name, source, code=1)
        assert refused["state"] == "abandoned"
        assert says in refused["reason"]

    assert promote("harmful", HARMFUL)["state"] == "active"
    does = {
        20: "loop",
        50: "segfault",
        80: "leak",
        110: "print",
        140: "fork",
        170: "segfault",
        171: "segfault",
    }
    stream = [{"id": n, "amount": n, "age": 30, "do": does.get(n)} for n in range(300)]
    with Client(coded.addresses(), deadline=20.0) as client:
        results = list(client.score_many(stream, window=32))
        errors = {n: one for n, one in enumerate(results) if isinstance(one, ScorewireError)}
        assert {n: getattr(one, "rule", "") for n, one in errors.items()} == {
            20: "budget",
            50: "crash",
            80: "memory",
            170: "crash",
            171: "crash",
        }
        assert all(isinstance(one, CodeFailedError) for one in errors.values())
        # A worker that somebody kills while it is idle is nobody's error.
        wait_until(lambda: len(_serving(coded)) >= 2, "a worker and its spare")
        idle = _serving(coded)
        for worker in idle:
            os.kill(worker.pid, signal.SIGKILL)
        wait_until(lambda: not any(map(_lives, idle)), "their deaths")
        assert client.score({"id": 1, "amount": 1, "age": 1}).id == "1"
    # The node itself and its actors never noticed.
    assert coded.host.restarts()["preprocessor-0"] == 0
    # What code forked goes with its worker, and workers with their node.
    node = psutil.Process(coded.host.pids()["preprocessor-0"])
    workers = workers_of(coded)
    node.kill()
    wait_until(lambda: not any(map(_lives, workers)), "the workers' end")
    with Client(coded.addresses(), deadline=30.0) as client:
        wait_until(lambda: coded.host.restarts()["preprocessor-0"] == 1, "the node's restart")
        assert client.score({"id": 1, "amount": 1, "age": 1}).id == "1"


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _serving(system: System) -> list[psutil.Process]:
    """Return the workers that wait for a request, those of releases that are held as well."""
    return [one for one in workers_of(system) if one.status() == psutil.STATUS_SLEEPING]
