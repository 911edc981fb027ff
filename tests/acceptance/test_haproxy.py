"""Callers behind two real HAProxies: nodes come, leave, die and hang, and so do the HAProxies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier
from typer.testing import CliRunner

from actors.balancer import setup_of
from actors.config import load_settings
from examples.card_payments import PAYMENT_SPEC, simulate
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import beat, join, leave
from haproxy.runtime import Runtime, Slot
from models.importers import import_model
from models.spec import load_spec
from run import app
from tests.acceptance.conftest import start_system, wait_until
from tests.haproxy.certificates import write_certificate
from transport.client import Answer, Client
from transport.ports import free_ports_in_a_row


@pytest.fixture(scope="module")
def payments() -> list[dict[str, Any]]:
    return simulate(n=500, seed=3)[0]


@pytest.fixture(scope="module")
def served() -> Iterator[Any]:
    """Two preprocessors and a scorer behind two HAProxies."""
    with (
        tempfile.TemporaryDirectory(prefix="sw-") as name,
        EmbeddedPostgres(Path(name) / "postgres") as postgres,
    ):
        migrate(postgres.dsn)
        first = free_ports_in_a_row(6)
        section = (
            f"[haproxy]\ninstances = 2\nslots = 2\nport = {first}\nhttp_port = {first + 2}\n"
            f"stats_port = {first + 4}\ndirectory = {json.dumps(name + '/haproxy')}\n"
            "check_ms = 100\nslow_start_s = 1\ndrain_s = 1\n"
            f"certificate = {json.dumps(str(write_certificate(Path(name) / 'tls.pem')))}\n"
        )
        system = start_system(Path(name), postgres, preprocessors=2, scorers=1, more=section)
        try:
            system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
            spec = load_spec(PAYMENT_SPEC)
            transactions, labels = simulate(n=1_000, seed=3)
            forest = RandomForestClassifier(10, random_state=1).fit(spec.matrix(transactions), labels)
            import_model(forest, Path(name) / "forest", feature_names=list(spec.feature_names))
            system.register(Path(name) / "forest", "bundle", "forest")
            system.wait_for_nodes()
            assert system.promote(features="card-payments", model="forest").state == "active"
            wait_until(lambda: all(len(up(system, index)) == 2 for index in (0, 1)), "both see both nodes")
            yield system
        finally:
            system.host.stop()
        assert not list(Path("/proc").glob("*/cmdline")) or not leftover(name)


def leftover(directory: str) -> list[bytes]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = file.read_bytes()
        except OSError:
            continue
        if directory.encode() + b"/haproxy" in command:
            found.append(command)
    return found


def slots(system: Any, index: int) -> list[Slot]:
    runtime = Runtime(setup_of(system.settings).instances[index].socket)
    try:
        return [slot for slot in runtime.slots() if not slot.idle]
    except Exception:  # noqa: BLE001 - it is being killed
        return []


def up(system: Any, index: int) -> list[Slot]:
    return [slot for slot in slots(system, index) if slot.serves]


def addresses(system: Any) -> list[str]:
    return [f"tcp://{options.tcp}" for options in setup_of(system.settings).instances]


def haproxy_pid(system: Any, index: int) -> int:
    return int(setup_of(system.settings).instances[index].pid_file.read_text())


@contextmanager
def traffic(system: Any, payments: list[dict[str, Any]]) -> Iterator[list[Answer]]:
    """Score without a pause meanwhile, from two threads; an error ends the test."""
    answers: list[Answer] = []
    errors: list[Exception] = []
    stop = threading.Event()
    with Client(addresses(system), deadline=5.0, connections=3) as client:

        def call() -> None:
            number = 0
            while not stop.is_set():
                try:
                    answers.append(client.score(payments[number % len(payments)]))
                except Exception as error:  # noqa: BLE001 - shown below
                    errors.append(error)
                    return
                number += 1

        threads = [threading.Thread(target=call) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: len(answers) > 50 or errors, "traffic flows")
            yield answers
            count = len(answers)
            wait_until(lambda: len(answers) > count + 50 or errors, "traffic flows on")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    assert not errors, errors


def more(answers: list[Answer], condition: Callable[[list[Answer]], Any], what: str) -> None:
    """Wait until what was answered from now on fulfils a condition."""
    count = len(answers)
    wait_until(lambda: condition(answers[count:]), what)


def test_requests_are_spread_over_the_nodes_behind_both(served: Any, payments: list[dict[str, Any]]) -> None:
    with traffic(served, payments) as answers:
        more(answers, lambda new: len({a.trace.nodes["preprocessor"] for a in new}) == 2, "both nodes answer")
        wait_until(
            lambda: all(slot.sessions for index in (0, 1) for slot in up(served, index)),
            "both HAProxies lead to both",
        )


@pytest.mark.parametrize("how", ["kill", "stop", "term"])
def test_callers_do_not_notice_that_a_node_dies_hangs_or_leaves(
    served: Any, payments: list[dict[str, Any]], how: str
) -> None:
    name = {"kill": "preprocessor-0", "stop": "preprocessor-1", "term": "preprocessor-0"}[how]
    with traffic(served, payments) as answers:
        pid = served.host.pids()[name]
        os.kill(pid, {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[how])
        try:
            wait_until(lambda: all(len(up(served, index)) < 2 for index in (0, 1)), "both leave it out")
            more(answers, lambda new: len(new) > 50, "the other one answers")
        finally:
            if how == "stop":
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: all(len(up(served, index)) == 2 for index in (0, 1)), "both have it back")
    wait_until(lambda: len(served.members()) == 3, "all are members")


def test_callers_do_not_notice_that_a_haproxy_dies(served: Any, payments: list[dict[str, Any]]) -> None:
    with traffic(served, payments) as answers:
        for index in (0, 1):
            before = haproxy_pid(served, index)
            os.kill(before, signal.SIGKILL)
            wait_until(lambda: haproxy_pid_or_none(served, index) not in (None, before), "it is back")  # noqa: B023
            wait_until(lambda: len(up(served, index)) == 2, "with its nodes")  # noqa: B023
            more(answers, lambda new: len(new) > 50, "answers come")


def haproxy_pid_or_none(system: Any, index: int) -> int | None:
    try:
        return haproxy_pid(system, index)
    except (OSError, ValueError):
        return None


def test_an_agent_that_dies_leaves_haproxy_and_the_next_one_adopts_it(served: Any) -> None:
    before, agent = haproxy_pid(served, 0), served.host.pids()["haproxy-0"]
    os.kill(agent, signal.SIGKILL)
    wait_until(lambda: served.host.pids().get("haproxy-0") not in (None, agent), "another agent runs")
    assert haproxy_pid(served, 0) == before
    with joined(served, "haproxy-adopts", 9):
        wait_until(lambda: len(slots(served, 0)) == 3, "the new agent steers it")
    assert haproxy_pid(served, 0) == before


def test_a_reload_for_more_places_drops_no_connection(served: Any, payments: list[dict[str, Any]]) -> None:
    with Client(addresses(served)[:1], deadline=5.0, connections=2) as client:
        client.score(payments[0])
        before = description(served, 0)
        with joined(served, "crowd", 10), joined(served, "crowd", 11), joined(served, "crowd", 12):
            wait_until(lambda: description(served, 0) not in ("", before), "another structure runs")
            for payment in payments[:50]:
                client.score(payment)
            assert client.inspect()["counters"]["retried"] == 0


def description(system: Any, index: int) -> str:
    try:
        return Runtime(setup_of(system.settings).instances[index].socket).info().get("description", "")
    except Exception:  # noqa: BLE001 - it is being reloaded
        return ""


@contextmanager
def joined(system: Any, name: str, port: int, role: str = "preprocessor") -> Iterator[None]:
    """Enter a node that says it is ready, whoever answers there."""
    node, stop = f"{name}-{port}", threading.Event()
    word: dict[str, Any] = {
        "state": "ready",
        "release": None,
        "endpoints": (f"tcp://127.0.0.1:{port}",),
        "health": f"127.0.0.1:{port}",
    }

    def go_on() -> None:
        with connect(system.settings.dsn) as connection:
            join(
                connection,
                node_id=node,
                environment="test",
                role=role,
                host="elsewhere",
                pid=1,
                **word,
            )
            while not stop.wait(0.5):
                beat(connection, node, **word)
            leave(connection, node)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def gateway() -> Iterator[int]:
    """Run what stands for a gateway, and give its port."""
    program = [sys.executable, str(Path(__file__).with_name("gateway.py"))]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def test_callers_over_http_reach_gateways_through_tls_as_soon_as_there_are_any(
    served: Any, payments: list[dict[str, Any]]
) -> None:
    setup = setup_of(served.settings).instances[0]
    trusted = ssl.create_default_context(cafile=str(setup.certificate))
    with gateway() as port, traffic(served, payments), joined(served, "gateway", port, "gateway"):

        def ask() -> bytes:
            with contextlib.suppress(OSError):  # not there yet
                url = f"https://{setup.http}/score"
                with urllib.request.urlopen(url, context=trusted, timeout=10) as reply:
                    return bytes(reply.read())
            return b""

        assert wait_until(ask, "the gateway is reached") == b"/score https"


def test_people_and_prometheus_see_it(served: Any) -> None:
    stats = setup_of(served.settings).instances[0].stats
    with urllib.request.urlopen(f"http://{stats}/metrics") as reply:
        assert b"haproxy_server_check_status" in reply.read()
    with urllib.request.urlopen(f"http://{stats}/") as reply:
        assert b"preprocessor" in reply.read()
    runner = CliRunner()

    def told() -> list[list[str]]:
        said = runner.invoke(app, ["haproxy", "status", "--json", "-c", str(served.file)])
        assert said.exit_code == 0
        return [
            [server["status"] for server in one["servers"] if server["role"] == "preprocessor"]
            for one in json.loads(said.stdout)["haproxies"]
        ]

    # Those that died in the tests before are down until their time is over, and then leave.
    wait_until(lambda: told() == [["UP", "UP"], ["UP", "UP"]], "the two that live, at both")
    checked = runner.invoke(app, ["haproxy", "check", "--json", "-c", str(served.file)])
    assert json.loads(checked.stdout)["valid"]
    applied = runner.invoke(app, ["haproxy", "apply", "--json", "-c", str(served.file)])
    assert applied.exit_code == 0, applied.stderr


def test_a_node_says_of_itself_how_it_is(served: Any) -> None:
    for member in served.wait_for_nodes():
        with urllib.request.urlopen(f"http://{member.health}/ready") as reply:
            told = json.load(reply)
        assert (told["state"], told["node"], told["release"]) == ("ready", member.node_id, member.release)
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(f"http://{member.health}/")


def test_without_the_database_haproxies_go_on_and_take_nobody_out_after(
    served: Any, payments: list[dict[str, Any]]
) -> None:
    with traffic(served, payments) as answers:
        served.postgres.kill()
        try:
            more(answers, lambda new: len(new) > 50, "answers come")
        finally:
            served.postgres.start()
        until = time.monotonic() + 3.0
        while time.monotonic() < until:  # all beats are old for a while
            assert all(len(up(served, index)) == 2 for index in (0, 1))
        wait_until(lambda: len(served.members()) == 3, "all are members again")


def test_a_configuration_without_haproxy_says_what_to_add(tmp_path: Path) -> None:
    file = tmp_path / "scorewire.toml"
    file.write_text("dsn = 'postgresql://localhost/x'\n")
    assert load_settings(file).haproxy is None
    told = CliRunner().invoke(app, ["haproxy", "render", "-c", str(file)])
    assert told.exit_code == 2
    assert "[haproxy]" in told.stderr
