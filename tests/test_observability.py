"""The page of observability, dashboards and alert rules speak of figures that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.pictures.prometheus import DASHBOARDS, queries
from tests.metrics import CATALOGUE, table
from tests.prometheus import MISSING, PROMTOOL, RULES, alerts, selectors

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "observability.md"
QUERIES = [
    *((f"{one.dashboard}: {one.panel}", one.expression) for one in queries("test")),
    *((alert["alert"], alert["expr"]) for alert in alerts()),
]
#: The labels that figures have.
LABELS = {
    *("environment", "role", "node", "life", "actor", "code", "stage", "state", "le", "process", "package"),
    *("shadow", "partition", "arm", "release", "status"),
}


def test_the_page_lists_every_figure_as_it_is_declared() -> None:
    assert table() in PAGE.read_text()
    assert len(CATALOGUE) > 80


def test_figures_are_named_as_prometheus_wants_it() -> None:
    for name, metric in CATALOGUE.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert metric.help.endswith("."), name
        assert "\n" not in metric.help


@pytest.mark.parametrize(("what", "query"), QUERIES)
def test_each_query_asks_for_figures_and_labels_that_there_are(what: str, query: str) -> None:
    found = list(selectors(query))
    assert found, what
    for selector in found:
        name = re.sub("_(bucket|sum|count)$", "", selector.name or "")
        metric = CATALOGUE[name]
        assert (name != selector.name) == (metric.kind == "histogram"), selector.name
        assert {one.name for one in selector.matchers.matchers} <= LABELS
    for labels in re.findall(r"by \(([^)]*)\)", query):
        assert {one.strip() for one in labels.split(",")} <= LABELS
    counters = [one for one in found if (one.name or "").endswith(("_total", "_bucket", "_sum", "_count"))]
    assert len(counters) == len(re.findall(r"(?:rate|increase)\(", query)), "a counter alone says nothing"


def test_the_dashboards_and_alerts_are_many_enough_to_be_worth_it() -> None:
    assert [file.stem for file in DASHBOARDS] == ["live", "stream"]
    assert len({(one.dashboard, one.panel) for one in queries("test")}) > 30
    assert len(list(alerts())) > 20


def test_the_page_says_for_each_alert_what_to_do() -> None:
    page = PAGE.read_text()
    for alert in alerts():
        assert f"| `{alert['alert']}` |" in page, alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"]["summary"]


@pytest.mark.skipif(PROMTOOL is None, reason=MISSING)
def test_alerts_fire_when_they_should_and_not_else() -> None:
    assert PROMTOOL is not None
    for arguments in (["check", "rules", str(RULES)], ["test", "rules", "alerts.yml"]):
        done = subprocess.run(
            [PROMTOOL, *arguments], cwd=ROOT / "tests", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
