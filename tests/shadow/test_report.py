"""Reports: on a terminal, as JSON and as a page, whatever stands in the transactions."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from governance.database import Connection, connect
from governance.policy import read_policy
from shadow.difference import compare
from shadow.figures import Figures, Options, figures
from shadow.report_commands import diff_command, report_command
from shadow.report_html import page
from shadow.report_terminal import show
from tests.shadow.reported import make, put, put_labels, put_live, start_shadow

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=https://example.com/x onerror=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[2J\x1b[31mred\x07",
    "[bold red]markup[/]",
    "\u202egnp.exe",
    "$\\mathrm{x}$",
    "]]> --> </svg></style>",
)


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        yield connection


@pytest.fixture
def shadows(connection: Connection, tmp_path: Path) -> tuple[int, int]:
    """Two shadows on the same labelled stream; the first is better."""
    first, second = start_shadow(connection, "first"), start_shadow(connection, "second")
    made = make(1_500, shadow=first)
    put(connection, made.rows)
    put(connection, make(1_500, shadow=second, better=0.2).rows)
    put_live(connection, made.rows)
    put_labels(connection, made, tmp_path)
    return first, second


@pytest.fixture
def app(dsn: str) -> typer.Typer:
    found = typer.Typer()
    found.command(name="report")(report_command(lambda _: (dsn, "qa")))
    found.command(name="diff")(diff_command(lambda _: (dsn, "qa")))
    return found


def terminal(found: Figures) -> str:
    console = Console(width=160, record=True, file=open("/dev/null", "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    with console.file:
        show(found, console)
    return console.export_text(styles=True)


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_in_a_transaction_gets_into_the_page_or_steers_the_terminal(connection: Connection) -> None:
    shadow = start_shadow(connection)
    made = make(600, shadow=shadow)
    rows = [
        replace(
            row,
            transaction_id=f"{i} {text}",
            champion_reasons=(text,),
            fields={text: text, "channel": text},
            champion_scores={text: 0.5, "a": 0.1},
            shadow_scores={text: 0.5, "a": 0.2},
            champion_us={text: 5},
            shadow_us={text: 6},
            drift={text: (1.0, 2.0)},
            # So that each of them is among what is told.
            shadow_score=row.champion_score + (i < 16),
        )
        for i, row in enumerate(made.rows)
        for text in [HOSTILE[i % len(HOSTILE)]]
    ]
    put(connection, rows)
    found = figures(connection, shadow)
    html = page(found)
    tags = Tags(html)
    assert not {"script", "img", "iframe", "object", "link", "a"} & {tag for tag, _ in tags.tags}
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in tags.text
    assert "{{ 7 * 7 }}" in tags.text
    assert "\\u202egnp.exe" in tags.text
    text = terminal(found)
    assert "\x1b[2J" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert "\\u001b[2J" in text
    assert "[bold red]markup[/]" in text


def test_a_page_asks_nothing_of_any_other_place(connection: Connection, shadows: tuple[int, int]) -> None:
    html = page(figures(connection, shadows[0]))
    tags = Tags(html)
    loading = ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href")
    links = [v for _, attributes in tags.tags for n, v in attributes.items() if n in loading]
    assert all(link and link.startswith("#") for link in links)
    assert not re.findall(r"url\((?!#)", html)
    assert "@import" not in html
    policy = next(a["content"] for tag, a in tags.tags if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert sum(tag == "svg" for tag, _ in tags.tags) == 8
    assert "prefers-color-scheme: dark" in html
    for heading in ("With labels", "Agreement", "Decisions", "most different", "Slices", "Drift", "Coverage"):
        assert heading in tags.text
    assert len(html) < 1_000_000


def test_what_is_not_known_is_said_instead_of_left_out(connection: Connection) -> None:
    shadow = start_shadow(connection)
    nothing = Tags(page(figures(connection, shadow))).text
    assert "There are no results yet" in nothing
    assert "Is a shadow node running" in nothing
    put(connection, make(50, shadow=shadow).rows)
    early = Tags(page(figures(connection, shadow))).text
    assert "Whether it is better: no transaction has a label yet" in early
    assert "not known yet" in early
    assert "Which of the two is better is not known yet" in terminal(figures(connection, shadow))


def test_two_shadows_are_compared_on_their_common_transactions(
    connection: Connection, shadows: tuple[int, int]
) -> None:
    first, second = shadows
    put(connection, make(300, shadow=second, seed=9).rows)  # of which the first has none
    found = compare(connection, first, second, Options(budget=0.05))
    assert found.numbers["observations"] == 1_500
    assert found.parts["names"] == {"champion": "first", "shadow": "second"}
    assert found.parts["verdict"] == "worse"
    forwards = figures(connection, first, Options(budget=0.05)).numbers
    backwards = figures(connection, second, Options(budget=0.05)).numbers
    assert found.numbers["auc_champion"] == pytest.approx(forwards["auc_shadow"])
    assert found.numbers["auc_shadow"] == pytest.approx(backwards["auc_shadow"])
    assert found.numbers["money_gain"] == pytest.approx(backwards["money_shadow"] - forwards["money_shadow"])
    assert "retire second" in found.parts["next"]
    assert "second beside shadow first" in Tags(page(found)).text


def test_the_commands_tell_people_scripts_and_browsers(
    app: typer.Typer, shadows: tuple[int, int], tmp_path: Path
) -> None:
    del shadows

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == code, done.output
        return done

    assert "The shadow is better than the champion" in run("report", "first").stdout
    file = tmp_path / "report.html"
    told = json.loads(run("report", "first", "--json", "--html", str(file), "--budget", "0.02").stdout)
    assert told["budget"] == 0.02
    assert told["figures"]["auc_gain_low"] > 0
    assert file.read_text().startswith("<!doctype html>")
    assert "first is better than second" in run("diff", "second", "first").stdout
    assert "no shadow 'none' in qa (there are: " in run("report", "none", code=2).stderr
    missing = run("report", "first", "--html", str(tmp_path / "no" / "where.html"), code=2)
    assert "cannot be written" in missing.stderr


def test_shadows_without_a_common_transaction_cannot_be_compared(
    app: typer.Typer, connection: Connection
) -> None:
    put(connection, make(10, shadow=start_shadow(connection, "one"), seed=1).rows)
    put(connection, make(10, shadow=start_shadow(connection, "two"), seed=2).rows)
    done = CliRunner().invoke(app, ["diff", "one", "two"])
    assert done.exit_code == 2
    assert "no transaction in common" in done.stderr


def test_the_page_on_reports_names_each_figure_and_its_commands_and_policy_are_right(
    app: typer.Typer, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "report.md").read_text()
    first, second = start_shadow(connection, "retrained"), start_shadow(connection, "bolder")
    made = make(1_000, shadow=first)
    put(connection, [replace(row, drift={"a": (1.0, 2.0)}) for row in made.rows])
    put(connection, make(1_000, shadow=second, better=0.2).rows)
    put_live(connection, made.rows)
    put_labels(connection, made, tmp_path)
    connection.execute(
        "INSERT INTO shadow_progress (environment, partition, node_id, position, high, behind_s)"
        " VALUES ('qa', 0, 'n', 10, 10, 0)"
    )
    named = set()
    for row in re.findall(r"^\| (`.*?) \|", text[text.index("## Figures") :], re.MULTILINE):
        name, *others = re.findall(r"`([a-z0-9_]+)`", row)
        named |= {name, *(name + other if other.startswith("_") else other for other in others)}
    assert named == set(figures(connection, first).numbers)
    policy = tomllib.loads(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    assert read_policy(policy).shadow is not None
    assert set(policy["shadow"]["figures"]) <= named
    monkeypatch.chdir(tmp_path)
    commands = [line for line in text.splitlines() if line.startswith("run.py shadow ")]
    assert len(commands) == 3
    for command in commands:
        done = CliRunner().invoke(app, command.split()[2:])
        assert done.exit_code == 0, done.output
    assert (tmp_path / "report.html").exists()


def test_without_the_libraries_of_reports_the_command_says_how_they_come(
    app: typer.Typer, shadows: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    del shadows
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "shadow.report_html")
    done = CliRunner().invoke(app, ["report", "first", "--html", "/dev/null"])
    assert done.exit_code == 2
    assert "need jinja2: pip install -e '.[report]'" in done.stderr
