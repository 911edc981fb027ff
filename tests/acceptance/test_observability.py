"""What whoever is on call sees: figures of every process, and the tools that read them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import actors.node_metrics
from tests.acceptance.conftest import wait_until
from tests.acceptance.whole import Whole, start_whole, value
from tests.metrics import CATALOGUE
from transport.client import TransactionRefusedError

# Twenty seconds where nothing else runs, for seven processes, PostgreSQL and a broker.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: What is there only while there is a canary, or code, or after a process has ended.
SOMETIMES = {
    *(metric.name for metric in actors.node_metrics.CODE.values()),
    *("scorewire_canary_percent", "scorewire_canary_requests_total", "scorewire_canary_errors_total"),
    "scorewire_process_last_exit",
}


@pytest.fixture(scope="module")
def whole() -> Iterator[Whole]:
    with start_whole() as found:
        yield found


def test_every_process_shows_its_figures_and_all_that_are_named_are_shown(whole: Whole) -> None:
    figures = whole.figures()
    assert set(figures) == {
        *("up-0", "tee-0", "sink-0", "shadow-0", "haproxy-0", "scorer-0", "preprocessor-0"),
    }
    whole.client.score(whole.payments[0])
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
    assert grown("scorewire_scorers_answered_total") == 50
    assert grown("scorewire_tee_ring_offered_total") == 50
    assert value(after["preprocessor-0"], "scorewire_scorers", state="ready") == 1
    assert value(after["preprocessor-0"], "scorewire_release") == 1
    assert value(after["preprocessor-0"], "scorewire_activation") == 1
    assert 0 <= value(after["preprocessor-0"], "scorewire_stale_seconds") < 60
    taken = value(after["preprocessor-0"], "scorewire_tee_ring_offered_total")
    wait_until(
        lambda: value(whole.figures()["sink-0"], "scorewire_sink_stored_total") == taken, "all are stored"
    )
    assert value(whole.figures()["tee-0"], "scorewire_tee_delivered_total") == taken
    wait_until(
        lambda: value(whole.figures()["shadow-0"], "scorewire_candidate_evaluated_total") == taken,
        "the shadow evaluates all",
    )
    assert value(after["haproxy-0"], "scorewire_haproxy_serving") == 1


def test_a_process_that_died_is_told_by_up_and_its_successor_is_found(whole: Whole) -> None:
    before = set(whole.targets())
    os.kill(whole.system.host.pids()["sink-0"], signal.SIGKILL)

    def restarted() -> bool:
        families = whole.figures()["up-0"]
        return (
            value(families, "scorewire_process_restarts_total", process="sink-0") == 1
            and value(families, "scorewire_process_last_exit", process="sink-0") == -signal.SIGKILL
            and value(families, "scorewire_process_up") == 6
        )

    wait_until(restarted, "it is restarted")
    wait_until(lambda: len(whole.targets()) == len(before), "its successor shows itself")
    assert len(set(whole.targets()) ^ before) == 2
