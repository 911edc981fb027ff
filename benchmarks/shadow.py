"""How fast shadows are: nodes on the live stream, and a replay, with the big forest as the candidate.

    python -m benchmarks.shadow [--json] [--quick] [--records 20000] [--nodes 1] [--processes 2]

Live records lie in Kafka's topic before anything starts; what is timed begins with the first result that is
stored and ends with the last, so that neither starts nor the group's forming count. The broker is embedded,
PostgreSQL as well, and both run on the same cores as what is measured. Microseconds of CPU time a record are
told beside the rate: they say what a node costs on a machine that is busy, and stands back as shadows do.

    python -m benchmarks.shadow --faults 100000

sends so many records through everything that goes wrong (tests/shadow/faults.py), and tells what was found.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from actors.config import Settings, load_settings
from actors.evaluation import VECTOR_DTYPE
from benchmarks.cases import FULL, QUICK, Case, prepare, unseen_rows
from governance import shadows
from governance.artifacts import Kind, register
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.promotion import promote
from models.bundle import open_bundle
from models.forest import Forest
from shadow.broker import EmbeddedBroker
from shadow.kafka import ensure_topics, producer, topic
from shadow.record import LiveRecord

RUN = Path(__file__).parents[1] / "run.py"
RULES = """
name = "rules"
version = 1
[[rules]]
when = "score >= 0.5"
decide = "review"
reason = "high"
"""
LIMIT_S = 300.0


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="a forest that is trained in seconds")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--nodes", type=int, default=1, help="shadow nodes")
    parser.add_argument("--processes", type=int, default=2, help="processes of the replay")
    parser.add_argument(
        "--faults", type=int, default=0, metavar="RECORDS", help="send them through all faults"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scorewire-bench-") as name:
        if chosen.faults:
            from tests.shadow.faults import run  # noqa: PLC0415 - the suite's own, at another size

            facts: dict[str, Any] = asdict(run(chosen.faults, Path(name)))
        else:
            case = QUICK if chosen.quick else FULL
            facts = measure(case, chosen.records, chosen.nodes, chosen.processes, Path(name))
    print(json.dumps(facts) if chosen.json else "\n".join(f"{k}: {v}" for k, v in facts.items()))


def measure(case: Case, count: int, nodes: int, processes: int, directory: Path) -> dict[str, Any]:
    """Return what was measured of a case."""
    prepare(case, ".bundle")
    bundle = case.file(".bundle")
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(directory / "postgres"))
        broker = stack.enter_context(EmbeddedBroker(directory / "broker"))
        migrate(postgres.dsn)
        settings = configure(directory, postgres.dsn, broker)
        pipeline = publish(settings, bundle, directory)
        fill(settings, pipeline, bundle, count)
        facts: dict[str, Any] = {
            "trees": case.trees,
            "records": count,
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
        }
        facts["stream"] = {"nodes": nodes, **stream(settings, directory, pipeline, count, nodes)}
        facts["replay"] = {"processes": processes, **replay(settings, directory, pipeline, processes)}
    return facts


def configure(directory: Path, dsn: str, broker: EmbeddedBroker) -> Settings:
    """Write a configuration, and make the topics."""
    kafka = broker.settings
    (directory / "scorewire.toml").write_text(
        f'environment = "bench"\ndsn = "{dsn}"\ncache = "{directory / "cache"}"\n'
        f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\npartitions = 4\nreplication = 1\n',
        encoding="utf-8",
    )
    settings = load_settings(directory / "scorewire.toml")
    ensure_topics(kafka, [topic(kafka, "bench", what) for what in ("live", "dead", "shadow")])
    return settings


def publish(settings: Settings, bundle: Path, directory: Path) -> dict[str, str]:
    """Register the forest with a spec of its features, and promote it."""
    names = open_bundle(bundle).meta.feature_names
    spec, rules = directory / "spec.toml", directory / "rules.toml"
    spec.write_text(_spec(names), encoding="utf-8")
    rules.write_text(RULES, encoding="utf-8")
    files: tuple[tuple[str, Path, Kind], ...] = (
        ("model", bundle, "bundle"),
        ("features", spec, "feature_spec"),
        ("decision", rules, "decision_rules"),
    )
    with connect(settings.dsn) as connection:
        found = {
            stage: register(connection, path, kind=kind, name=stage, by="bench").digest
            for stage, path, kind in files
        }
        promote(connection, environment="bench", stages=found, by="bench")
    return found


def _spec(names: tuple[str, ...]) -> str:
    fields = "".join(f'[fields."{name}"]\ntype = "number"\nmissing = 0\n' for name in names)
    features = "".join(
        f'[[features]]\nname = "{name}"\nkind = "numeric"\nfield = "{name}"\n' for name in names
    )
    return f'name = "noise"\nversion = 1\nid = "id"\n{fields}{features}'


def fill(settings: Settings, pipeline: dict[str, str], bundle: Path, count: int) -> None:
    """Send live records of a hundred features and ten fields, as the tee does."""
    assert settings.kafka is not None
    rows = unseen_rows(count)
    scores = Forest(open_bundle(bundle)).predict(rows)
    outputs = open_bundle(bundle).meta.outputs
    sender, name = producer(settings.kafka), topic(settings.kafka, "bench", "live")
    now = time.time()
    for number, (row, score) in enumerate(zip(rows, scores, strict=True)):
        amount = float(np.float32(number % 997))
        record = LiveRecord(
            id=f"tx-{number}",
            node="preprocessor-0@bench/1",
            seq=number + 1,
            at=now - 1,
            release=1,
            environment="bench",
            pipeline=pipeline,
            transaction={
                "id": f"tx-{number}",
                "amount": amount,
                "channel": "online" if number % 3 else "chip",
                "country": ("BE", "FR", "NL")[number % 3],
                **{f"field_{n}": float(n) for n in range(6)},
            },
            features={"features": row.astype(VECTOR_DTYPE).tobytes()},
            scores=dict(zip(outputs, score.tolist(), strict=True)),
            decision={"outcome": "review" if score[-1] >= 0.5 else "approve", "reasons": []},
            us={"features": 30, "kernel": 20, "decision": 5, "total": 300},
        )
        while True:
            try:
                sender.produce(name, key=record.id.encode(), value=record.pack())
                break
            except BufferError:
                sender.poll(0.1)
    sender.flush()


def stream(
    settings: Settings, directory: Path, pipeline: dict[str, str], count: int, nodes: int
) -> dict[str, float]:
    """Have so many nodes evaluate all records for a new shadow; return the rate and what a record takes."""
    shadow = start(settings, f"stream-{nodes}", pipeline)
    # A group of its own, which begins with the first record.
    assert settings.kafka is not None
    group = f"bench-{nodes}"
    with running(directory, nodes, group) as pids:
        began, first, found = time.monotonic(), 0, 0
        at_first, cpu = began, (0.0, 0.0)
        while found < count:
            assert time.monotonic() < began + LIMIT_S, f"only {found} of {count} results"
            found = results(settings, shadow)
            if found and not first:
                first, at_first, cpu = found, time.monotonic(), cpu_of(pids)
            time.sleep(0.05)
        seconds = time.monotonic() - at_first
        of_nodes, of_candidates = (b - a for a, b in zip(cpu, cpu_of(pids), strict=True))
    with connect(settings.dsn) as connection:
        shadows.stop(connection, "bench", f"stream-{nodes}", by="bench")
        row = connection.execute(
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY (shadow_us ->> 'model')::integer) AS us"
            " FROM shadow_result WHERE shadow = %s",
            (shadow,),
        ).fetchone()
    assert row is not None
    return {
        "per_second": round((count - first) / seconds),
        "seconds": round(seconds, 2),
        "model_us_p50": float(row["us"]),
        "cpu_us_node": round(of_nodes / (count - first) * 1e6, 1),
        "cpu_us_candidate": round(of_candidates / (count - first) * 1e6, 1),
    }


def cpu_of(pids: Sequence[int]) -> tuple[float, float]:
    """Return the seconds of CPU time that processes have used, and those that their children have."""
    of_nodes = of_children = 0.0
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        of_nodes += seconds if int(entry.parent.name) in pids else 0.0
        of_children += seconds if int(fields[1]) in pids else 0.0
    return of_nodes, of_children


@contextmanager
def running(directory: Path, nodes: int, group: str) -> Iterator[list[int]]:
    """Run shadow nodes as processes; yield their numbers."""
    options = {"SCOREWIRE_KAFKA__OPTIONS": json.dumps({"session.timeout.ms": "6000", "group.id": group})}
    command = [sys.executable, str(RUN), "node", "shadow", f"--config={directory / 'scorewire.toml'}"]
    with (directory / "nodes.log").open("ab") as log:
        started = [
            subprocess.Popen(
                [*command, f"--index={index}"], env={**os.environ, **options}, stdout=log, stderr=log
            )
            for index in range(nodes)
        ]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def replay(settings: Settings, directory: Path, pipeline: dict[str, str], processes: int) -> dict[str, float]:
    """Replay all records for a new shadow; return what the command says."""
    name = f"replay-{processes}"
    start(settings, name, pipeline)
    since = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
    command = [sys.executable, str(RUN), "shadow", "replay", name, f"--from={since}", "--json"]
    command += [f"--processes={processes}", f"--config={directory / 'scorewire.toml'}"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    return {"per_second": round(found["per_second"]), "seconds": round(found["seconds"], 2)}


def start(settings: Settings, name: str, pipeline: dict[str, str]) -> int:
    """Start a shadow whose model is the big forest; return its number."""
    with connect(settings.dsn) as connection:
        return shadows.start(connection, "bench", name, {"model": pipeline["model"]}, by="bench").id


def results(settings: Settings, shadow: int) -> int:
    """Return how many results of a shadow are stored."""
    with connect(settings.dsn) as connection:
        row = connection.execute(
            "SELECT coalesce(sum((document ->> 'n')::bigint), 0) AS n FROM shadow_summary WHERE shadow = %s",
            (shadow,),
        ).fetchone()
    return int(row["n"]) if row else 0


if __name__ == "__main__":
    main()
