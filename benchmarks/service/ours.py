"""Scorewire as a service of the table: nodes on their cores, the case's bundle promoted."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from actors.config import load_settings
from actors.host import Host
from benchmarks.cases import Case
from benchmarks.service.processes import Processes, marked
from benchmarks.service.speech import Speech, Wire
from benchmarks.service.transactions import spec_text
from examples.operations import promote_and_wait, register_file, wait_for_nodes
from governance.database import migrate
from governance.embedded import EmbeddedPostgres

#: A file system in memory: there a host has one copy of a bundle, in huge pages.
_MEMORY: Final = Path("/dev/shm")
#: Each way to ask by its name in the table.
OURS: Final[dict[str, Speech]] = {"Scorewire, ZeroMQ": Wire()}


def serve_ours(
    stack: ExitStack, service: str, case: Case, directory: Path, cores: set[int]
) -> tuple[list[str], Processes]:
    """Start PostgreSQL on all cores and a node of each role for each core that serves; promote the bundle.

    Returns:
        the addresses, and the processes of the nodes. PostgreSQL is none of them: no answer waits for it.
    """
    del service
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
        f"[scorer]\nactors = 1\nnodes = {len(cores)}\npages = 'huge'\n",
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
    return addresses, processes
