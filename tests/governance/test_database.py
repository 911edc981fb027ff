"""Migrations, and the embedded server."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from governance import database
from governance.database import connect, migrate, schema_version
from governance.embedded import EmbeddedPostgres
from governance.errors import EmbeddedPostgresError, MigrationError
from tests.governance.proxy import OutageProxy


def test_migrating_twice_applies_everything_once(empty_dsn: str) -> None:
    first, second = migrate(empty_dsn), migrate(empty_dsn)
    assert first[0] == "0001_first"
    assert second == []
    with connect(empty_dsn) as connection:
        assert schema_version(connection) == len(first)


def test_many_processes_may_migrate_at_once(empty_dsn: str) -> None:
    applied: list[list[str]] = []
    threads = [threading.Thread(target=lambda: applied.append(migrate(empty_dsn))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(map(len, applied)) == [0] * 5 + [len(database.migrations())]


def test_a_migration_that_was_edited_after_it_was_applied_is_an_error(dsn: str) -> None:
    with connect(dsn) as connection:
        connection.execute("UPDATE migration SET sha256 = 'other'")
    with pytest.raises(MigrationError, match="0001_first was edited"):
        migrate(dsn)


def test_a_migration_that_fails_is_taken_back_whole(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0001_bad.sql").write_text("CREATE TABLE half (id integer); SELECT 1/0;")
    monkeypatch.setattr(database, "_MIGRATIONS", tmp_path)
    with pytest.raises(MigrationError, match="0001_bad"):
        migrate(empty_dsn)
    with connect(empty_dsn) as connection:
        assert schema_version(connection) == 0
        assert connection.execute("SELECT to_regclass('half') AS half").fetchone() == {"half": None}


def test_a_schema_that_is_not_there_has_version_zero(empty_dsn: str) -> None:
    with connect(empty_dsn) as connection:
        assert schema_version(connection) == 0


@pytest.mark.parametrize("table", ["artifact", "artifact_chunk", "release", "release_stage"])
def test_what_ran_can_neither_be_changed_nor_deleted(dsn: str, table: str, stages: Any) -> None:
    from governance.promotion import promote

    with connect(dsn) as connection:
        promote(connection, environment="qa", stages=stages, by="ann")
        for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET digest = digest"):
            sql = statement.replace("digest = digest", "number = number") if table == "release" else statement
            with pytest.raises(psycopg.errors.RaiseException, match="immutable"):
                connection.execute(sql.encode())


def test_whoever_is_cut_off_in_the_midst_of_a_transaction_holds_its_locks_no_longer(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(database._OF_SERVER, "idle_in_transaction_session_timeout", 300)
    lock = "LOCK TABLE member IN ACCESS EXCLUSIVE MODE"
    with OutageProxy(dsn) as proxy, connect(dsn, statement_timeout_s=20) as other:
        lost = connect(proxy.dsn)
        lost.execute("BEGIN")
        lost.execute(lock)
        proxy.deaf.set()
        with other.transaction():
            other.execute(lock)
        proxy.deaf.clear()
        with pytest.raises(psycopg.Error, match=r"idle-in-transaction|closed"):
            lost.execute("COMMIT")
        lost.close()


def test_the_server_is_asked_to_notice_dead_links_and_what_a_dsn_asks_for_itself_holds(dsn: str) -> None:
    with OutageProxy(dsn) as proxy:
        theirs = make_conninfo(proxy.dsn, options="-c idle_in_transaction_session_timeout=7s -c work_mem=5MB")
        for told, idle, memory in ((proxy.dsn, "30s", "4MB"), (theirs, "7s", "5MB")):
            with connect(told, statement_timeout_s=9) as connection:
                shown = {
                    name: connection.execute(f"SHOW {name}".encode()).fetchone()[name]  # type: ignore[index]
                    for name in ("idle_in_transaction_session_timeout", "work_mem", "statement_timeout")
                }
            assert list(shown.values()) == [idle, memory, "9s"]


def test_the_embedded_server_keeps_its_data_over_a_kill_and_leaves_nothing_running() -> None:
    import psutil

    with tempfile.TemporaryDirectory(prefix="scorewire-pg-") as directory:
        server = EmbeddedPostgres(Path(directory) / ("deep" * 20))  # too long for a socket's path
        with server:
            dsn = server.dsn
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("CREATE TABLE kept AS SELECT 42 AS n")
            server.kill()
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(dsn, connect_timeout=2)
            server.start()
            with psycopg.connect(dsn) as connection:
                assert connection.execute("SELECT n FROM kept").fetchone() == (42,)
        left = [p for p in psutil.process_iter(["cmdline"]) if directory in " ".join(p.info["cmdline"] or [])]
        assert not left


def test_an_embedded_server_that_cannot_start_says_why() -> None:
    with tempfile.TemporaryDirectory(prefix="scorewire-pg-") as directory:
        server = EmbeddedPostgres(Path(directory))
        with server:
            pass
        (Path(directory) / "data" / "postgresql.conf").write_text("no_such_setting = 1")
        with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
            server.start()
