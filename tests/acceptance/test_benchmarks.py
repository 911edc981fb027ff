"""The benchmarks run, and what they say of exactness and bytes is true; speed is not tested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        [*command, "--records", "500"], cwd=ROOT, capture_output=True, text=True, check=False
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
