"""Migrations, and the embedded server."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest

from governance import database
from governance.database import connect, migrate, schema_version
from governance.embedded import EmbeddedPostgres
from governance.errors import EmbeddedPostgresError, MigrationError


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
