"""Storing: each result once, in the table and in the summary, whoever stores it how often."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from governance.database import Connection, connect
from shadow.result import row_of
from shadow.store import store_results
from tests.shadow.rows import COUNTING, NOON, result


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with connect(dsn) as connection:
        add_shadow(connection)
        yield connection


def add_shadow(connection: Connection) -> None:
    connection.execute("INSERT INTO environment VALUES ('qa') ON CONFLICT DO NOTHING")
    connection.execute(
        "INSERT INTO shadow (environment, name, overrides, started_by, state_by)"
        " VALUES ('qa', 'one', '{\"model\": \"x\"}', 'ann', 'ann')"
    )


def counted(connection: Connection) -> tuple[int, int]:
    """Return the rows in the table, and in the summary."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM shadow_result) AS rows,"
        " (SELECT coalesce(sum((document ->> 'count')::integer), 0) FROM shadow_summary) AS summed"
    ).fetchone()
    assert row is not None
    return row["rows"], row["summed"]


def test_rows_are_read_back_as_they_were(connection: Connection) -> None:
    rows = [result(1), result(2, drift={"a": (1.0, 2.5)}, champion_outcome=None, amount=None)]
    assert store_results(connection, rows, COUNTING) == 2
    found = connection.execute("SELECT * FROM shadow_result ORDER BY transaction_id").fetchall()
    assert [row_of(record) for record in found] == rows


def test_rows_that_come_again_change_nothing(connection: Connection) -> None:
    rows = [result(number) for number in range(100)]
    assert store_results(connection, rows, COUNTING) == 100
    assert store_results(connection, rows[50:] + rows[:60] + [result(100)], COUNTING) == 1
    assert store_results(connection, [result(200), result(200)], COUNTING) == 1
    assert store_results(connection, [], COUNTING) == 0
    assert counted(connection) == (102, 102)


def test_the_summary_is_kept_by_the_hour(connection: Connection) -> None:
    store_results(connection, [result(number) for number in range(90)], COUNTING)
    found = connection.execute("SELECT * FROM shadow_summary ORDER BY hour").fetchall()
    assert [(row["hour"], row["document"]["count"]) for row in found] == [
        (NOON, 60),
        (NOON.replace(hour=13), 30),
    ]


def test_nodes_that_store_the_same_rows_at_once_wait_for_each_other(dsn: str, connection: Connection) -> None:
    def work(seed: int) -> int:
        shuffled = [result(number) for number in range(600)]
        random.Random(seed).shuffle(shuffled)
        with connect(dsn) as own:
            return sum(store_results(own, shuffled[at : at + 100], COUNTING) for at in range(0, 600, 100))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 600
    assert counted(connection) == (600, 600)


def test_a_batch_that_fails_leaves_nothing(connection: Connection) -> None:
    with pytest.raises(psycopg.Error):
        store_results(connection, [result(1), result(2, transaction_id="x\0")], COUNTING)
    assert counted(connection) == (0, 0)


def test_a_node_stores_and_changes_nothing_that_is_stored(dsn: str, connection: Connection) -> None:
    with connect(dsn) as node:
        node.execute("SET ROLE scorewire_node")
        assert store_results(node, [result(1)], COUNTING) == 1
        for statement in ("UPDATE shadow_result SET amount = 1", "DELETE FROM shadow_result"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                node.execute(statement.encode())
    with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
        connection.execute("UPDATE shadow_result SET amount = 1")
