"""What the doctor finds where something is wrong, and what it advises."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from actors.config import KafkaSettings, Settings
from actors.doctor.balancer import check_haproxy
from actors.doctor.database import check_database
from actors.doctor.finding import Finding
from actors.doctor.host import check_directories, check_limits, check_pages, check_ports
from haproxy.settings import HaproxySettings
from run import app
from shadow.broker import EmbeddedBroker
from shadow.doctor import check_broker
from transport.ports import free_ports_in_a_row


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(dsn="", cache=tmp_path / "cache", logs=tmp_path / "logs")


def levels(found: Iterable[Finding]) -> dict[str, str]:
    """Return check to level, the worst of it."""
    order = ("ok", "warning", "failure")
    worst: dict[str, str] = {}
    for one in found:
        worst[one.check] = max(worst.get(one.check, "ok"), one.level, key=order.index)
    return worst


def the(found: Iterable[Finding], level: str) -> Finding:
    (one,) = [one for one in found if one.level == level]
    assert one.advice
    return one


def test_a_database_as_it_should_be_is_found_well(settings: Settings, dsn: str) -> None:
    found = list(check_database(settings.model_copy(update={"dsn": dsn})))
    assert levels(found) == dict.fromkeys(("database", "clock", "schema", "rights", "notifications"), "ok")


def test_a_database_without_the_schema_and_one_of_newer_code_are_told_apart(
    settings: Settings, dsn: str, empty_dsn: str
) -> None:
    fault = the(check_database(settings.model_copy(update={"dsn": empty_dsn})), "failure")
    assert (fault.check, "run.py migrate" in fault.advice) == ("schema", True)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO migration (name, sha256) VALUES ('9999_later', '')")
    fault = the(check_database(settings.model_copy(update={"dsn": dsn})), "failure")
    assert (fault.check, "older than the schema" in fault.advice) == ("schema", True)


def test_a_login_without_rights_is_told_which_and_how_it_gets_them(settings: Settings, dsn: str) -> None:
    role = f"doctor_{time.time_ns()}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'".encode())
        connection.execute(f"GRANT SELECT ON migration TO {role}".encode())
        try:
            as_role = settings.model_copy(update={"dsn": make_conninfo(dsn, user=role, password="x")})
            fault = the(check_database(as_role), "failure")
            assert fault.check == "rights"
            assert "INSERT member" in fault.found
            connection.execute(fault.advice.removeprefix("as an administrator: ").encode())
            assert levels(check_database(as_role))["rights"] == "ok"
        finally:
            connection.execute(f"DROP OWNED BY {role}".encode())
            connection.execute(f"DROP ROLE {role}".encode())


def test_a_clock_that_is_wrong_is_told(settings: Settings, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here, wrong = settings.model_copy(update={"dsn": dsn}), time.time

    def clock(by: float) -> None:
        monkeypatch.setattr(time, "time", lambda: wrong() + by)

    clock(5.0)
    assert the(check_database(here), "warning").check == "clock"
    clock(-60.0)
    assert the(check_database(here), "failure").check == "clock"


def test_a_database_that_is_not_there_is_a_finding_without_its_password(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"dsn": "postgresql://ann:secret@127.0.0.1:1/none"})
    fault = the(check_database(nowhere), "failure")
    assert "secret" not in fault.found
    assert "127.0.0.1" in fault.found


def test_ports_that_are_taken_named_twice_or_wide_are_told_with_their_keys(settings: Settings) -> None:
    first = free_ports_in_a_row(2)
    with socket.create_server(("127.0.0.1", first)):
        here = settings.model_copy(
            update={"preprocessor": settings.preprocessor.model_copy(update={"port": first})}
        )
        fault = the(check_ports(here), "failure")
    assert "preprocessor.port:" in fault.found
    assert f"sport = :{first}" in fault.advice
    assert levels(check_ports(here)) == {"ports": "ok"}
    twice = here.model_copy(
        update={"scorer": settings.scorer.model_copy(update={"health_port": first + 1, "nodes": 1})}
    )
    fault = the(check_ports(twice), "failure")
    assert fault.found.startswith("scorer.health_port and preprocessor.port + 1 are both")
    wide = here.model_copy(
        update={"preprocessor": here.preprocessor.model_copy(update={"host": "0.0.0.0", "nodes": 1})}
    )
    assert "allow_wide_bind" in the(check_ports(wide), "failure").advice


def test_directories_that_cannot_be_or_are_nearly_full_are_told(settings: Settings, tmp_path: Path) -> None:
    assert levels(check_directories(settings)) == {"directories": "ok"}
    (tmp_path / "file").touch()
    fault = the(check_directories(settings.model_copy(update={"cache": tmp_path / "file" / "x"})), "failure")
    assert fault.found.startswith("cache:")
    much = settings.model_copy(
        update={
            "kafka": KafkaSettings(bootstrap_servers="127.0.0.1:1"),
            "tee": settings.tee.model_copy(update={"spool_mb": 1e9}),
        }
    )
    assert the(check_directories(much), "warning").found.startswith("tee.spool:")
    much = much.model_copy(update={"tee": settings.tee.model_copy(update={"memory_mb": 1e9})})
    assert the(check_directories(much), "warning").found.startswith("tee.rings:")


def test_few_open_files_are_told(settings: Settings) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        assert "1024 open files" in the(check_limits(settings), "warning").found
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_huge_pages_on_a_disk_are_told_where_they_are_asked_for(settings: Settings) -> None:
    assert levels(check_pages(settings)) == {"huge pages": "ok"}
    huge = settings.scorer.model_copy(update={"pages": "huge"})
    asked = settings.model_copy(update={"scorer": huge, "cache": Path("/proc/scorewire")})
    assert the(check_pages(asked), "warning").check == "huge pages"


def test_haproxy_is_asked_about_its_configuration(settings: Settings, tmp_path: Path) -> None:
    assert levels(check_haproxy(settings)) == {"haproxy": "ok"}
    named = HaproxySettings(directory=tmp_path / "h")
    assert levels(check_haproxy(settings.model_copy(update={"haproxy": named}))) == {"haproxy": "ok"}
    without = named.model_copy(update={"binary": tmp_path / "none"})
    assert (
        "haproxy.binary"
        in the(check_haproxy(settings.model_copy(update={"haproxy": without})), "failure").advice
    )
    certificate = named.model_copy(update={"certificate": tmp_path / "none.pem"})
    assert (
        "none.pem"
        in the(check_haproxy(settings.model_copy(update={"haproxy": certificate})), "failure").found
    )


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as found:
        yield found


def test_a_broker_without_topics_or_brokers_enough_is_told(
    settings: Settings, broker: EmbeddedBroker
) -> None:
    assert levels(check_broker(settings)) == {"broker": "ok"}
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, topic_prefix="none")
    fault = the(check_broker(settings.model_copy(update={"kafka": kafka})), "failure")
    assert "cannot hold 3 replicas" in fault.found
    alone = kafka.model_copy(update={"replication": 1})
    assert levels(check_broker(settings.model_copy(update={"kafka": alone}))) == {"broker": "ok"}
    strict = kafka.model_copy(update={"create_topics": False})
    fault = the(check_broker(settings.model_copy(update={"kafka": strict})), "failure")
    assert "none.production.live" in fault.found


def test_a_configuration_that_is_wrong_is_a_finding_for_each_key(tmp_path: Path) -> None:
    file = tmp_path / "scorewire.toml"
    file.write_text("environment = 'X'\n[scorer]\nnodes = -1\n")
    done = CliRunner().invoke(app, ["doctor", "--json", f"--config={file}"])
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert told["failures"] == len(told["findings"]) == 3
    assert {one["check"] for one in told["findings"]} == {"configuration"}
    assert any("scorer.nodes" in one["found"] for one in told["findings"])
