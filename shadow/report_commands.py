"""The sub-commands `shadow report` and `shadow diff`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from governance.terminal import ConfigOption, JsonOption, Locate, connected, fail
from shadow.errors import ShadowError

BudgetOption = Annotated[
    float | None,
    typer.Option(
        help="Share of the transactions that may be alerted, such as 0.01.",
        show_default="what the champion does not approve",
        min=0.000_001,
        max=1,
    ),
]
AlertCostOption = Annotated[
    float, typer.Option(help="What looking at one alert costs, in the unit of the amounts.", min=0)
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write a page with pictures to this file.", dir_okay=False)
]


def report_command(locate: Locate) -> Callable[..., None]:
    """Return the sub-command `report`, which finds its database by `locate`."""
    return _ReportCommands(locate).report


def diff_command(locate: Locate) -> Callable[..., None]:
    """Return the sub-command `diff`, which finds its database by `locate`."""
    return _ReportCommands(locate).diff


class _ReportCommands:
    def __init__(self, locate: Locate) -> None:
        self._locate = locate

    def report(
        self,
        name: Annotated[str, typer.Argument(help="The shadow.")],
        budget: BudgetOption = None,
        alert_cost: AlertCostOption = 0.0,
        html: HtmlOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Compare a shadow with the champion: agreement, decisions, slices, time, and what it gains.

        It can be asked for while the shadow runs, and takes as long after a year as after a day: counts are
        of all results, correlations and curves of a uniform sample, with intervals that say how sure they
        are. What is gained needs labels (`run.py labels import`).
        """
        with failing_plainly():
            # They load scipy, which no other command needs.
            from shadow.figures import Options, figures  # noqa: PLC0415
            from shadow.reading import find_shadow  # noqa: PLC0415

            with connected(self._locate, config) as (connection, environment):
                options = Options(budget=budget, alert_cost=alert_cost)
                found = figures(connection, find_shadow(connection, environment, name), options)
            _tell(found, html, as_json=as_json)

    def diff(
        self,
        first: Annotated[str, typer.Argument(help="A shadow.")],
        second: Annotated[str, typer.Argument(help="Another shadow.")],
        budget: BudgetOption = None,
        alert_cost: AlertCostOption = 0.0,
        html: HtmlOption = None,
        config: ConfigOption = None,
        as_json: JsonOption = False,
    ) -> None:
        """Compare two shadows with each other, on the transactions that both evaluated."""
        with failing_plainly():
            from shadow.difference import compare  # noqa: PLC0415
            from shadow.figures import Options  # noqa: PLC0415
            from shadow.reading import find_shadow  # noqa: PLC0415

            with connected(self._locate, config) as (connection, environment):
                both = [find_shadow(connection, environment, name) for name in (first, second)]
                options = Options(budget=budget, alert_cost=alert_cost)
                found = compare(connection, both[0], both[1], options)
            _tell(found, html, as_json=as_json)


@contextmanager
def failing_plainly() -> Iterator[None]:
    """End the command with a sentence instead of a traceback."""
    try:
        yield
    except ShadowError as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        fail(f"the figures of a shadow need {error.name}: pip install -e '.[report]' in this directory")


def _tell(found: Any, html: Path | None, *, as_json: bool) -> None:
    """Write a page, if one is asked for; print JSON, or the report for a person."""
    if html is not None:
        from shadow.report_html import page  # noqa: PLC0415 - it loads matplotlib

        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            fail(f"{html} cannot be written: {error.strerror}")
    if as_json:
        typer.echo(json.dumps(found.document()))
    elif html is not None:
        Console().print(f"written to {html}", highlight=False, markup=False)
    else:
        from shadow.report_terminal import show  # noqa: PLC0415

        show(found, Console())
