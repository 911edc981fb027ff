"""Rollouts under load: from a promotion to the last of eight nodes, and what a swap costs the transactions.

    python -m benchmarks.rollout [--json] [--big] [--rounds 5] [--rate 100]

Four preprocessor and four scorer nodes, each a process, serve transactions that arrive at a steady rate,
whatever the answers take. Each round promotes a model that no node holds, so that all must fetch, verify,
map, warm and check it, and leads back again. Then the nodes are led back to each earlier release that they
keep loaded, the oldest first (`return`), and to one that they do not (`return_unkept`). `--big`:
the forest of benchmarks/forest.py (250 trees, 25 million nodes) instead of a small one. Times are the
database's; `answers_ms` is what callers see: from the call to the last transaction that is answered by the
release before. The machine is shared by the nodes, the database and the load.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from actors.config import Settings, load_settings
from actors.host import Host
from benchmarks.cases import FEATURES, FULL, prepare
from examples.operations import register_file, wait_for_nodes
from governance.changes import rollback
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.promotion import promote
from governance.rollouts import wait_settled, wait_taken_up
from models.bundle import open_bundle
from models.importers import import_model
from transport.client import AsyncClient

#: How many earlier releases nodes keep loaded.
KEPT = 3
PREPROCESSORS = SCORERS = 4
ENVIRONMENT = "bench"
#: Seconds of load between two changes.
PAUSE_S = 2.0
_PREPARE_S = 120.0


@dataclass(frozen=True)
class Change:
    """A promotion or a rollback.

    Attributes:
        kind: `promotion`, `rollback` to the release before, `return` to an earlier one that is kept
            loaded, or `return_unkept`.
        began: when it was called (time.perf_counter seconds).
        ended: when the last node had acted on it.
        release: the release that it led to.
        prepared_ms: from the call until all nodes were ready, and the release current.
        nodes_ms: until the last node acted on it.
    """

    kind: str
    began: float
    ended: float
    release: int
    prepared_ms: float
    nodes_ms: float


@dataclass
class Load:
    """Transactions at a steady rate: when each was due, what it took, and the release of its answer."""

    client: AsyncClient
    rate: float
    due: list[float] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    release: list[int] = field(default_factory=list)
    failed: int = 0

    async def run(self, over: asyncio.Event) -> None:
        """Send until it is over; wait for all answers."""
        began, number = time.perf_counter(), 0
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                due = began + number / self.rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                group.create_task(self._one(number, due))
                number += 1

    async def _one(self, number: int, due: float) -> None:
        values = np.random.default_rng(number).standard_normal(FEATURES)
        transaction = {"id": str(number), **{f"f{place}": float(one) for place, one in enumerate(values)}}
        try:
            answer = await self.client.score(transaction)
        except Exception:  # noqa: BLE001 - whatever it is, it is counted
            self.failed += 1
            return
        self.due.append(due)
        self.taken.append(time.perf_counter() - due)
        self.release.append(answer.trace.release)


def spec_file(directory: Path) -> Path:
    """Write a feature spec that hands on as many numbers as the big forest takes."""
    parts = ['name = "numbers"\nversion = 1\nid = "id"\n']
    parts += [f'[fields.f{place}]\ntype = "number"\n' for place in range(FEATURES)]
    parts += [
        f'[[features]]\nname = "f{place}"\nkind = "numeric"\nfield = "f{place}"\n'
        for place in range(FEATURES)
    ]
    path = directory / "numbers.toml"
    path.write_text("".join(parts), encoding="utf-8")
    return path


def bundles(directory: Path, count: int, *, big: bool) -> list[Path]:
    """Write models that differ: small ones, or the big one with other times of import in its provenance."""
    found = [directory / f"model-{number}.bundle" for number in range(count)]
    if big:
        prepare(FULL, ".bundle")
        data = FULL.file(".bundle").read_bytes()
        for number, path in enumerate(found):
            path.write_bytes(_IMPORTED_AT.sub(b"\\g<1>%02d" % (10 + number), data, count=1))
        return found
    names = [f"f{place}" for place in range(FEATURES)]
    for number, path in enumerate(found):
        x = np.random.default_rng(number).standard_normal((5_000, FEATURES)).astype(np.float32)
        forest = RandomForestClassifier(50, n_jobs=-1, random_state=number).fit(x, x[:, 0] > 0)
        import_model(forest, path, feature_names=names)
    return found


#: The time of a bundle's import up to its seconds, as its header has it.
_IMPORTED_AT = re.compile(rb'(imported_at\\":\\"[0-9-]+T[0-9]+:[0-9]+:)[0-9]{2}')


def serve(stack: ExitStack, directory: Path) -> tuple[Settings, list[str]]:
    """Start PostgreSQL and the nodes; return where the preprocessors are."""
    postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
    migrate(postgres.dsn)
    file = directory / "scorewire.toml"
    file.write_text(
        f'environment = "{ENVIRONMENT}"\ndsn = "{postgres.dsn}"\n'
        f'cache = "{directory}/cache"\nlogs = "{directory}/logs"\nkeep_releases = {KEPT}\n'
        f"[preprocessor]\nport = 0\nnodes = {PREPROCESSORS}\n[scorer]\nactors = 1\nnodes = {SCORERS}\n",
        encoding="utf-8",
    )
    settings = load_settings(file)
    stack.enter_context(Host(settings, file))
    return settings, wait_for_nodes(settings)


def change(settings: Settings, digest: str = "", *, kind: str, to: int | None = None) -> Change:
    """Promote a model, or lead back to a release, and wait until the last node acts on it."""
    with connect(settings.dsn) as connection:
        began = time.perf_counter()
        if kind != "promotion":
            opened = rollback(connection, ENVIRONMENT, by="benchmark", reason="benchmark", to=to)
        else:
            stages = {"model": digest}
            opened = promote(
                connection, environment=ENVIRONMENT, stages=stages, by="benchmark", prepare_s=_PREPARE_S
            )
        settled = wait_settled(connection, opened.id, timeout_s=_PREPARE_S)
        nodes_ms = wait_taken_up(connection, settled, timeout_s=_PREPARE_S)
        if nodes_ms is None or settled.finished_at is None:
            raise RuntimeError(f"release {settled.release.number} is {settled.state}: {settled.reason}")
    prepared_ms = (settled.finished_at - settled.started_at).total_seconds() * 1e3
    return Change(kind, began, time.perf_counter(), settled.release.number, prepared_ms, nodes_ms)


def plan(settings: Settings, digests: list[str]) -> list[Callable[[], Change]]:
    """Return the changes in their order: of models of which the first is current, each is promoted once."""
    found: list[Callable[[], Change]] = []
    for digest in digests[1:]:
        found.append(partial(change, settings, digest, kind="promotion"))
        found.append(partial(change, settings, kind="rollback"))
    # The releases in the order in which they were left, the last one first.
    left = list(range(len(digests), 1, -1))
    found += [partial(change, settings, kind="return", to=number) for number in left[:KEPT][::-1]]
    return [*found, partial(change, settings, kind="return_unkept", to=left[-1])]


async def measure(
    settings: Settings, addresses: list[str], digests: list[str], rate: float
) -> tuple[list[Change], Load]:
    """Promote and lead back in turn while the load runs."""
    over, changes = asyncio.Event(), []
    async with AsyncClient(addresses, deadline=10.0) as client:
        load = Load(client, rate)
        running = asyncio.create_task(load.run(over))
        try:
            await asyncio.sleep(PAUSE_S)
            for call in plan(settings, digests):
                changes.append(await asyncio.to_thread(call))
                await asyncio.sleep(PAUSE_S)
        finally:
            over.set()
            await running
    return changes, load


def report(changes: list[Change], load: Load) -> dict[str, Any]:
    """Put the figures together: medians with the least and the most, percentiles of the transactions."""
    due, taken = np.array(load.due), np.array(load.taken) * 1e3
    inside = np.zeros(len(due), bool)
    for one in changes:
        inside |= (due >= one.began) & (due <= one.ended)
    found: dict[str, Any] = {}
    for kind in dict.fromkeys(one.kind for one in changes):
        mine = [one for one in changes if one.kind == kind]
        found[kind] = {
            "rounds": len(mine),
            "current_ms": _spread([one.prepared_ms for one in mine]),
            "nodes_ms": _spread([one.nodes_ms for one in mine]),
            "answers_ms": _spread([_last_old_answer_ms(one, load) for one in mine]),
        }
    for name, chosen in (("inside_changes", inside), ("outside", ~inside)):
        found[name] = {
            "transactions": int(chosen.sum()),
            **{f"p{share:g}_ms": round(float(np.percentile(taken[chosen], share)), 3) for share in (50, 99)},
        }
    return {**found, "failed": load.failed}


def _last_old_answer_ms(one: Change, load: Load) -> float:
    """Return when the last transaction arrived that was answered by another release than the new one."""
    late = [
        due
        for due, release in zip(load.due, load.release, strict=True)
        if one.began <= due <= one.ended + 1.0 and release != one.release
    ]
    return (max(late) - one.began) * 1e3 if late else 0.0


def _spread(values: list[float]) -> dict[str, float]:
    least, middle, most = (round(float(one), 1) for one in np.percentile(values, (0, 50, 100)))
    return {"median": middle, "least": least, "most": most}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--big", action="store_true", help="the forest of 250 deep trees")
    parser.add_argument(
        "--rounds", type=int, default=5, help="a promotion and a rollback each; at least four"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="transactions a second")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorewire-bench-")))
        paths = bundles(directory, max(KEPT + 1, arguments.rounds) + 1, big=arguments.big)
        meta = open_bundle(paths[0]).meta
        settings, addresses = serve(stack, directory)
        register_file(settings, spec_file(directory), "feature_spec", "numbers")
        digests = [register_file(settings, path, "bundle", path.stem) for path in paths]
        with connect(settings.dsn) as connection:
            stages = {"features": "numbers", "model": digests[0]}
            opened = promote(
                connection, environment=ENVIRONMENT, stages=stages, by="benchmark", prepare_s=_PREPARE_S
            )
            wait_taken_up(connection, wait_settled(connection, opened.id), timeout_s=_PREPARE_S)
        measured = measure(settings, addresses, digests, arguments.rate)
        changes, load = asyncio.run(measured)
    figures = {
        "model": f"{meta.n_trees} trees, {meta.n_nodes} nodes",
        "nodes": PREPROCESSORS + SCORERS,
        "rate": arguments.rate,
        **report(changes, load),
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>16}  {value}")


if __name__ == "__main__":
    main()
