"""What the tee costs an answer, and how many answers a sink stores.

    python -m benchmarks.tee [--json] [--seconds 40] [--rate 300] [--records 30000] [--apart]

Two preprocessors with the same scorer, one with a tee and one without, are asked in turn, in short blocks:
with, without, without, with. Open loop: a payment is sent when it is due, whatever became of the others, and
they are due as in a Poisson process: at even distances they would always, or never, meet what is done on a
beat. Each percentile is told with its ratio, with to without, and an interval of 95 % from resampled pairs of
blocks. Kafka's stand-in runs on the same cores, niced, since it would run elsewhere; with `--apart` it and
the tee have the last core, and all else the others, which leaves what a tee costs where cores are free.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sklearn.ensemble import RandomForestClassifier

from actors.config import Settings, SinkSettings, load_settings
from actors.host import Host
from examples.card_payments import PAYMENT_SPEC, simulate, stream
from examples.operations import promote_and_wait, register_file, wait_for_nodes
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import members
from governance.streams import stream_nodes
from models.importers import import_model
from models.spec import load_spec
from shadow.broker import EmbeddedBroker
from shadow.kafka import producer, topic
from shadow.record import LiveRecord
from shadow.sink import SinkNode
from transport.client import AsyncClient

ROOT = Path(__file__).parents[1]
BLOCK_S = 0.5
PAUSE_S = 0.1
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
RESAMPLES = 2_000
SETTLED_S = 15.0


def keep_apart(settings: Settings, broker: EmbeddedBroker) -> None:
    """Give the last core to the tee and the broker alone; what starts later has that of its starter."""
    cores = os.sched_getaffinity(0)
    last = {max(cores)}
    with connect(settings.dsn) as connection:
        while not (tees := stream_nodes(connection, settings.environment)):
            time.sleep(0.1)
    apart = {broker.pid, *(tee.pid for tee in tees)}
    for process in (one for one in psutil.process_iter() if one.pid in apart or _is_ours(one)):
        for thread in process.threads():
            os.sched_setaffinity(thread.id, last if process.pid in apart else cores - last)


def _is_ours(process: psutil.Process) -> bool:
    return process.pid == os.getpid() or any(one.pid == os.getpid() for one in process.parents())


def _stand_back(pid: int) -> None:
    """Nice all threads of a process, and its session where the kernel shares cores among sessions first."""
    for thread in psutil.Process(pid).threads():
        os.setpriority(os.PRIO_PROCESS, thread.id, 10)
    session = Path(f"/proc/{pid}/autogroup")
    if session.exists():
        session.write_text("10", encoding="ascii")


def serve(stack: ExitStack, *, apart: bool) -> tuple[Settings, str, str]:
    """Start it all; return the settings, and the preprocessors with and without a tee."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorewire-bench-")))
    postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
    broker = stack.enter_context(EmbeddedBroker(directory / "broker"))
    _stand_back(broker.pid)
    migrate(postgres.dsn)
    common = f'environment = "bench"\ndsn = "{postgres.dsn}"\n'
    common += f'cache = "{directory}/cache"\nlogs = "{directory}/logs"\n'
    nodes = (
        "[preprocessor]\nport = 0\nnodes = 1\n[scorer]\nactors = 1\nnodes = {scorers}\n[sink]\nnodes = 0\n"
    )
    kafka = f'[kafka]\nbootstrap_servers = "{broker.bootstrap_servers}"\nreplication = 1\npartitions = 4\n'
    kafka += 'options = { "session.timeout.ms" = "6000" }\n'
    with_tee, without = directory / "with.toml", directory / "without.toml"
    with_tee.write_text(common + nodes.format(scorers=1) + kafka, encoding="utf-8")
    without.write_text(common + nodes.format(scorers=0), encoding="utf-8")
    settings = load_settings(with_tee)
    stack.enter_context(Host(settings, with_tee))
    (teed,) = wait_for_nodes(settings)
    log = stack.enter_context((directory / "without.log").open("wb"))
    command = [sys.executable, str(ROOT / "run.py"), "node", "preprocessor", f"--config={without}"]
    child = subprocess.Popen(command, stdout=log, stderr=log)
    stack.callback(child.wait)
    stack.callback(child.terminate)
    plain = _other(settings, teed)
    spec = load_spec(PAYMENT_SPEC)
    payments, labels = simulate(n=5_000, seed=7)
    forest = RandomForestClassifier(50, random_state=1).fit(spec.matrix(payments), labels)
    bundle = import_model(forest, directory / "forest.bundle", feature_names=list(spec.feature_names))
    stages = {
        "features": register_file(settings, PAYMENT_SPEC, "feature_spec", "card-payments"),
        "model": register_file(settings, bundle.path, "bundle", "forest"),
    }
    promote_and_wait(settings, stages)
    if apart:
        keep_apart(settings, broker)
    return settings, teed, plain


def _other(settings: Settings, teed: str) -> str:
    with connect(settings.dsn) as connection:
        while True:
            nodes = members(connection, settings.environment)
            found = [e for n in nodes if n.role == "preprocessor" for e in n.endpoints if e != teed]
            if found:
                return found[0]
            time.sleep(0.1)


async def block(client: AsyncClient, payments: list[dict[str, Any]], rate: int, seed: int) -> list[float]:
    """Send payments at a rate; return the ms that each took."""
    taken: list[float] = []
    under_way = set()
    start = time.perf_counter()

    async def one(payment: dict[str, Any]) -> None:
        began = time.perf_counter()
        await client.score(payment)
        taken.append((time.perf_counter() - began) * 1e3)

    dues = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, len(payments)))
    for due, payment in zip(dues.tolist(), payments, strict=True):
        await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
        task = asyncio.create_task(one(payment))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    await asyncio.sleep(PAUSE_S)
    return taken


async def measure(teed: str, plain: str, seconds: float, rate: int) -> dict[bool, list[list[float]]]:
    """Return the blocks with (True) and without (False) a tee."""
    found: dict[bool, list[list[float]]] = {True: [], False: []}
    feed = stream(seed=5)
    async with AsyncClient([teed], deadline=5.0) as first, AsyncClient([plain], deadline=5.0) as second:
        clients = {True: first, False: second}
        for client in clients.values():
            await block(client, list(islice(feed, rate)), rate, 0)
        for number in range(max(4, round(seconds / (BLOCK_S + PAUSE_S)) // 4 * 4)):
            which = number % 4 in (0, 3)
            payments = list(islice(feed, round(rate * BLOCK_S)))
            found[which].append(await block(clients[which], payments, rate, number // 2))
    return found


def ratios(found: dict[bool, list[list[float]]]) -> dict[str, Any]:
    """Return each percentile with and without a tee, their ratio, and its interval."""
    random = np.random.default_rng(0)
    count = len(found[True])
    picks = random.integers(0, count, (RESAMPLES, count))
    facts: dict[str, Any] = {}
    for name, q in QUANTILES.items():
        whole = {which: float(np.quantile(np.concatenate(found[which]), q)) for which in found}
        seen = [
            np.quantile(np.concatenate([found[True][i] for i in pick]), q)
            / np.quantile(np.concatenate([found[False][i] for i in pick]), q)
            for pick in picks
        ]
        low, high = np.quantile(seen, (0.025, 0.975))
        facts[name] = {
            "with_ms": round(whole[True], 3),
            "without_ms": round(whole[False], 3),
            "ratio": round(whole[True] / whole[False], 3),
            "interval": [round(float(low), 3), round(float(high), 3)],
        }
    return facts


def _settled(settings: Settings) -> dict[str, float]:
    """Return what the tee has counted, once it says that it has delivered all."""
    give_up_at = time.monotonic() + SETTLED_S
    with connect(settings.dsn) as connection:
        while True:
            (tee,) = stream_nodes(connection, settings.environment)
            counted = {name: value for name, value in tee.counters.items() if value}
            told = {counted.get(f"preprocessors_{name}", -1) for name in ("offered", "acknowledged")}
            if told == {counted.get("delivered", 0)} or time.monotonic() > give_up_at:
                return counted
            time.sleep(0.2)


def sink_rate(settings: Settings, count: int) -> dict[str, Any]:
    """Return how many records a second one sink stores, of a topic that holds them already."""
    assert settings.kafka is not None
    spec = load_spec(PAYMENT_SPEC)
    sender, name = producer(settings.kafka), topic(settings.kafka, settings.environment, "live")
    for number, payment in enumerate(islice(stream(seed=9), count)):
        record = LiveRecord(
            id=f"sink-{number}",
            node="bench",
            seq=number,
            at=time.time(),
            release=1,
            environment=settings.environment,
            pipeline={"features": "0" * 64, "model": "1" * 64},
            transaction=payment,
            nodes={"preprocessor": "p", "scorer": "s"},
            features={"features": bytes(4 * spec.n_features)},
            scores={"0": 0.25, "1": 0.75},
            us={"features": 90, "scorer": 300, "kernel": 20, "decision": 10, "total": 420},
        )
        while True:
            try:
                sender.produce(name, key=record.id.encode(), value=record.pack())
                break
            except BufferError:
                sender.poll(0.05)
    sender.flush(60)
    batch = SinkSettings(batch=min(settings.sink.batch, max(1, count // 10)))
    node = SinkNode(settings.model_copy(update={"sink": batch}), 0)
    thread = threading.Thread(target=node.run)
    thread.start()
    marks: list[tuple[float, float]] = []
    while not marks or marks[-1][1] < count:
        stored = node.counters()["stored"]
        if stored and (not marks or stored != marks[-1][1]):
            marks.append((time.perf_counter(), stored))
        time.sleep(0.005)
    node.stop()
    thread.join()
    (first, before), (last, after) = marks[0], marks[-1]
    return {"records": count, "a_second": round((after - before) / (last - first))}


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=40.0, help="seconds for each rate")
    parser.add_argument("--rate", type=int, action="append", help="payments a second; may be repeated")
    parser.add_argument("--records", type=int, default=30_000, help="records for the sink; 0 for none")
    parser.add_argument("--apart", action="store_true", help="the last core for the tee and the broker alone")
    arguments = parser.parse_args()
    facts: dict[str, Any] = {"apart": arguments.apart, "rates": {}}
    with ExitStack() as stack:
        settings, teed, plain = serve(stack, apart=arguments.apart)
        for rate in arguments.rate or [300]:
            found = asyncio.run(measure(teed, plain, arguments.seconds, rate))
            facts["rates"][rate] = ratios(found)
        facts["tee"] = _settled(settings)
        if arguments.records:
            facts["sink"] = sink_rate(settings, arguments.records)
    if arguments.json:
        print(json.dumps(facts))
        return
    for rate, row in facts["rates"].items():
        print(f"{rate} payments a second:")
        for name, one in row.items():
            low, high = one["interval"]
            told = f"with {one['with_ms']} ms, without {one['without_ms']} ms, ratio {one['ratio']}"
            print(f"  {name}: {told} ({low} to {high})")
    if "sink" in facts:
        print(f"the sink stores {facts['sink']['a_second']} records a second")


if __name__ == "__main__":
    main()
