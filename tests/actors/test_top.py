"""What `top` makes of figures."""

from __future__ import annotations

import bisect
import io
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from actors.top.figures import Figures, added, quantile
from actors.top.look import Held, Look
from actors.top.screen import Screen
from actors.top.view import View, compare
from transport.metrics import BOUNDS_US, Metric, Page, Timing

INFO = Metric("scorewire_node_info", "gauge", "Who.")
STATE = Metric("scorewire_node_state", "gauge", "How.")
ANSWERS = Metric("scorewire_answers_total", "counter", "Answers.")
ERRORS = Metric("scorewire_errors_total", "counter", "Errors.")
STAGE = Metric("scorewire_stage_seconds", "histogram", "Times.")


def node(
    name: str, answers: int, times: list[int], *, life: str = "one", role: str = "preprocessor", **errors: int
) -> Figures:
    page = Page({"environment": "test", "role": role, "node": name})
    page.add(INFO, 1, life=life)
    for state in ("ready", "hung"):
        page.add(STATE, int(state == "ready"), state=state)
    page.add(ANSWERS, answers)
    for code, count in errors.items():
        page.add(ERRORS, count, code=code)
    timing = Timing()
    for us in times:
        timing.add(us)
    page.add_timing(STAGE, timing, stage="total")
    return Figures(page.text().decode())


def between(before: dict[str, Figures], now: dict[str, Figures], held: Held | None = None) -> View:
    lost = {} if now else {"127.0.0.1:1": "Connection refused"}
    return compare("test", Look(10.0, before, {}, Held()), Look(12.0, now, lost, held or Held()))


@given(st.text(), st.text())
def test_labels_are_read_as_they_were_written(one: str, other: str) -> None:
    page = Page({"node": one})
    page.add(ANSWERS, 3, reason=other)
    # Lines end with "\n" alone; splitting knows more ends.
    if len((one + other).splitlines()) < 2 and not {*(one + other)} & {*"\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"}:
        figures = Figures(page.text().decode())
        assert figures.by("scorewire_answers_total", "node", reason=other) == {one: 3.0}


@given(st.lists(st.integers(1, 9_000_000), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(times: list[int], share: float) -> None:
    found = quantile(node("a", 0, times).buckets("scorewire_stage_seconds", stage="total"), share)
    true = sorted(times)[max(0, -(-int(share * len(times) * 1e9) // 10**9) - 1)]
    place = bisect.bisect_left(BOUNDS_US, true)
    lower = 0 if not place else BOUNDS_US[place - 1]
    assert found is not None
    assert lower * 0.999 <= found * 1e6 <= BOUNDS_US[place] * 1.001


def test_of_nothing_there_is_no_percentile_and_beyond_the_last_bound_it_is_that() -> None:
    assert quantile({}, 0.5) is None
    assert quantile(node("a", 0, []).buckets("scorewire_stage_seconds"), 0.5) is None
    assert quantile(node("a", 0, [60_000_000]).buckets("scorewire_stage_seconds"), 0.5) == 10.0
    assert added([{1.0: 2.0}, {1.0: 3.0, 2.0: 1.0}]) == {1.0: 5.0, 2.0: 1.0}


def test_rates_and_percentiles_are_of_the_time_between_two_looks() -> None:
    before = {"a": node("preprocessor-0@h", 1_000, [10] * 50, bad_transaction=7)}
    now = {"a": node("preprocessor-0@h", 1_100, [10] * 50 + [900] * 9 + [9_000], bad_transaction=9)}
    view = between(before, now)
    assert (view.rate, view.errors) == (50.0, {"bad_transaction": 1.0})
    assert 0.75 <= view.stages["total"]["p50"] <= 1.0
    assert 7.5 <= view.stages["total"]["p99"] <= 10.0
    (row,) = view.rows
    assert (row.state, row.errors, row.p50_ms) == ("ready", 1.0, view.stages["total"]["p50"])


def test_a_process_that_has_begun_anew_counts_from_there_and_never_backwards() -> None:
    before = {"a": node("preprocessor-0@h", 1_000, [10] * 50, late=7)}
    view = between(before, {"a": node("preprocessor-0@h", 5, [10], life="two", late=1)})
    assert (view.rate, view.errors, view.stages["total"]) == (0.0, {}, {})
    assert between({}, {"a": node("preprocessor-0@h", 5, [10])}).rate == 0.0


def test_what_goes_wrong_stands_on_the_screen_and_markup_in_it_does_nothing() -> None:
    held = Held(
        trouble="it is [bold]away[/bold]",
        rollouts=(
            {
                "release": 7,
                "state": "abandoned",
                "started_at": _now(),
                "reason": "no [red]",
                "percent": None,
                "waits_for": [],
            },
        ),
        silent={"scorer-0@h/1": 12.0},
        hidden=("scorer-1@far/1",),
    )
    view = between({}, {}, held)
    console = Console(file=io.StringIO(), width=150)
    console.print(Screen().draw(view))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # StringIO's
    for word in (
        "it is [bold]away[/bold]",
        "no [red]",
        "abandoned",
        "Connection refused",
        "scorer-0@h/1",
        "scorer-1@far/1",
        "silent",
    ):
        assert word in text, word


def _now() -> object:
    from datetime import UTC, datetime

    return datetime.now(UTC)


@pytest.mark.parametrize(
    ("ms", "text"), [(0.0149, "15 us"), (3.25, "3.2 ms"), (2_500.0, "2.5 s"), (None, "")]
)
def test_times_are_told_in_a_unit_that_fits(ms: float | None, text: str) -> None:
    from actors.top.screen import _ms

    assert _ms(ms) == text


def test_members_of_other_hosts_that_show_their_figures_there_alone_are_not_asked(dsn: str) -> None:
    from actors.top.look import _read
    from governance.database import connect
    from governance.membership import join

    facts: dict[str, Any] = {
        "environment": "test",
        "role": "scorer",
        "pid": 1,
        "endpoints": (),
        "state": "ready",
        "release": None,
    }
    with connect(dsn) as connection:
        for node, host, health in (
            ("near", socket.gethostname(), "127.0.0.1:1"),
            ("far", "far", "10.0.0.1:2"),
            ("hidden", "far", "127.0.0.1:3"),
        ):
            join(connection, node_id=node, host=host, health=health, **facts)
        held = _read(connection, "test")
    assert set(held.health) == {"127.0.0.1:1", "10.0.0.1:2"}
    assert held.hidden == ("hidden",)
