"""Figures: Prometheus' own parser reads what was counted."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from transport.metrics import BOUNDS_SIZE, BOUNDS_US, Metric, Page, Sizes, Timing, add_process

TIMES = Metric("scorewire_stage_seconds", "histogram", "Times.")
SIZES = Metric("scorewire_batch_requests", "histogram", "Sizes.")


def read(page: Page) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(page.text().decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


@given(st.lists(st.integers(0, 20_000_000), max_size=50))
def test_each_time_is_in_the_buckets_that_hold_it(times: list[int]) -> None:
    timing = Timing()
    for us in times:
        timing.add(us)
    page = Page({"node": "a"})
    page.add_timing(TIMES, timing, stage="total")
    found = read(page)
    labels = (("node", "a"), ("stage", "total"))
    for bound in BOUNDS_US:
        key = ("scorewire_stage_seconds_bucket", tuple(sorted((*labels, ("le", f"{bound / 1e6:g}")))))
        assert found[key] == sum(us <= bound for us in times)
    assert found["scorewire_stage_seconds_count", labels] == len(times)
    assert found["scorewire_stage_seconds_sum", labels] == pytest.approx(sum(times) / 1e6)


def test_sizes_are_counted_up_to_the_largest_batch_and_beyond() -> None:
    sizes = Sizes()
    for size in (1, 2, 3, 1024, 1025):
        sizes.add(size)
    page = Page({"node": "a"})
    page.add_sizes(SIZES, sizes)
    found = {dict(labels).get("le"): value for (_, labels), value in read(page).items()}
    assert [found[str(bound)] for bound in BOUNDS_SIZE[:3]] == [1, 2, 3]
    assert (found["1024"], found["+Inf"]) == (4, 5)


@given(st.text(), st.floats(allow_nan=False) | st.integers(-(2**53), 2**53))
def test_any_label_and_any_number_come_back_as_they_were(label: str, value: float) -> None:
    page = Page({"node": "a"})
    page.add(Metric("scorewire_x", "gauge", "X."), value, reason=label)
    # The parser reads line by line, and knows more ends of lines than the format has.
    lines = label.split("\n")
    if all(line.splitlines() in ([], [line]) for line in lines):
        assert read(page) == {("scorewire_x", (("node", "a"), ("reason", label))): value}


def test_a_family_is_declared_once_whoever_adds_to_it() -> None:
    page, metric = Page({"node": "a"}), Metric("scorewire_x_total", "counter", "Xs.")
    page.add_all({"x": metric}, {"pool.x": 3, "x": 4, "pool.y": 5}, "pool.", actor="one")
    page.add(TIMES, 1)
    page.add(metric, 2, actor="two")
    text = page.text().decode()
    assert text.count("# TYPE scorewire_x_total counter") == 1
    assert text.index('actor="two"') < text.index(TIMES.name)
    assert 'scorewire_x_total{node="a",actor="one"} 3' in text.splitlines()


def test_the_operating_system_is_asked_what_this_process_takes() -> None:
    page = Page({"node": "a"})
    add_process(page)
    found = {name: value for (name, _), value in read(page).items()}
    assert found["process_resident_memory_bytes"] > 1_000_000
    assert 3 <= found["process_open_fds"] < found["process_max_fds"]
    assert 0 < found["process_cpu_seconds_total"] < os.times().elapsed
    import psutil

    assert found["process_start_time_seconds"] == pytest.approx(psutil.Process().create_time(), abs=2)
