"""Three hosts: links are cut and healed, slow and lossy, hosts die; callers on a live side see nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from actors.config import load_settings
from examples.card_payments import PAYMENT_SPEC, simulate
from governance.artifacts import Kind, register
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from governance.membership import Member, members
from governance.promotion import promote
from governance.rollouts import Rollout, wait_settled
from models.importers import import_model
from models.spec import load_spec
from tests.acceptance.conftest import wait_until
from tests.acceptance.network import HostSide, NoNamespacesError, Switch
from transport.client import Answer, Client

ADDRESSES = ("10.77.0.1", "10.77.0.2", "10.77.0.3")
ROOT = Path(__file__).parents[2]
#: Where a preprocessor listens on its host.
PORT = 7301


@pytest.fixture(scope="module")
def sides() -> Iterator[list[HostSide]]:
    with ExitStack() as stack:
        found = []
        for address in ADDRESSES:
            try:
                side = HostSide(address)
            except NoNamespacesError as error:
                pytest.skip(f"{error}: run the tests as root, with /dev/net/tun")
            stack.callback(side.close)
            found.append(side)
        switch = Switch(found)
        stack.callback(switch.close)
        yield found


@pytest.fixture(scope="module")
def payments() -> list[dict[str, Any]]:
    return simulate(n=1_000, seed=3)[0]


class Up:
    """`run.py up` on a host.

    Args:
        side: the host.
        number: which.
        directory: where its files are.
    """

    def __init__(self, side: HostSide, number: int, directory: Path) -> None:
        self.address = ADDRESSES[number]
        self.settings, self.file = configuration(directory, number)
        with side.inside():
            self._process = subprocess.Popen(
                [sys.executable, ROOT / "run.py", "up", "--config", self.file],
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self, members: tuple[Member, ...]) -> None:
        """Kill the host: the launcher and all its nodes."""
        self._process.kill()
        self._process.wait()
        for member in members:
            if self.address in member.endpoints[0]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Begin to stop; `wait` ends it."""
        self._process.terminate()

    def wait(self) -> None:
        self._process.wait(40)

    def log(self, node: str) -> str:
        text: str = (self.settings.logs / f"{node}.log").read_text()
        return text


@dataclass
class Three:
    """Three hosts, each with a preprocessor and a scorer, and PostgreSQL on the first."""

    sides: list[HostSide]
    ups: list[Up]
    dsn: str
    digests: dict[str, str] = field(default_factory=dict)

    def register(self, path: Path, kind: Kind, name: str) -> None:
        with connect(self.dsn) as connection:
            self.digests[name] = register(connection, path, kind=kind, name=name, by="test", notes={}).digest

    def promote(self, **stages: str) -> Rollout:
        with connect(self.dsn) as connection:
            found = {stage: self.digests[name] for stage, name in stages.items()}
            opened = promote(connection, environment="test", stages=found, by="test")
            return wait_settled(connection, opened.id)

    def members(self) -> tuple[Member, ...]:
        with connect(self.dsn) as connection:
            return members(connection, "test")

    def nodes_of(self, number: int) -> set[str]:
        """Return the names of the nodes that run on a host now."""
        return {one.node_id for one in self.members() if ADDRESSES[number] in one.endpoints[0]}


@pytest.fixture(scope="module")
def three(sides: list[HostSide]) -> Iterator[Three]:
    with ExitStack() as stack:
        name = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sw-hosts-")))
        with sides[0].inside():
            postgres = EmbeddedPostgres(name / "postgres", listen=ADDRESSES[0])
            stack.enter_context(postgres)
            migrate(postgres.dsn)
        hosts = Three(sides, [], postgres.dsn)
        for number, side in enumerate(sides):
            hosts.ups.append(Up(side, number, name / str(number)))
            stack.callback(hosts.ups[-1].wait)
        for up in hosts.ups:  # all at once, before any is waited for
            stack.callback(up.stop)
        hosts.register(PAYMENT_SPEC, "feature_spec", "card-payments")
        spec = load_spec(PAYMENT_SPEC)
        transactions, labels = simulate(n=1_000, seed=3)
        for seed in (1, 2):
            forest = RandomForestClassifier(10, random_state=seed).fit(spec.matrix(transactions), labels)
            import_model(forest, name / f"forest-{seed}", feature_names=list(spec.feature_names))
            hosts.register(name / f"forest-{seed}", "bundle", f"forest-{seed}")
        wait_until(lambda: len(hosts.members()) == 6, "six nodes in the membership")
        assert hosts.promote(features="card-payments", model="forest-1").state == "active"
        yield hosts


def configuration(directory: Path, number: int) -> tuple[Any, Path]:
    directory.mkdir()
    address = ADDRESSES[number]
    facts = {
        "environment": "test",
        "dsn": f"postgresql://postgres@{ADDRESSES[0]}/postgres?tcp_user_timeout=2000",
        "cache": str(directory / "cache"),
        "logs": str(directory / "logs"),
    }
    file = directory / "scorewire.toml"
    file.write_text(
        "".join(f"{name} = {json.dumps(value)}\n" for name, value in facts.items())
        + "allow_wide_bind = true\n"
        + f"[preprocessor]\nhost = '{address}'\nport = {PORT}\nnodes = 1\n"
        + f"[scorer]\nhost = '{address}'\nactors = 1\nnodes = 1\n"
    )
    return load_settings(file), file


@contextmanager
def traffic(side: HostSide, payments: list[dict[str, Any]]) -> Iterator[list[Answer]]:
    """Score without a pause from a host, with all three preprocessors known; an error ends the test."""
    answers: list[Answer] = []
    errors: list[Exception] = []
    stop = threading.Event()
    with side.inside():
        client = Client([f"tcp://{address}:{PORT}" for address in ADDRESSES], deadline=10.0)

    def call() -> None:
        number = 0
        while not stop.is_set() and not errors:
            try:
                answers.append(client.score(payments[number % len(payments)]))
            except Exception as error:  # noqa: BLE001 - shown below
                errors.append(error)
            number += 1

    thread = threading.Thread(target=call)
    thread.start()
    try:
        more(answers, lambda new: len(new) > 20 or errors, "traffic flows")
        yield answers
        more(answers, lambda new: len(new) > 20 or errors, "traffic flows on")
    finally:
        stop.set()
        thread.join()
        client.close()
    assert not errors, errors


def more(answers: list[Answer], condition: Callable[[list[Answer]], Any], what: str) -> None:
    """Wait until what was answered from now on fulfils a condition."""
    count = len(answers)
    wait_until(lambda: condition(answers[count:]), what)


def seen(answers: list[Answer]) -> set[str]:
    return {node for answer in answers for node in answer.trace.nodes.values()}


def test_callers_see_nothing_of_a_host_that_is_cut_off_and_comes_back(
    three: Three, sides: list[HostSide], payments: list[dict[str, Any]]
) -> None:
    there = three.nodes_of(2)
    assert len(there) == 2
    with traffic(sides[1], payments) as answers:
        more(answers, lambda new: there <= seen(new), "the third host takes part")
        sides[2].link.cut = True
        try:
            more(answers, lambda new: len(new) > 200 and not there & seen(new[-100:]), "the others answer")
        finally:
            sides[2].link.cut = False
        more(answers, lambda new: there <= seen(new), "it takes part again")


def test_callers_see_nothing_of_links_that_are_slow_and_lossy(
    three: Three, sides: list[HostSide], payments: list[dict[str, Any]]
) -> None:
    del three
    with traffic(sides[1], payments) as answers:
        sides[2].link.delay_s, sides[2].link.loss = 0.04, 0.1
        sides[0].link.delay_s = 0.005
        try:
            more(answers, lambda new: len(new) > 300, "answers come")
        finally:
            sides[2].link.delay_s = sides[2].link.loss = sides[0].link.delay_s = 0.0


def test_a_host_that_is_cut_off_in_the_midst_of_a_change_does_not_hold_up_the_others(
    three: Three, sides: list[HostSide]
) -> None:
    lock = "SELECT 1 FROM environment WHERE name = 'test' FOR UPDATE"
    with sides[2].inside():
        lost = connect(three.ups[2].settings.dsn)
    lost.execute("BEGIN")
    lost.execute(lock)
    sides[2].link.cut = True
    try:
        # Well before the half minute that a transaction may stand still on a link that lives.
        with connect(three.dsn, statement_timeout_s=25) as other, other.transaction():
            other.execute(lock)
    finally:
        sides[2].link.cut = False
        lost.close()
    wait_until(lambda: len(three.members()) == 6, "all are members again")


def test_callers_see_nothing_while_the_host_of_the_database_is_cut_off(
    three: Three, sides: list[HostSide], payments: list[dict[str, Any]]
) -> None:
    with traffic(sides[1], payments) as answers:
        sides[0].link.cut = True
        try:
            more(answers, lambda new: len(new) > 200, "the others answer")
            wait_until(
                lambda: "waiting for the database" in three.ups[1].log("scorer-0"), "a node there says so"
            )
        finally:
            sides[0].link.cut = False
        wait_until(lambda: len(three.members()) == 6, "all are members again")
        here = three.nodes_of(0)
        more(answers, lambda new: here <= seen(new), "the first host takes part again")
        # What is promoted now reaches the hosts that could not see the database.
        settled = three.promote(model="forest-2")
        more(answers, lambda new: {a.trace.release for a in new[-20:]} == {settled.release.number}, "it is")


def test_callers_see_nothing_of_a_host_that_dies_and_the_others_are_promoted_without_it(
    three: Three, sides: list[HostSide], payments: list[dict[str, Any]]
) -> None:
    with traffic(sides[1], payments) as answers:
        sides[2].link.cut = True  # a dead host's kernel says no goodbye either
        three.ups[2].kill(three.members())
        more(answers, lambda new: len(new) > 100, "the others answer")
        settled = three.promote(model="forest-1")
        assert settled.state == "active"
        more(answers, lambda new: {a.trace.release for a in new[-20:]} == {settled.release.number}, "it is")
