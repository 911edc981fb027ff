"""Whatever the membership is, HAProxy takes what is rendered from it."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from governance.membership import Member
from haproxy.binary import check, find_binary
from haproxy.errors import BinaryError, RefusedError
from haproxy.plan import Address, Options, read_address, servers_of, slots_for
from haproxy.render import render, structure
from tests.haproxy.certificates import write_certificate

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def member(**facts: Any) -> Member:
    known: dict[str, Any] = {
        "node_id": "n",
        "environment": "test",
        "role": "preprocessor",
        "host": "h",
        "pid": 1,
        "endpoints": ("tcp://127.0.0.1:7301",),
        "state": "ready",
        "release": 1,
        "release_at": NOW,
        "joined_at": NOW,
        "beat_at": NOW,
        "health": "127.0.0.1:8301",
    }
    return Member(**{**known, **facts})


def options(directory: Path, **facts: Any) -> Options:
    tcp, http, stats = (Address("127.0.0.1", port) for port in (17201, 17221, 17241))
    return Options(directory, tcp, http, stats, **facts)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "it's a certificate.pem")


addresses = st.one_of(
    st.tuples(st.ip_addresses(v=4), st.integers(1, 65535)).map(lambda a: f"tcp://{a[0]}:{a[1]}"),
    st.tuples(st.ip_addresses(v=6), st.integers(1, 65535)).map(lambda a: f"http://[{a[0]}]:{a[1]}"),
    st.sampled_from(["ipc:///tmp/x", "tcp://localhost:1", "tcp://0.0.0.0:7301", "tcp://host.example:7301"]),
    st.text(max_size=30),
    st.just("tcp://127.0.0.1:1 check\nbackend evil"),
)
nodes = st.builds(
    lambda role, state, endpoints, health: member(
        role=role, state=state, endpoints=tuple(endpoints), health=health
    ),
    st.sampled_from(["preprocessor", "scorer", "gateway", "console"]),
    st.sampled_from(["starting", "ready", "draining"]),
    st.lists(addresses, max_size=3),
    addresses,
)


@example(
    found=[member(endpoints=("tcp://[1::]:1",), health="[::ffff:1.2.3.4]:1")],
    tls=False,
    least=1,
    slow_start_s=0.0,
    workers=None,
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(nodes, max_size=12),
    tls=st.booleans(),
    least=st.sampled_from([1, 3, 16]),
    slow_start_s=st.sampled_from([0.0, 0.5, 30.0]),
    workers=st.sampled_from([None, 1, 2]),
)
def test_haproxy_takes_every_membership(
    tmp_path: Path,
    certificate: Path,
    found: list[Member],
    tls: bool,
    least: int,
    slow_start_s: float,
    workers: int | None,
) -> None:
    one = options(
        tmp_path, certificate=certificate if tls else None, slow_start_s=slow_start_s, workers=workers
    )
    servers = servers_of(found)
    slots = slots_for(servers, least)
    text = render(one, servers, slots)
    one.configuration.write_text(text, encoding="utf-8")
    check(find_binary(), one.configuration)
    placed = {line.split()[2] for line in text.splitlines() if line.strip().startswith("server ")}
    assert placed == {str(server.address) for some in servers.values() for server in some}
    assert "evil" not in text
    # Nodes alone change no structure: no reload is due for them.
    assert structure(one, slots) == structure(one, slots_for(servers_of([]), least, slots))


def test_a_node_that_is_not_ready_or_tells_no_health_is_left_out() -> None:
    found = [member(state="starting"), member(state="draining"), member(health=""), member(role="scorer")]
    assert not any(servers_of(found).values())


def test_places_are_doubled_when_they_run_out_and_stay() -> None:
    many = [
        member(node_id=str(n), endpoints=(f"tcp://127.0.0.1:{n}",), health="127.0.0.1:9") for n in range(1, 6)
    ]
    slots = slots_for(servers_of(many), 2)
    assert slots == {"preprocessor": 8}
    assert slots_for(servers_of([]), 2, slots) == slots
    gateway = member(role="gateway", endpoints=("http://127.0.0.1:8000",))
    assert slots_for(servers_of([gateway]), 2, slots) == {"preprocessor": 8, "gateway": 2}


def test_a_certificate_that_was_replaced_is_another_structure(tmp_path: Path) -> None:
    file = tmp_path / "tls.pem"
    one = options(tmp_path, certificate=file)
    file.write_text("old")
    before = structure(one, {"preprocessor": 1})
    file.write_text("new")
    assert structure(one, {"preprocessor": 1}) != before


@pytest.mark.parametrize(
    "text",
    ["tcp://0.0.0.0:1", "[::]:1", "tcp://host:1", "127.0.0.1", "tcp://1.2.3.4:0", "", "[fe80::1%a b]:1"],
)
def test_what_is_no_definite_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_address(text)


def test_what_haproxy_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    file = tmp_path / "bad.cfg"
    file.write_text("frontend x\n    bind nowhere\n")
    with pytest.raises(RefusedError, match="bind"):
        check(find_binary(), file)


def test_a_program_that_is_not_haproxy_is_named(tmp_path: Path) -> None:
    with pytest.raises(BinaryError, match="is no program"):
        find_binary(tmp_path / "haproxy")
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho HAProxy version 2.4.1\n")
    script.chmod(0o755)
    with pytest.raises(BinaryError, match=r"2\.6 or newer"):
        find_binary(script)
    assert subprocess.run([find_binary(), "-v"], check=False).returncode == 0
