"""The peers: how each is started in its best configuration, asked, and read.

All have one worker a core. FastAPI stands for what people write themselves: uvicorn with uvloop and
httptools, orjson, no model of pydantic. LightGBM is called by its C function for single rows, with the set-up
done once, where the code is ours to write (FastAPI, BentoML, Ray Serve); MLServer's runtimes are as they are.
Of MLServer, `parallel_workers = 0` is faster on one core: there is no second process to send rows to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.cases import FEATURES, Case
from benchmarks.service.speech import PLAIN, Http, Speech, as_json
from benchmarks.service.transactions import transaction

_FAST = ("uvicorn", "uvloop", "httptools", "orjson")


@dataclass(frozen=True)
class Start:
    """Where and how a peer starts.

    Attributes:
        python: its interpreter.
        case: the forest.
        directory: for files of its own.
        port: where it listens.
        workers: how many cores it has.
    """

    python: Path
    case: Case
    directory: Path
    port: int
    workers: int


@dataclass(frozen=True)
class Command:
    """What runs it: arguments, and variables beside those that there are."""

    arguments: list[str]
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """A peer.

    Attributes:
        environment: the name of its environment.
        modules: what must be importable for it to run in this project's own.
        requirements: what an environment of its own gets.
        suffix: the file of the case that it loads.
        command: returns what starts it.
        speech: how it is asked.
    """

    environment: str
    modules: tuple[str, ...]
    requirements: tuple[str, ...]
    suffix: str
    command: Callable[[Start], Command]
    speech: Speech = PLAIN


def _fastapi(engine: str) -> Callable[[Start], Command]:
    def command(start: Start) -> Command:
        case = start.case
        variables = {
            "SERVICE_ENGINE": engine,
            "SERVICE_CASE": json.dumps([case.trees, case.rows, case.leaves]),
        }
        arguments = (
            f"-m uvicorn benchmarks.service.apps.fast:app --port {start.port} --workers {start.workers}"
        )
        options = "--loop uvloop --http httptools --no-access-log --log-level warning"
        return Command([str(start.python), *arguments.split(), *options.split()], variables)

    return command


def _own(start: Start) -> dict[str, str]:
    return {
        "SERVICE_MODEL": str(start.case.file(".txt")),
        "SERVICE_PORT": str(start.port),
        "SERVICE_WORKERS": str(start.workers),
    }


def _bento(start: Start) -> Command:
    own = {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(start.directory)}
    arguments = f"-m bentoml serve benchmarks.service.apps.bento:Forest --port {start.port} --host 127.0.0.1"
    return Command([str(start.python), *arguments.split()], {**_own(start), **own})


def _ray(start: Start) -> Command:
    own = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    return Command([str(start.python), "-m", "benchmarks.service.apps.ray_app"], {**_own(start), **own})


def _mlserver(implementation: str, suffix: str) -> Callable[[Start], Command]:
    def command(start: Start) -> Command:
        settings = {
            "http_port": start.port,
            "grpc_port": start.port + 1,
            "metrics_port": start.port + 2,
            "host": "127.0.0.1",
            "parallel_workers": 0 if start.workers == 1 else start.workers,
            "debug": False,
            "metrics_endpoint": None,
        }
        model = {
            "name": "forest",
            "implementation": implementation,
            "parameters": {"uri": str(start.case.file(suffix))},
        }
        folder = start.directory / "forest"
        folder.mkdir()
        (start.directory / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        own = {"MLSERVER_LOGGING_SETTINGS": "", "OMP_NUM_THREADS": "1"}
        program = start.python.with_name("mlserver")
        return Command([str(start.python), str(program), "start", str(start.directory)], own)

    return command


def _tensor(number: int, row: list[float]) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": row}
    return {"id": f"tx-{number}", "inputs": [tensor]}


def _probability(number: int, row: list[float]) -> dict[str, Any]:
    return {**_tensor(number, row), "outputs": [{"name": "predict_proba"}]}


def _inference(body: Callable[[int, list[float]], Any]) -> Http:
    """Return how MLServer is asked; the last number of its first output is the score."""
    return Http(
        "/v2/models/forest/infer",
        as_json(body),
        lambda answer: float(json.loads(answer)["outputs"][0]["data"][-1]),
    )


def _of_mlserver(implementation: str, suffix: str, body: Callable[[int, list[float]], Any]) -> Peer:
    learned = f"scikit-learn=={version('scikit-learn')}"
    return Peer(
        "mlserver",
        ("mlserver", "mlserver_sklearn", "mlserver_lightgbm"),
        ("mlserver", "mlserver-sklearn", "mlserver-lightgbm", "lightgbm", learned),
        suffix,
        _mlserver(implementation, suffix),
        _inference(body),
    )


def _peers() -> Mapping[str, Peer]:
    fast = {
        f"FastAPI + {title}": Peer(
            "fastapi",
            ("fastapi", *_FAST, module),
            (),
            suffix,
            _fastapi(engine),
        )
        for title, engine, module, suffix in (
            ("scikit-learn", "scikit-learn", "sklearn", ".joblib"),
            ("LightGBM", "lightgbm", "lightgbm", ".txt"),
            ("ONNX Runtime", "onnxruntime", "onnxruntime", ".onnx"),
        )
    }
    return {
        **fast,
        "MLServer + scikit-learn": _of_mlserver("mlserver_sklearn.SKLearnModel", ".joblib", _probability),
        "MLServer + LightGBM": _of_mlserver("mlserver_lightgbm.LightGBMModel", ".txt", _tensor),
        "BentoML + LightGBM": Peer(
            "bentoml",
            ("bentoml", "lightgbm"),
            ("bentoml", "lightgbm", "uvloop", "httptools"),
            ".txt",
            _bento,
            speech=replace(
                PLAIN, body=as_json(lambda number, row: {"transaction": transaction(number, row)})
            ),
        ),
        "Ray Serve + LightGBM": Peer(
            "ray",
            ("ray", "lightgbm"),
            ("ray[serve]", "lightgbm", "uvloop", "httptools", "orjson"),
            ".txt",
            _ray,
        ),
    }


#: Each peer by its name in the table.
PEERS = _peers()
