"""What the tee costs an answer, and how many answers a sink stores.

    python -m benchmarks.tee [--json] [--seconds 40] [--rate 300] [--starts 1] [--records 30000]
        [--two] [--apart | --same]

A preprocessor with a tee is asked in short blocks: with, without, without, with. Those without are replays,
which go the same way and are not copied. With `--two` they are payments to a second preprocessor that has no
tee; two processes of the same program differ by some percent for as long as they live, so that needs many
`--starts`, each of the two first in turn.

Open loop: a payment is sent when it is due, whatever became of the others, and they are due as in a Poisson
process: at even distances they would always, or never, meet what is done on a beat. The tee works behind the
answers: a block begins with payments that are not measured, so that it has as much to do in the first
measured moment as in the last, and it is done before the next block is measured.

Each percentile is told with its ratio, with to without, and an interval of 95 % from resampled starts, and
pairs of blocks in them; and the processor time that each process took for a payment. Kafka's stand-in runs
on the same cores, niced, since it would run elsewhere; with `--apart` it and the tee have the last core, and
all else the others, which leaves what a tee costs where cores are free. With `--same` there is no tee at
either: how far from 1 the ratios are then is what the measurement itself does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from shadow.reporting import PERIOD_S
from shadow.sink import SinkNode
from transport.client import AsyncClient

#: Seconds of a block that are measured, and before them and after them: the tee looks four times a second.
BLOCK_S, LEAD_S, PAUSE_S = 1.0, 0.4, 0.4
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


@dataclass(frozen=True)
class Served:
    """What runs.

    Attributes:
        settings: of the host with the tee.
        teed: where the preprocessor with a tee listens.
        plain: where the one without does.
        pids: what each process is, to the process.
    """

    settings: Settings
    teed: str
    plain: str
    pids: dict[str, int]

    def cpu_s(self) -> dict[str, float]:
        """Return the seconds of processor time that each process has taken, all of its threads together."""
        found = {name: psutil.Process(pid).cpu_times() for name, pid in self.pids.items()}
        return {name: times.user + times.system for name, times in found.items()}


def serve(stack: ExitStack, *, apart: bool, same: bool, plain_first: bool) -> Served:
    """Start it all: two preprocessors, with and without a tee, one scorer, and what they need."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scorewire-bench-")))
    postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
    broker = stack.enter_context(EmbeddedBroker(directory / "broker"))
    _stand_back(broker.pid)
    migrate(postgres.dsn)
    common = f'environment = "bench"\ndsn = "{postgres.dsn}"\n'
    common += f'cache = "{directory}/cache"\n'
    nodes = (
        f'logs = "{directory}/logs-{{}}"\n'
        "[preprocessor]\nport = 0\nnodes = 1\n[scorer]\nactors = 1\nnodes = {scorers}\n[sink]\nnodes = 0\n"
    )
    kafka = f'[kafka]\nbootstrap_servers = "{broker.bootstrap_servers}"\nreplication = 1\npartitions = 4\n'
    kafka += 'options = { "session.timeout.ms" = "6000" }\n'
    files = {True: directory / "with.toml", False: directory / "without.toml"}
    files[True].write_text(
        common + nodes.format("with", scorers=1) + ("" if same else kafka), encoding="utf-8"
    )
    files[False].write_text(common + nodes.format("without", scorers=0), encoding="utf-8")
    settings = load_settings(files[True])
    hosts: dict[bool, Host] = {}
    ends: dict[bool, str] = {}
    for which in (False, True) if plain_first else (True, False):
        hosts[which] = stack.enter_context(Host(load_settings(files[which]), files[which]))
        ends[which] = _next(settings, set(ends.values()))
    wait_for_nodes(settings)
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
    pids = {name.rpartition("-")[0]: pid for name, pid in hosts[True].pids().items()}
    pids |= {f"{name.rpartition('-')[0]} without": pid for name, pid in hosts[False].pids().items()}
    return Served(settings, ends[True], ends[False], pids | {"broker": broker.pid, "caller": os.getpid()})


def _next(settings: Settings, known: set[str]) -> str:
    """Return where a preprocessor listens that is not known yet, once there is one."""
    with connect(settings.dsn) as connection:
        while True:
            nodes = members(connection, settings.environment)
            found = {end for node in nodes if node.role == "preprocessor" for end in node.endpoints} - known
            if found:
                return found.pop()
            time.sleep(0.1)


async def block(
    client: AsyncClient, feed: Iterator[dict[str, Any]], rate: int, seed: int, *, replay: bool = False
) -> list[float]:
    """Send payments at a rate; return the ms that each took of those that are measured."""
    taken: list[float] = []
    under_way = set()
    due = start = time.perf_counter()
    distances = np.random.default_rng(seed).exponential(1 / rate, round(4 * rate * (LEAD_S + BLOCK_S)) + 99)

    async def one(payment: dict[str, Any], *, measured: bool) -> None:
        began = time.perf_counter()
        await client.score(payment, replay=replay)
        if measured:
            taken.append((time.perf_counter() - began) * 1e3)

    for distance in distances.tolist():
        due += distance
        if due > start + LEAD_S + BLOCK_S:
            break
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(next(feed), measured=due > start + LEAD_S))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await asyncio.gather(*under_way)
    await asyncio.sleep(PAUSE_S)
    return taken


@dataclass
class Side:
    """What was measured of one of the two.

    Attributes:
        blocks: the ms that each payment took, block by block.
        cpu_s: of each process, in its blocks.
        answers: how many there were, measured or not.
    """

    blocks: list[list[float]] = field(default_factory=list)
    cpu_s: Counter[str] = field(default_factory=Counter)
    answers: int = 0


Sides = dict[bool, Side]


async def measure(served: Served, seconds: float, rate: int, *, two: bool) -> Sides:
    """Return what was measured with (True) and without (False) a tee."""
    found = {True: Side(), False: Side()}
    feed = stream(seed=5)
    whole_s = LEAD_S + BLOCK_S + PAUSE_S
    async with (
        AsyncClient([served.teed], deadline=5.0) as first,
        AsyncClient([served.plain], deadline=5.0) as second,
    ):
        for client in (first, second):
            await block(client, feed, rate, 0)
        for number in range(max(4, round(seconds / whole_s) // 4 * 4)):
            which = number % 4 in (0, 3)
            side, client = found[which], second if two and not which else first
            before = served.cpu_s()
            taken = await block(client, feed, rate, number // 2, replay=not (which or two))
            side.blocks.append(taken)
            side.answers += round(len(taken) * (LEAD_S + BLOCK_S) / BLOCK_S)
            side.cpu_s.update({name: now - before[name] for name, now in served.cpu_s().items()})
    return found


def ratios(starts: list[Sides]) -> dict[str, Any]:
    """Return each percentile with and without a tee, their ratio, and its interval."""
    random = np.random.default_rng(0)
    # Starts, and pairs of blocks in each, are drawn anew.
    drawn = [
        [(starts[i], random.integers(0, (n := len(starts[i][True].blocks)), n)) for i in chosen]
        for chosen in random.integers(0, len(starts), (RESAMPLES, len(starts)))
    ]
    facts: dict[str, Any] = {}
    for name, q in QUANTILES.items():
        whole = {
            which: float(
                np.quantile(np.concatenate([block for one in starts for block in one[which].blocks]), q)
            )
            for which in (True, False)
        }
        seen = [_of(draw, q, which=True) / _of(draw, q, which=False) for draw in drawn]
        low, high = np.quantile(seen, (0.025, 0.975))
        facts[name] = {
            "with_ms": round(whole[True], 3),
            "without_ms": round(whole[False], 3),
            "ratio": round(whole[True] / whole[False], 3),
            "interval": [round(float(low), 3), round(float(high), 3)],
        }
    return facts


def _of(draw: list[tuple[Sides, Any]], q: float, *, which: bool) -> float:
    blocks = [sides[which].blocks[place] for sides, places in draw for place in places]
    return float(np.quantile(np.concatenate(blocks), q))


def costs(starts: list[Sides]) -> dict[str, dict[str, int]]:
    """Return the us of processor time that each process took for a payment, with and without a tee."""
    return {
        name: {
            word: round(
                sum(one[which].cpu_s[name] for one in starts)
                / sum(one[which].answers for one in starts)
                * 1e6
            )
            for which, word in ((True, "with"), (False, "without"))
        }
        for name in starts[0][True].cpu_s
    }


def _settled(settings: Settings) -> dict[str, float]:
    """Return what the tee has counted, once it says that it has delivered all."""
    time.sleep(PERIOD_S + 1.0)  # what it says may be so old
    give_up_at = time.monotonic() + SETTLED_S
    with connect(settings.dsn) as connection:
        while True:
            (tee,) = stream_nodes(connection, settings.environment)
            counted = {name: value for name, value in tee.counters.items() if value}
            told = {counted.get(f"preprocessors_{name}", -1) for name in ("offered", "acknowledged")}
            told.add(counted.get("taken", -1))
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
    parser.add_argument(
        "--starts", type=int, default=1, help="how often all is started, for equal parts of it"
    )
    parser.add_argument("--records", type=int, default=30_000, help="records for the sink; 0 for none")
    parser.add_argument("--two", action="store_true", help="without is a second preprocessor that has no tee")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--apart", action="store_true", help="the last core for the tee and the broker alone")
    how.add_argument("--same", action="store_true", help="no tee at either, to see what is measured then")
    arguments = parser.parse_args()
    facts: dict[str, Any] = {
        "apart": arguments.apart,
        "same": arguments.same,
        "two": arguments.two,
        "rates": {},
        "cpu_us": {},
    }
    found: dict[int, list[Sides]] = {rate: [] for rate in arguments.rate or [300]}
    for start in range(arguments.starts):
        with ExitStack() as stack:
            served = serve(stack, apart=arguments.apart, same=arguments.same, plain_first=start % 2 == 1)
            for rate, starts in found.items():
                starts.append(
                    asyncio.run(
                        measure(served, arguments.seconds / arguments.starts, rate, two=arguments.two)
                    )
                )
            if start == arguments.starts - 1 and not arguments.same:
                facts["tee"] = _settled(served.settings)
                if arguments.records:
                    facts["sink"] = sink_rate(served.settings, arguments.records)
    for rate, starts in found.items():
        facts["rates"][rate], facts["cpu_us"][rate] = ratios(starts), costs(starts)
    if arguments.json:
        print(json.dumps(facts))
        return
    for rate, row in facts["rates"].items():
        print(f"{rate} payments a second:")
        for name, one in row.items():
            low, high = one["interval"]
            told = f"with {one['with_ms']} ms, without {one['without_ms']} ms, ratio {one['ratio']}"
            print(f"  {name}: {told} ({low} to {high})")
        for name, cost in facts["cpu_us"][rate].items():
            print(f"  CPU time of {name}: {cost['with']} us a payment, {cost['without']} without")
    if "sink" in facts:
        print(f"the sink stores {facts['sink']['a_second']} records a second")


if __name__ == "__main__":
    main()
