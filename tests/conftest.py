"""A real PostgreSQL for all tests, and a fresh database for each test that asks."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from governance.database import migrate
from governance.embedded import EmbeddedPostgres

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server_dsn() -> Iterator[str]:
    """A server: the one that SCOREWIRE_TEST_DSN names, or an embedded one."""
    named = os.environ.get("SCOREWIRE_TEST_DSN")
    if named:
        yield named
        return
    # Not pytest's own directory, which only its user may enter: as root, PostgreSQL runs as another user.
    with (
        tempfile.TemporaryDirectory(prefix="scorewire-pg-") as directory,
        EmbeddedPostgres(Path(directory)) as pg,
    ):
        yield pg.dsn


@pytest.fixture(scope="session")
def template(server_dsn: str) -> str:
    """A migrated database to copy from: copying takes a tenth of migrating."""
    name = f"scorewire_template_{os.getpid()}"
    _create(server_dsn, name, "template1")
    migrate(make_conninfo(server_dsn, dbname=name))
    return name


@pytest.fixture
def dsn(server_dsn: str, template: str) -> Iterator[str]:
    """A fresh, migrated database."""
    yield from _database(server_dsn, template)


@pytest.fixture
def empty_dsn(server_dsn: str) -> Iterator[str]:
    """A fresh database without a schema."""
    yield from _database(server_dsn, "template1")


def _database(server_dsn: str, template: str) -> Iterator[str]:
    name = f"scorewire_test_{os.getpid()}_{next(_numbers)}"
    _create(server_dsn, name, template)
    yield make_conninfo(server_dsn, dbname=name)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def _create(server_dsn: str, name: str, template: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
