"""The page of observability, dashboards and alert rules speak of figures that there are."""

from __future__ import annotations

from pathlib import Path

from tests.metrics import CATALOGUE, table

ROOT = Path(__file__).parents[1]


def test_the_page_lists_every_figure_as_it_is_declared() -> None:
    assert table() in (ROOT / "docs" / "observability.md").read_text()
    assert len(CATALOGUE) > 80


def test_figures_are_named_as_prometheus_wants_it() -> None:
    for name, metric in CATALOGUE.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        assert metric.help.endswith("."), name
        assert "\n" not in metric.help
