"""The benchmarks run, and what they say of exactness and bytes is true; speed is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.service.report import document, plot
from benchmarks.service.search import Point, highest, measure
from benchmarks.service.traffic import open_loop

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_forest_is_scored_by_all_engines_alike(tmp_path: Path) -> None:
    names = ["scikit-learn", "lightgbm", "onnxruntime"]
    command = [sys.executable, "-m", "benchmarks.forest", "--quick", "--json", "--only", *names]
    cache = {**os.environ, "SCOREWIRE_CACHE": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=cache, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["failed"] == {}
    assert set(facts["engines"]) == {"scorewire", *names, "lightgbm C fast path"}
    for name, figures in facts["engines"].items():
        assert figures["us_row_1"] > 0
        assert figures["max_error"] <= (0 if name == "scorewire" else 1e-6)
        assert figures["load_s"] > 0
    (bundle,) = tmp_path.glob("benchmarks/*.bundle")
    assert facts["engines"]["scikit-learn"]["bytes"] > 9 * bundle.stat().st_size
    # A row comes by a line in each of a hundred trees, and by fewer than there are splits on the longest way.
    assert 100 < facts["limit"]["lines_of_trees"] < 100 * 40
    assert facts["limit"]["limit_us"] > 0


def test_features_are_computed_alike_by_all() -> None:
    command = [sys.executable, "-m", "benchmarks.features", "--json", "--sizes", "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # it compares what they compute
    (size,) = json.loads(done.stdout)["sizes"]
    assert size["features"] == 20
    assert set(size["us"]) >= {"spec", "by hand", "scikit-learn", "pandas"}


def test_what_the_client_takes_is_measured_beside_a_socket_alone() -> None:
    command = [sys.executable, "-m", "benchmarks.client", "--json", "--calls", "128", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--before", str(ROOT)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)["cpu_us_a_call"]
    for checkout in ("before", "now"):
        assert all(spent > 0 for way, spent in facts[checkout].items() if "own" not in way)
        assert facts[checkout]["sync own"] == pytest.approx(
            facts[checkout]["sync"] - facts[checkout]["bare"], abs=0.11
        )
    assert set(facts["ratio"]) >= {"bare", "sync", "sync_many", "async", "async_many"}


def test_an_engine_that_cannot_load_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.cases import QUICK
    from benchmarks.engine import Engine, EngineError

    monkeypatch.setenv("SCOREWIRE_CACHE", str(tmp_path))
    QUICK.file(".onnx").write_bytes(b"junk")
    with pytest.raises(EngineError, match="onnxruntime cannot load the case"):
        Engine("onnxruntime", QUICK, "file")


@pytest.mark.timeout(240)
def test_all_that_is_answered_before_a_tee_reaches_kafka_and_a_sink_stores_what_is_there() -> None:
    command = [sys.executable, "-m", "benchmarks.tee", "--json", "--seconds", "2", "--rate", "50"]
    done = subprocess.run(
        [*command, "--starts", "2", "--records", "500"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["tee"]["delivered"] == facts["tee"]["taken"] == facts["tee"]["preprocessors_offered"]
    for one in facts["rates"]["50"].values():
        assert one["interval"][0] <= one["interval"][1]
    assert facts["sink"]["a_second"] > 0


def test_every_listener_gets_every_release() -> None:
    command = [sys.executable, "-m", "benchmarks.notify", "--json", "--nodes", "40", "--rounds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    # None of them re-reads by itself in this time: all were hinted at.
    assert (facts["nodes"], facts["read"]) == (40, 1.0)


def test_features_by_code_are_those_of_the_spec() -> None:
    command = [sys.executable, "-m", "benchmarks.code", "--json", "--calls", "200"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["features"] == 26
    assert all(facts[name]["us_p99"] >= facts[name]["us_p50"] > 0 for name in ("spec", "function", "worker"))


@pytest.mark.timeout(240)
def test_services_under_load_score_alike_and_make_a_table_and_a_picture(tmp_path: Path) -> None:
    names = ["Scorewire, ZeroMQ", "FastAPI + LightGBM"]
    command = [sys.executable, "-m", "benchmarks.service", "--json", "--cases", "tiny", "--only", *names]
    done = subprocess.run(
        [*command, "--seconds", "0.02", "--long", "0.1", "--results", tmp_path / "results.json"],
        cwd=ROOT,
        env={**os.environ, "SCOREWIRE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results == json.loads((tmp_path / "results.json").read_text())
    # It has compared the scores of each with the forest's.
    assert {name: row.get("failed") for name, row in results["tiny"].items()} == dict.fromkeys(names)
    for row in results["tiny"].values():
        assert row["light"]["answered"] == 1.0
        assert 0 < row["light"]["p50_ms"] <= row["light"]["p99_ms"] <= row["light"]["p999_ms"]
        assert row["light"]["cpu_s"] > 0
        assert row["mb"] > 20
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- services -->\nold\n<!-- /services -->\nafter\n")
    document(results, page)
    text = page.read_text()
    assert text.startswith("before\n<!-- services -->\n**Tiny model**")
    assert text.endswith("<!-- /services -->\nafter\n")
    assert "old" not in text
    assert all(f"| {name} |" in text.replace("*", "") for name in names)
    plot(results, tmp_path / "service.svg")
    assert "FastAPI + LightGBM" in (tmp_path / "service.svg").read_text()


def test_the_highest_rate_is_found_by_doubling_and_halving() -> None:
    def service(limit: float) -> Callable[[float], Point]:
        return lambda rate: Point(rate, 1.0, 1.0, 5.0 if rate <= limit else 50.0, 60.0, 0.0, 1.0)

    first = service(1_000)(50)
    rate, tried = highest(first, service(1_000))
    assert 900 < rate <= 1_000
    assert [point.rate for point in tried[:7]] == [50, 100, 200, 400, 800, 1600, 3200]
    assert highest(service(10)(50), service(10))[0] == 0
    # One that is disturbed ends nothing; an answer that is lost counts as none in time.
    disturbed = Point(200, 1.0, 1.0, 90.0, 90.0, 0.0, 1.0)
    assert highest(first, lambda rate: disturbed if rate == 200 else service(1_000)(rate))[0] > 900
    lost = Point(50.0, 0.999, 1.0, 1.0, 1.0, 0.0, 1.0)
    assert highest(lost, lambda _rate: lost) == (0.0, [lost, lost])


def test_a_rate_is_tried_again_where_somebody_else_may_have_made_it_miss() -> None:
    late = Point(200, 1.0, 5.0, 15.0, 20.0, 0.0, 1.0, late=0.02)
    lagging = replace(late, lag_ms=5.0)
    hopeless = replace(late, late=0.9, given_up=True)
    holds = replace(late, p99_ms=5.0, late=0.0)

    def tried(*outcomes: Point) -> tuple[Point, int]:
        left = list(outcomes)
        return measure(lambda _rate, _seed: left.pop(0), 200), len(outcomes) - len(left)

    assert tried(late, holds) == (holds, 2)
    assert tried(late, late, holds) == (late, 2)
    assert tried(hopeless, holds) == (hopeless, 1)
    assert tried(lagging, late, late, holds) == (holds, 4)


def test_a_rate_that_is_sure_to_miss_is_given_up() -> None:
    class Caller:
        """Answers each request so many seconds after it was sent."""

        def __init__(self, after_s: float) -> None:
            self._after_s = after_s
            self._under_way: deque[tuple[float, Callable[[bytes | None], None]]] = deque()

        def submit(self, number: int, done: Callable[[bytes | None], None]) -> None:  # noqa: ARG002
            self._under_way.append((time.monotonic() + self._after_s, done))

        def turn(self) -> None:
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                self._under_way.popleft()[1](b"")

    slow = open_loop(Caller(0.05), 200, 60.0, 1, late_s=0.01)
    assert slow.given_up
    assert len(slow.latencies_s) == slow.offered < 0.5 * 200 * 60
    patient = open_loop(Caller(0.05), 200, 0.5, 1)
    assert not patient.given_up
    assert len(patient.latencies_s) == patient.offered == 100
    assert not open_loop(Caller(0.0), 200, 0.5, 1, late_s=5.0).given_up


def test_a_gateway_answers_every_kind_of_request_of_its_benchmark() -> None:
    command = [sys.executable, "-m", "benchmarks.gateway", "--json", "--seconds", "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr  # any answer but 200 ends it
    facts = json.loads(done.stdout)
    assert {"score", "infer, JSON", "infer, binary"} <= set(facts)
    assert facts["score"]["64"]["p99_ms"] >= facts["score"]["64"]["p50_ms"] > 0


def test_nodes_with_and_without_traces_are_compared() -> None:
    command = [sys.executable, "-m", "benchmarks.traces", "--json", "--calls", "200", "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ways = json.loads(done.stdout)["ways"]
    assert set(ways) == {"off", "none sampled", "1 of 100", "all"}
    assert ways["all"]["cpu_us_64"] > 0


def test_the_http_servers_are_compared() -> None:
    names = ["httptools alone", "uvicorn, ASGI"]
    command = [
        sys.executable,
        "-m",
        "benchmarks.http_servers",
        "--json",
        "--seconds",
        "0.2",
        "--only",
        *names,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (set(facts["servers"]), facts["failed"]) == (set(names), {})
