"""What whoever is on call sees: figures of every process, and the tools that read them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

import actors.node_metrics
from benchmarks.pictures.prometheus import Prometheus, queries
from tests.acceptance.conftest import wait_until
from tests.acceptance.whole import Whole, get, start_whole, value
from tests.metrics import CATALOGUE
from tests.prometheus import MISSING, PROMETHEUS, alerts
from transport.client import Answer, Client, TransactionRefusedError

# Twenty seconds where nothing else runs, for seven processes, PostgreSQL and a broker.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: What is there only while there is a canary, or code, or after a process has ended.
SOMETIMES = {
    *(metric.name for metric in actors.node_metrics.CODE.values()),
    *("scorewire_canary_percent", "scorewire_canary_requests_total", "scorewire_canary_errors_total"),
    "scorewire_process_last_exit",
}


ROOT = Path(__file__).parents[2]


@contextmanager
def answered(whole: Whole) -> Iterator[None]:
    """Keep payments coming while something is looked at."""
    over = threading.Event()

    def send() -> None:
        while not over.is_set():
            list(whole.client.score_many(whole.payments[:32], window=4))

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with start_whole() as found:
        yield found


def test_every_process_shows_its_figures_and_all_that_are_named_are_shown(whole: Whole) -> None:
    figures = whole.figures()
    assert set(figures) == {
        *("up-0", "tee-0", "sink-0", "shadow-0", "haproxy-0", "scorer-0", "preprocessor-0", "gateway-0"),
    }
    whole.client.score(whole.payments[0])
    (gateway,) = [node for node in whole.system.members() if node.role == "gateway"]
    get(f"{gateway.endpoints[0]}/v2/health/live")
    with pytest.raises(TransactionRefusedError):
        whole.client.score({"id": "1", "amount": "much"})
    wait_until(
        lambda: "scorewire_shadow_lag_records" in whole.figures()["shadow-0"], "the shadow has come somewhere"
    )
    shown = set()
    for process, families in whole.figures().items():
        shown |= {
            family.name + ("_total" if family.type == "counter" else "") for family in families.values()
        }
        assert value(families, "scorewire_node_ready") == 1, process
        assert value(families, "scorewire_node_state") == 1
        for family in families.values():
            assert all(
                {"environment": "test", "role": process.partition("-")[0]}.items() <= one.labels.items()
                for one in family.samples
            )
    assert shown <= set(CATALOGUE)
    assert set(CATALOGUE) - shown <= SOMETIMES


def test_figures_agree_with_what_was_done(whole: Whole) -> None:
    before = whole.figures()["preprocessor-0"]
    assert len([*whole.client.score_many(whole.payments[:50])]) == 50
    for _ in range(3):
        with pytest.raises(TransactionRefusedError):
            whole.client.score({"id": "1", "amount": "much"})
    after = whole.figures()

    def grown(sample: str, **labels: str) -> float:
        return value(after["preprocessor-0"], sample, **labels) - value(before, sample, **labels)

    assert grown("scorewire_requests_total") == 53
    assert grown("scorewire_answers_total") == 50
    assert grown("scorewire_errors_total", code="bad_transaction") == 3
    for stage in ("features", "scorer", "decision", "total"):
        assert grown("scorewire_stage_seconds_count", stage=stage) == 50, stage
    assert grown("scorewire_stage_seconds_count", stage="queue") == 53
    assert 0 < grown("scorewire_stage_seconds_sum", stage="total") < 50
    assert grown("scorewire_batch_requests_sum") == 53
    # Vectors that were at hand at once shared a request.
    assert 0 < grown("scorewire_scorers_answered_total") <= 50
    assert grown("scorewire_tee_ring_offered_total") == 50
    assert value(after["preprocessor-0"], "scorewire_scorers", state="ready") == 1
    assert value(after["preprocessor-0"], "scorewire_release") == 1
    assert value(after["preprocessor-0"], "scorewire_activation") == 1
    assert 0 <= value(after["preprocessor-0"], "scorewire_stale_seconds") < 60
    taken = value(after["preprocessor-0"], "scorewire_tee_ring_offered_total")
    wait_until(
        lambda: value(whole.figures()["sink-0"], "scorewire_sink_stored_total") == taken, "all are stored"
    )
    wait_until(
        lambda: value(whole.figures()["tee-0"], "scorewire_tee_delivered_total") == taken,
        "the tee has heard that all were delivered",
    )
    wait_until(
        lambda: value(whole.figures()["shadow-0"], "scorewire_candidate_evaluated_total") == taken,
        "the shadow evaluates all",
    )
    # A preprocessor and a gateway.
    assert value(after["haproxy-0"], "scorewire_haproxy_serving") == 2


def test_a_process_that_died_is_told_by_up_and_its_successor_is_found(whole: Whole) -> None:
    before = set(whole.targets())
    os.kill(whole.system.host.pids()["sink-0"], signal.SIGKILL)

    def restarted() -> bool:
        families = whole.figures()["up-0"]
        return (
            value(families, "scorewire_process_restarts_total", process="sink-0") == 1
            and value(families, "scorewire_process_last_exit", process="sink-0") == -signal.SIGKILL
            and value(families, "scorewire_process_up") == 7
        )

    wait_until(restarted, "it is restarted")
    wait_until(lambda: len(whole.targets()) == len(before), "its successor shows itself")
    assert len(set(whole.targets()) ^ before) == 2


def run(whole: Whole, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "run.py", *arguments, f"--config={whole.system.file}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_top_shows_all_processes_the_release_and_what_is_done(whole: Whole, tmp_path: Path) -> None:
    with answered(whole):
        done = run(whole, "top", "--once", "--json")
        assert done.returncode == 0, done.stderr
        drawn = run(whole, "top", "--once", f"--svg={tmp_path}/top.svg")
        assert drawn.returncode == 0, drawn.stderr
    view = json.loads(done.stdout)
    rows = {row["node"].partition("@")[0]: row for row in view["rows"]}
    assert list(rows) == [
        "gateway-0",
        "preprocessor-0",
        "scorer-0",
        "tee-0",
        "sink-0",
        "shadow-0",
        "haproxy-0",
        "up-0",
    ]
    assert all(row["state"] == "ready" for row in rows.values())
    assert (view["held"]["release"], rows["scorer-0"]["release"]) == (1, 1)
    assert view["rate"] > 10
    assert view["errors"] == {}
    assert set(view["stages"]["total"]) == {"p50", "p90", "p99", "p999"}
    assert 0 < view["stages"]["kernel"]["p50"] < view["stages"]["total"]["p50"]
    assert [one["name"] for one in view["held"]["shadows"]] == ["next"]
    assert rows["preprocessor-0"]["note"] == "scorers: 1 ready"
    assert "servers" in rows["haproxy-0"]["note"]
    svg = (tmp_path / "top.svg").read_text()
    assert "preprocessor-0" in svg
    assert "Rollouts" in svg
    assert "url(" not in svg.replace("url(#", "")


def test_top_goes_on_without_the_database_and_says_so(whole: Whole) -> None:
    elsewhere = "--set=dsn=postgresql://nobody@127.0.0.1:1/none"
    done = run(whole, "top", "--once", "--json", elsewhere)
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert "127.0.0.1" in view["held"]["trouble"]
    assert len(view["rows"]) == 8


def test_the_doctor_finds_a_running_host_well_and_says_so_to_people_too(whole: Whole) -> None:
    done = run(whole, "doctor", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    checks = {one["check"] for one in found["findings"]}
    assert {"ports", "database", "clock", "schema", "rights", "notifications", "broker", "haproxy"} <= checks
    told = " ".join(one["found"] for one in found["findings"])
    assert "in use by `run.py up`" in told
    assert "holds 2 of 2 servers for ready" in told
    assert "7 of 7 processes" in told
    assert "→" in run(whole, "doctor").stdout


def test_every_line_of_the_logs_is_json_and_names_its_release(whole: Whole) -> None:
    for node in ("preprocessor-0", "scorer-0", "tee-0", "sink-0", "shadow-0", "haproxy-0", "gateway-0"):
        lines = [
            json.loads(line) for line in (whole.system.settings.logs / f"{node}.log").read_text().splitlines()
        ]
        assert lines, node
        assert all((one["node"], one["environment"]) == (node, "test") for one in lines)
        if node in ("preprocessor-0", "scorer-0"):
            (active,) = [one for one in lines if "is active on" in one["message"]]
            assert (active["release"], active["role"]) == (1, node.partition("-")[0])


#: Panels of what is not there in a calm system: code, a canary.
QUIET = {"Code of releases", "Canary: share without a score"}


@pytest.mark.skipif(PROMETHEUS is None, reason=MISSING)
def test_a_real_prometheus_finds_all_processes_and_answers_every_panel_and_rule(
    whole: Whole, tmp_path: Path
) -> None:
    with answered(whole), Prometheus(tmp_path, whole.up()) as prometheus:
        wait_until(lambda: sum(value for _, value in prometheus.now("up")) == 8, "all are scraped")
        total = 'sum(rate(scorewire_answers_total{role="preprocessor"}[10s]))'
        wait_until(lambda: any(value > 10 for _, value in prometheus.now(total)), "answers are counted")
        asked = list(queries("test", "10s"))

        def empty() -> set[str]:
            answered = {one.panel for one in asked if prometheus.now(one.expression)}
            return {one.panel for one in asked} - answered

        wait_until(lambda: empty() <= QUIET, "every panel shows something")
        rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
        assert len(rules) == len(list(alerts()))
        assert {rule["health"] for rule in rules} == {"ok"}
        slow = prometheus.now(
            'histogram_quantile(0.5, sum by (le) (rate(scorewire_stage_seconds_bucket{stage="total"}[10s])))'
        )
        assert 0 < slow[0][1] < 10


def test_the_commands_of_the_page_run(whole: Whole) -> None:
    page = (ROOT / "docs/observability.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    script = f'set -eu\nrun.py() {{ {sys.executable} {ROOT}/run.py "$@"; }}\n' + "".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=whole.system.directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (whole.system.directory / "top.svg").exists()
    assert "7 of 7" in done.stdout


@pytest.fixture(scope="module")
def tracing() -> Iterator[InMemorySpanExporter]:
    """The SDK of a program that uses the client: it traces what is within a span that is sampled."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    yield kept
    provider.shutdown()


def sampled(number: int) -> Any:
    """Return the context of a caller's span that is sampled."""
    span = trace.SpanContext(
        number, 1, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(span))


def test_a_trace_goes_from_the_caller_through_preprocessor_and_scorer(
    whole: Whole, tracing: InMemorySpanExporter
) -> None:
    address = whole.system.addresses()
    token = context.attach(sampled(0xABC))
    try:
        with Client(address, deadline=10.0, traces=True) as client:
            answer = client.score({**whole.payments[0], "id": "traced"})
            with pytest.raises(TransactionRefusedError):
                client.score({"id": "bad", "amount": "much"})
    finally:
        context.detach(token)
    own, refused = tracing.get_finished_spans()
    assert own.attributes is not None
    assert own.context is not None
    assert dict(own.attributes) == {
        "scorewire.transaction": "traced",
        "scorewire.release": answer.trace.release,
        "scorewire.environment": "test",
    }
    assert refused.status.status_code is trace.StatusCode.ERROR
    trace_id = f"{0xABC:032x}"
    wanted = {
        *("scorewire.preprocessor", "scorewire.features", "scorewire.scorer", "scorewire.decision"),
        *("scorewire.scorer.score", "scorewire.kernel"),
    }
    spans = wait_until(
        lambda: found if set(found := whole.collector.of(trace_id)) == wanted else None, "all spans"
    )
    parents = {name: one["parent"] for name, one in spans.items()}
    first = spans["scorewire.preprocessor"]
    assert parents["scorewire.preprocessor"] == f"{own.context.span_id:016x}"
    for name in ("scorewire.features", "scorewire.scorer", "scorewire.decision"):
        assert parents[name] == first["id"]
    assert parents["scorewire.scorer.score"] == spans["scorewire.scorer"]["id"]
    assert parents["scorewire.kernel"] == spans["scorewire.scorer.score"]["id"]
    assert {one["service"] for one in spans.values()} == {"scorewire-preprocessor", "scorewire-scorer"}
    assert first["facts"]["scorewire.transaction"] == "traced"
    for one in spans.values():
        assert first["began"] <= one["began"] <= one["ended"], one["name"]
        assert one["ended"] <= first["ended"] + 5_000_000 or one["service"] == "scorewire-scorer"


def test_a_trace_of_a_caller_over_http_goes_on_in_the_nodes(whole: Whole) -> None:
    (gateway,) = [node for node in whole.system.members() if node.role == "gateway"]
    body = json.dumps({"transaction": {**whole.payments[0], "id": "over-http"}}).encode()
    for trace_id, flag in ((0xA1, "01"), (0xA0, "00")):
        headers = {
            "Content-Type": "application/json",
            "traceparent": f"00-{trace_id:032x}-{1:016x}-{flag}",
        }
        request = urllib.request.Request(f"{gateway.endpoints[0]}/v1/score", body, headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.loads(answer.read())["id"] == "over-http"
    spans = wait_until(
        lambda: found if len(found := whole.collector.of(f"{0xA1:032x}")) == 7 else None, "all spans"
    )
    assert spans["scorewire.gateway"]["parent"] == f"{1:016x}"
    assert spans["scorewire.preprocessor"]["parent"] == spans["scorewire.gateway"]["id"]
    assert spans["scorewire.preprocessor"]["facts"]["scorewire.transaction"] == "over-http"
    assert whole.collector.of(f"{0xA0:032x}") == {}


def test_what_is_not_sampled_is_sent_without_a_trace_and_makes_none(
    whole: Whole, tracing: InMemorySpanExporter
) -> None:
    before, own = whole.collector.count(), len(tracing.get_finished_spans())
    with Client(whole.system.addresses(), deadline=10.0, traces=True) as client:
        assert len(list(client.score_many(whole.payments[:20]))) == 20
    assert len(tracing.get_finished_spans()) == own
    assert whole.collector.count() == before


def test_a_collector_that_is_away_costs_no_answer_and_no_node(
    whole: Whole, tracing: InMemorySpanExporter
) -> None:
    del tracing  # it has to be there
    pids = dict(whole.system.host.pids())
    whole.collector.stop()
    token = context.attach(sampled(0xDEF))
    try:
        with Client(whole.system.addresses(), deadline=10.0, traces=True) as client:
            answers = list(client.score_many(whole.payments[:200], window=8))
    finally:
        context.detach(token)
    assert all(isinstance(answer, Answer) for answer in answers)
    assert dict(whole.system.host.pids()) == pids
