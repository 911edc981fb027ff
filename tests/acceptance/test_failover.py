"""A primary that dies and a standby that takes its place; and PgBouncer before all that does not listen."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from examples.card_payments import PAYMENT_SPEC
from governance.audit import verify
from governance.canary import Canary, finish, set_percent
from governance.changes import rollback
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres, _binaries, _stand_in
from governance.history import history
from governance.policy import read_policy, set_policy
from governance.rollouts import rollouts, wait_settled
from tests.acceptance.conftest import System, start_system, wait_until
from tests.acceptance.test_system import live_stream, models, more, payments
from transport.client import Answer, Client

__all__ = ["models", "payments"]  # fixtures

LIMIT_S = 60


class At:
    """A server as start_system takes it, reached by another way."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn


@contextmanager
def standby_of(primary: EmbeddedPostgres, directory: Path) -> Iterator[EmbeddedPostgres]:
    """A streaming standby of a server, which answers what is only read."""
    standby = EmbeddedPostgres(directory)
    directory.mkdir()
    user = _stand_in()
    if user:
        shutil.chown(directory, user["user"], user["group"])
    program, data = str(_binaries() / "pg_basebackup"), str(directory / "data")
    command = [program, "-D", data, "-d", primary.dsn, "-R", "-c", "fast"]
    done = subprocess.run(command, **user, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with standby:
        yield standby


def wait_for_standby(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    """Wait until the standby has all that the primary has."""
    with psycopg.connect(primary.dsn) as one:
        row = one.execute("SELECT pg_current_wal_lsn()").fetchone()
    give_up_at = time.monotonic() + LIMIT_S
    with psycopg.connect(standby.dsn, autocommit=True) as other:
        while time.monotonic() < give_up_at:
            reached = other.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone()
            if reached and reached[0]:
                return
            time.sleep(0.02)
    pytest.fail("the standby does not keep up")


def set_up(system: System, models: list[Path]) -> None:
    system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
    for number, path in enumerate(models, 1):
        system.register(path, "bundle", f"forest-{number}")
    system.wait_for_nodes()
    assert system.promote(features="card-payments", model="forest-1").state == "active"


def test_nodes_serve_through_a_failover_and_take_up_what_the_new_primary_says(
    models: list[Path], payments: list[dict[str, Any]]
) -> None:
    with tempfile.TemporaryDirectory(prefix="scorewire-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with EmbeddedPostgres(directory / "one") as primary:
            migrate(primary.dsn)
            with standby_of(primary, directory / "two") as standby:
                hosts = [str(directory / one / "socket") for one in ("one", "two")]
                dsn = make_conninfo(
                    primary.dsn, host=",".join(hosts), port="5432,5432", target_session_attrs="read-write"
                )
                system = start_system(directory / "nodes", At(dsn), preprocessors=1, scorers=1)  # type: ignore[arg-type]
                try:
                    set_up(system, models)
                    with live_stream(system, payments) as results:
                        more(results, wait_until)
                        wait_for_standby(primary, standby)
                        primary.kill()
                        wait_until(
                            lambda: all(
                                "waiting for the database" in system.log(node) for node in system.host.pids()
                            ),
                            "every node has lost it",
                        )
                        more(results, wait_until)
                        with psycopg.connect(standby.dsn, autocommit=True) as connection:
                            connection.execute("SELECT pg_promote()")
                        system.wait_for_nodes()
                        settled = system.promote(model="forest-2")
                        assert settled.state == "active"
                        more(results, wait_until)
                        assert isinstance(results[-1], Answer)
                        assert results[-1].trace.release == settled.release.number
                    with connect(dsn) as connection:
                        verify(connection)
                        numbers = [tenure.number for tenure in history(connection, "test")]
                    assert numbers == [2, 1]
                finally:
                    system.host.stop()


def answers(dsn: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def pgbouncer(server: EmbeddedPostgres, directory: Path) -> Iterator[str]:
    """PgBouncer in transaction mode, with two connections for all; gives its DSN."""
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip("there is no pgbouncer: `apt-get install pgbouncer` brings it")
    directory.mkdir()
    settings = directory / "pgbouncer.ini"
    socket = str(psycopg.conninfo.conninfo_to_dict(server.dsn)["host"])
    settings.write_text(
        f"[databases]\n* = host={socket} port=5432 user=postgres\n[pgbouncer]\npool_mode = transaction\n"
        f"auth_type = any\nunix_socket_dir = {directory}\nlisten_port = 6432\ndefault_pool_size = 2\n"
        "ignore_startup_parameters = options\n"
    )
    user = _stand_in()
    for path in (directory, settings):
        if user:
            shutil.chown(path, user["user"], user["group"])
    # It tells of each connection: a pipe that nobody reads would stop it.
    log = (directory / "log").open("wb")
    process = subprocess.Popen([found, str(settings)], **user, stderr=log)
    try:
        dsn = make_conninfo(server.dsn, host=str(directory), port=6432)
        wait_until(lambda: answers(dsn, process), f"PgBouncer answers: {log.name}")
        yield dsn
    finally:
        process.terminate()
        process.wait(LIMIT_S)
        log.close()


def test_all_but_what_listens_works_through_pgbouncer_in_transaction_mode(
    models: list[Path], payments: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="scorewire-test-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        with EmbeddedPostgres(directory / "pg") as server, pgbouncer(server, directory / "b") as pooled:
            # Nodes are told both; everything that this test does itself goes through the pool.
            monkeypatch.setenv("SCOREWIRE_LISTEN_DSN", server.dsn)
            migrate(server.dsn)
            system = start_system(directory / "nodes", At(pooled), preprocessors=1, scorers=1)  # type: ignore[arg-type]
            try:
                set_up(system, models)
                with connect(pooled) as one, connect(pooled) as two, connect(pooled) as three:
                    # More clients than connections, each statement more often than it takes to be prepared.
                    for _ in range(8):
                        for connection in (one, two, three):
                            assert history(connection, "test")
                            assert rollouts(connection, "test")
                    set_policy(two, "test", read_policy({"latency_us": 1e6}), by="olga", reason="x")
                    system.promote(model="forest-2")
                    back = rollback(three, "test", by="bob", reason="x")
                    assert wait_settled(three, back.id, timeout_s=LIMIT_S).state == "active"
                with Client(system.addresses(), deadline=20.0) as client:
                    assert client.score(payments[0]).trace.environment == "test"
                with connect(pooled) as one, connect(pooled) as two:
                    start_canary(system)
                    set_percent(one, "test", 50, by="ann", reason="x")
                    finish(two, "test", by="ann", reason="x", prepare_s=30)
                    verify(one)
            finally:
                system.host.stop()


def start_canary(system: System) -> None:
    from governance.promotion import promote

    with connect(system.settings.dsn) as connection:
        stages = {"model": system.digests["forest-2"]}
        opened = promote(connection, environment="test", stages=stages, by="ann", canary=Canary(5.0))
        assert wait_settled(connection, opened.id, timeout_s=LIMIT_S).state == "active"
