"""Scorewire as a service of the table, asked in three ways; a node of each role on each of its cores."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from actors.config import Settings, load_settings
from actors.host import Host
from benchmarks.cases import FEATURES, Case
from benchmarks.service.processes import Processes, marked
from benchmarks.service.speech import Http, Speech, Wire, as_json
from benchmarks.service.transactions import spec_text, transaction
from examples.operations import promote_and_wait, register_file, wait_for_nodes
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import members

#: A file system in memory: there a host has one copy of a bundle, in huge pages.
_MEMORY: Final = Path("/dev/shm")
_INPUT: Final = {"name": "features", "shape": [1, FEATURES], "datatype": "FP32"}
#: What stands before the numbers in a binary request of the Open Inference Protocol.
_TENSOR: Final = json.dumps(
    {
        "inputs": [{**_INPUT, "parameters": {"binary_data_size": 4 * FEATURES}}],
        "outputs": [{"name": "predict_proba", "parameters": {"binary_data": True}}],
    },
    separators=(",", ":"),
).encode()
#: Each way to ask by its name in the table.
OURS: Final[dict[str, Speech]] = {
    "Scorewire, ZeroMQ": Wire(),
    "Scorewire, HTTP JSON": Http(
        "/v1/score",
        as_json(lambda number, row: {"transaction": transaction(number, row)}),
        lambda answer: float(list(json.loads(answer)["scores"].values())[-1]),
    ),
    "Scorewire, OIP binary": Http(
        "/v2/models/champion/infer",
        lambda _, row: _TENSOR + np.array(row, "<f4").tobytes(),
        # The probabilities stand at the end, behind what is said of them.
        lambda answer: float(np.frombuffer(answer[-8:], "<f8")[0]),
        f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {len(_TENSOR)}\r\n",
    ),
}


def serve_ours(
    stack: ExitStack, service: str, case: Case, directory: Path, cores: set[int]
) -> tuple[list[str], Processes]:
    """Start PostgreSQL on all cores and a node of each role for each core that serves; promote the bundle.

    There are gateways where the service is asked over HTTP.

    Returns:
        the addresses, and the processes of the nodes. PostgreSQL is none of them: no answer waits for it.
    """
    gateways = 0 if isinstance(OURS[service], Wire) else len(cores)
    memory = str(_MEMORY) if _MEMORY.is_dir() else None
    cache = stack.enter_context(tempfile.TemporaryDirectory(dir=memory, prefix="scorewire-service-"))
    # As root PostgreSQL runs as another user, who must be able to enter.
    directory.chmod(0o755)
    postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
    migrate(postgres.dsn)
    file = directory / "scorewire.toml"
    file.write_text(
        f'environment = "bench"\ndsn = "{postgres.dsn}"\ncache = "{cache}"\nlogs = "{directory}/logs"\n'
        f"[preprocessor]\nport = 0\nnodes = {len(cores)}\n"
        f"[scorer]\nactors = 1\nnodes = {len(cores)}\npages = 'huge'\n"
        f"[gateway]\nport = 0\nnodes = {gateways}\n",
        encoding="utf-8",
    )
    (directory / "numbers.toml").write_text(spec_text(), encoding="utf-8")
    settings = load_settings(file)
    with marked(cores) as processes:
        stack.callback(processes.end)
        stack.enter_context(Host(settings, file))
        addresses = wait_for_nodes(settings)
    stages = {
        "features": register_file(settings, directory / "numbers.toml", "feature_spec", "numbers"),
        "model": register_file(settings, case.file(".bundle"), "bundle", "forest"),
    }
    promote_and_wait(settings, stages)
    return _gateways(settings) if gateways else addresses, processes


def _gateways(settings: Settings) -> list[str]:
    with connect(settings.dsn) as connection:
        found = [one for one in members(connection, settings.environment) if one.role == "gateway"]
    return [endpoint.removeprefix("http://") for one in found for endpoint in one.endpoints]
