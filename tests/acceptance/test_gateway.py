"""Gateways as nodes: they join, serve, take part in rollouts, and leave without a loss, behind TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sklearn.ensemble import RandomForestClassifier

from actors.balancer import setup_of
from examples.card_payments import PAYMENT_SPEC, simulate
from governance.database import migrate
from governance.embedded import EmbeddedPostgres
from haproxy.runtime import Runtime
from models.importers import import_model
from models.spec import load_spec
from tests.acceptance.conftest import start_system, wait_until
from tests.haproxy.certificates import write_certificate
from transport.ports import free_ports_in_a_row

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def payments() -> list[dict[str, Any]]:
    return simulate(n=500, seed=3)[0]


@pytest.fixture(scope="module")
def served(payments: list[dict[str, Any]]) -> Iterator[Any]:
    """Two gateways behind HAProxy with a certificate, a preprocessor and a scorer, with a release."""
    with (
        tempfile.TemporaryDirectory(prefix="sw-") as name,
        EmbeddedPostgres(Path(name) / "postgres") as postgres,
    ):
        migrate(postgres.dsn)
        first = free_ports_in_a_row(3)
        more = (
            "[gateway]\nnodes = 2\nport = 0\n"
            f"[haproxy]\nport = {first}\nhttp_port = {first + 1}\nstats_port = {first + 2}\n"
            f"check_ms = 100\nslow_start_s = 0\ndirectory = {json.dumps(name + '/haproxy')}\n"
            f"certificate = {json.dumps(str(write_certificate(Path(name) / 'tls.pem')))}\n"
        )
        system = start_system(Path(name), postgres, preprocessors=1, scorers=1, more=more)
        try:
            spec = load_spec(PAYMENT_SPEC)
            forest = RandomForestClassifier(5, random_state=1).fit(
                spec.matrix(payments), [n % 2 for n in range(len(payments))]
            )
            import_model(forest, Path(name) / "forest", feature_names=list(spec.feature_names))
            system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
            system.register(Path(name) / "forest", "bundle", "forest")
            system.wait_for_nodes()
            assert system.promote(features="card-payments", model="forest").state == "active"
            yield system
        finally:
            system.host.stop()


@dataclass
class Door:
    """HAProxy, as callers over HTTPS reach it who trust its certificate."""

    address: str
    trusted: ssl.SSLContext


@pytest.fixture(scope="module")
def door(served: Any) -> Door:
    haproxy = served.settings.haproxy
    trusted = ssl.create_default_context(cafile=str(haproxy.certificate))
    found = Door(f"https://127.0.0.1:{haproxy.http_port}", trusted)
    wait_until(lambda: _asked(found) == 200, "HAProxy serves the gateways")
    return found


def ask(place: str | Door, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    connection: http.client.HTTPConnection
    if isinstance(place, Door):
        netloc = urlsplit(place.address).netloc
        connection = http.client.HTTPSConnection(netloc, timeout=30, context=place.trusted)
    else:
        connection = http.client.HTTPConnection(urlsplit(place).netloc, timeout=30)
    try:
        connection.request(method, path, json.dumps(body).encode() if body is not None else None)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def gateways(system: Any) -> list[Any]:
    return [member for member in system.members() if member.role == "gateway" and member.state == "ready"]


def test_gateways_join_and_serve_the_release_that_all_have_prepared(
    served: Any, payments: list[dict[str, Any]]
) -> None:
    found = wait_until(lambda: two if len(two := gateways(served)) == 2 else None, "two gateways")
    for member in found:
        status, answer = ask(member.endpoints[0], "POST", "/v1/score", {"transaction": payments[0]})
        assert (status, answer["trace"]["release"]) == (200, member.release)
        assert ask(f"http://{member.health}", "GET", "/ready")[1]["role"] == "gateway"
        assert ask(member.endpoints[0], "GET", "/v2/health/ready")[0] == 200


def test_haproxy_ends_tls_before_the_gateways_and_takes_nothing_else(
    served: Any, door: Door, payments: list[dict[str, Any]]
) -> None:
    status, answer = ask(door, "POST", "/v1/score", {"transaction": payments[0], "deadline_ms": 20_000})
    assert (status, answer["id"]) == (200, payments[0]["id"])
    assert ask(door, "GET", "/v2/models/champion")[1]["name"] == "champion"
    with pytest.raises(ssl.SSLCertVerificationError):
        ask(Door(door.address, ssl.create_default_context()), "GET", "/v2")
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(door.address.replace("https", "http"), "GET", "/v2")
    host, port = urlsplit(door.address).netloc.split(":")
    for wanted, given in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1")):
        trusted = ssl.create_default_context(cafile=str(served.settings.haproxy.certificate))
        trusted.set_alpn_protocols(wanted)
        with (
            socket.create_connection((host, int(port)), timeout=20) as plain,
            trusted.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            assert wrapped.selected_alpn_protocol() == given
            assert wrapped.version() in ("TLSv1.2", "TLSv1.3")


def test_callers_behind_haproxy_notice_no_gateway_that_leaves_or_dies(
    served: Any, door: Door, payments: list[dict[str, Any]]
) -> None:
    seen: list[Any] = []
    stop = threading.Event()

    def call(number: int) -> None:
        while not stop.is_set():
            body = {"transaction": payments[number], "deadline_ms": 20_000}
            try:
                seen.append(ask(door, "POST", "/v1/score", body)[0])
            except (OSError, http.client.HTTPException, ValueError) as error:
                seen.append(repr(error))

    callers = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    try:
        for how in (signal.SIGTERM, signal.SIGKILL):
            wait_until(lambda: _settled(served), "HAProxy has both gateways that live")
            before, name = len(seen), "gateway-0" if how is signal.SIGTERM else "gateway-1"
            pid = served.host.pids()[name]
            os.kill(pid, how)
            wait_until(partial(_is_another, served, name, pid), "another in its place")
            wait_until(partial(_more_than, seen, before + 100), "a hundred answers")
    finally:
        stop.set()
        for caller in callers:
            caller.join()
    assert set(seen) == {200}, Counter(seen)
    states = {state["id"]: state["last_exit"] for state in served.host.states()}
    assert (states["gateway-0"], states["gateway-1"]) == (0, -signal.SIGKILL)


def test_the_commands_and_the_code_of_the_page_of_http_run(served: Any, tmp_path: Path) -> None:
    page = (ROOT / "docs/http.md").read_text()
    found = wait_until(lambda: gateways(served), "a gateway")
    address = urlsplit(found[0].endpoints[0]).netloc
    page = page.replace("127.0.0.1:7501", address)
    script = "set -euo pipefail\n" + "".join(
        re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    )
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, **path},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    one, many, packed, vectors, transactions = documents(done.stdout)
    assert one["trace"]["release"] == found[0].release
    assert packed["scores"] == one["scores"]
    assert many["results"][0]["scores"] == one["scores"]
    assert len(many["results"]) == 100
    assert vectors["inputs"][0]["shape"] == [-1, 26]
    assert "amount" in {one["name"] for one in transactions["inputs"]}
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the page closes no file and no client
        exec(code, names)
        names["client"].close()
    assert names["scores"].shape == (10,)
    assert len(names["decisions"]) == 100
    assert names["trace"]["release"] == found[0].release
    # The least that the page says of errors: each status that a gateway has stands there.
    for status in ("400", "404", "405", "408", "413", "415", "422", "431", "500", "502", "503", "504"):
        assert f"| {status} |" in page


def documents(text: str) -> list[Any]:
    """Read the JSON documents that stand one behind the other."""
    found: list[Any] = []
    while (start := text.find("{")) >= 0:
        one, end = json.JSONDecoder().raw_decode(text, start)
        found, text = [*found, one], text[end:]
    return found


def _is_another(system: Any, name: str, pid: int) -> bool:
    return bool(system.host.pids().get(name, pid) != pid)


def _more_than(seen: list[Any], count: int) -> bool:
    return len(seen) > count


def _asked(door: Door) -> int:
    try:
        return ask(door, "GET", "/v2/health/ready")[0]
    except (OSError, http.client.HTTPException, ValueError):
        return 0


def _settled(system: Any) -> bool:
    """Say whether HAProxy holds both gateways for ready, and none besides: a dead one is not seen at once."""
    pids = system.host.pids().values()
    live = {urlsplit(one.endpoints[0]).netloc for one in gateways(system) if one.pid in pids}
    slots = Runtime(setup_of(system.settings).instances[0].socket).slots()
    up = {str(slot.address) for slot in slots if slot.backend == "gateway" and slot.serves}
    return len(live) == 2 and live == up
