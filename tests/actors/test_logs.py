"""Logs: the same facts for people and for machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from actors.logs import JsonFormatter, TextFormatter


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(out: io.StringIO) -> Iterator[tuple[logging.Logger, logging.StreamHandler[io.StringIO]]]:
    logger, handler = logging.getLogger("actors.test"), logging.StreamHandler(out)
    logger.addHandler(handler)
    yield logger, handler
    logger.removeHandler(handler)


def test_a_line_of_json_has_who_when_what_and_the_transaction(
    out: io.StringIO, log: tuple[logging.Logger, logging.StreamHandler[io.StringIO]]
) -> None:
    logger, handler = log
    handler.setFormatter(JsonFormatter({"environment": "test", "role": "scorer", "node": "scorer-0"}))
    logger.warning("a %s\nline", "second", extra={"transaction": "t-1", "release": 7})
    try:
        raise ValueError("broken")  # noqa: TRY301 - what is logged
    except ValueError:
        logger.exception("it failed", extra={"release": None, "transaction": ""})
    first, second = map(json.loads, out.getvalue().splitlines())
    assert first["at"].endswith("+00:00")
    assert {name: first[name] for name in first if name != "at"} == {
        "level": "warning",
        "logger": "actors.test",
        "message": "a second\nline",
        "environment": "test",
        "role": "scorer",
        "node": "scorer-0",
        "transaction": "t-1",
        "release": 7,
    }
    assert (second["error"]["type"], second["error"]["message"]) == ("ValueError", "broken")
    assert "test_logs.py" in second["error"]["stack"]
    assert not {"release", "transaction"} & set(second)


def test_a_line_for_people_ends_with_the_same_facts(
    out: io.StringIO, log: tuple[logging.Logger, logging.StreamHandler[io.StringIO]]
) -> None:
    logger, handler = log
    handler.setFormatter(TextFormatter("%(levelname)s %(message)s"))
    logger.error("it failed", extra={"transaction": "t-1", "release": 7})
    logger.error("nothing more")
    assert out.getvalue() == "ERROR it failed [transaction=t-1 release=7]\nERROR nothing more\n"
