"""The process of a candidate: what it may take is held by the kernel, and what kills it is found."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from actors.config import KafkaSettings
from governance.artifacts import register
from governance.backoff import Backoff
from shadow.errors import CandidateDiedError, CandidateWaitsError, ShadowBrokenError
from shadow.process import CandidateProcess, Limits
from shadow.runner import IN_A_ROW, Poison, ShadowRunner
from tests.models.code.wheels import build as build_wheel
from tests.models.code.wheels import features_declared
from tests.shadow.hostile import PROGRAM
from tests.shadow.world import World, build

# It stands back behind everything else: beside other work a second of CPU time may take it half a minute.
LIMITS = Limits(memory_bytes=1_500_000_000, cpu_s=1.0, cpu_ms_record=1.0, hang_s=60.0)
SILENT = replace(LIMITS, hang_s=1.0)
#: To be given a gigabyte takes a second of CPU time by itself on a machine that has to find it first.
PATIENT = replace(LIMITS, cpu_s=60.0)


@pytest.fixture
def world(dsn: str, tmp_path: Path) -> World:
    return build(dsn, KafkaSettings(bootstrap_servers="127.0.0.1:9"), tmp_path)


@pytest.fixture
def limits() -> Limits:
    return LIMITS


@pytest.fixture
def process(world: World, limits: Limits) -> Iterator[CandidateProcess]:
    process = CandidateProcess({"model": world.digests["other"]}, world.settings, limits, PROGRAM)
    yield process
    process.stop()


def doing(world: World, *what: str) -> list[bytes]:
    records = world.records(range(len(what)))
    return [
        replace(r, transaction={**r.transaction, "do": do}).pack()
        for r, do in zip(records, what, strict=True)
    ]


def test_it_evaluates_in_a_process_of_its_own_that_stands_back(
    world: World, process: CandidateProcess
) -> None:
    results = process.evaluate(doing(world, "", "", ""))
    assert [len(result) for result in results] == [5, 5, 5]
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, os.nice(0) + LIMITS.nice)
    process.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize(
    ("do", "cause", "limits"),
    [
        ("die", "killed by SIGKILL", LIMITS),
        ("exit", "exit code 3", LIMITS),
        ("raise", "exit code 1", LIMITS),
        ("loop", "CPU time", LIMITS),
        ("hang", "no answer in", SILENT),
        ("lie", "is no answer", LIMITS),
    ],
)
def test_each_way_to_go_wrong_is_told(world: World, process: CandidateProcess, do: str, cause: str) -> None:
    with pytest.raises(CandidateDiedError, match=cause):
        process.evaluate(doing(world, "", do))
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize("limits", [PATIENT])
def test_a_leak_ends_at_the_limit(world: World, process: CandidateProcess) -> None:
    for _ in range(2):
        process.evaluate(doing(world, "leak"))
    with pytest.raises(CandidateDiedError, match="out of memory"):
        process.evaluate(doing(world, "leak", "leak", "leak"))


def test_it_waits_for_what_it_cannot_load_now(world: World) -> None:
    away = world.settings.model_copy(update={"dsn": "postgresql:///none?host=/nowhere"})
    process = CandidateProcess({"model": world.digests["other"]}, away, LIMITS)
    try:
        with pytest.raises(CandidateWaitsError, match="OperationalError"):
            process.evaluate(doing(world, ""))
    finally:
        process.stop()


def test_the_record_that_kills_it_is_found_and_the_others_are_evaluated(world: World) -> None:
    stop = threading.Event()
    overrides = {"model": world.digests["other"]}
    runner = ShadowRunner(lambda: CandidateProcess(overrides, world.settings, LIMITS, PROGRAM), stop)
    try:
        records = doing(world, *[""] * 10, "die", *[""] * 5)
        found = runner.evaluate(records)
        assert found is not None
        assert [place for place, one in enumerate(found) if isinstance(one, Poison)] == [10]
        assert all(isinstance(one, list) for place, one in enumerate(found) if place != 10)
        assert "SIGKILL" in found[10].reason
    finally:
        runner.close()


class Doomed:
    """A process that dies of whatever it is given."""

    def evaluate(self, records: object) -> list[object]:
        del records
        raise CandidateDiedError("always")  # without a hint: it is found by halves

    def stop(self) -> None:
        """Nothing is left to stop."""


def test_a_shadow_that_dies_of_every_record_or_never_starts_is_given_up() -> None:
    with pytest.raises(ShadowBrokenError, match=f"{IN_A_ROW} records after another"):
        quick(Doomed).evaluate([b""] * 64)

    def fail() -> Doomed:
        raise CandidateDiedError("no such file")

    runner = ShadowRunner(fail, threading.Event(), Backoff(0.001, 0.002))
    with pytest.raises(ShadowBrokenError, match="does not start: no such file"):
        runner.evaluate([b""])


def quick(process: type[Doomed]) -> ShadowRunner:
    return ShadowRunner(process, threading.Event(), Backoff(0.001, 0.002))


def test_it_gives_way_when_the_node_stops() -> None:
    stop = threading.Event()
    stop.set()
    assert ShadowRunner(Doomed, stop).evaluate([b""]) is None


def test_a_candidate_that_is_code_works_and_fails_in_a_worker_of_its_own(
    world: World, tmp_path: Path
) -> None:
    source = """
    import os
    def features(transaction):
        if transaction["do"] == "die":
            os._exit(1)
        if transaction["do"] == "loop":
            while True:
                pass
        return [transaction["amount"], transaction["age"]]
    """
    golden = {"id": "1", "amount": 2, "age": 30, "do": ""}
    declared = features_declared(golden, [2, 30], ["amount", "age"])
    with world.connect() as connection:
        wheel = build_wheel(tmp_path / "wheels", source, declared)
        digest = register(connection, wheel, kind="code_package", name="code", by="ann").digest
    settings = world.settings.model_copy(update={"allow_unsigned_code": True})
    limits = replace(LIMITS, cpu_s=20.0, hang_s=60.0)
    process = CandidateProcess({"features": digest}, settings, limits)
    try:
        results = process.evaluate(doing(world, "", "die", "", "loop", ""))
        assert [isinstance(one, list) for one in results] == [True, False, True, False, True]
        assert "ended with 1" in results[1]
        assert "budget_ms" in results[3]
        # Nothing but its workers went.
        again = [one[:3] for one in process.evaluate(doing(world, ""))]
        assert again == [results[0][:3]]
        children = psutil.Process(process.pid).children()
        assert children
    finally:
        process.stop()
    _, left = psutil.wait_procs(children, timeout=30)
    assert not left
