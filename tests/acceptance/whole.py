"""A whole Scorewire for the tests of what an operator sees: all roles, and what they show of themselves."""

from __future__ import annotations

import contextlib
import json
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from sklearn.ensemble import RandomForestClassifier

from actors.control import ask
from examples.card_payments import PAYMENT_SPEC, simulate
from governance import shadows
from governance.database import connect, migrate
from governance.embedded import EmbeddedPostgres
from models.importers import import_model
from models.spec import load_spec
from shadow.broker import EmbeddedBroker
from tests.acceptance.collector import Collector
from tests.acceptance.conftest import System, start_system, wait_until
from transport.client import Client
from transport.ports import free_ports_in_a_row


@dataclass
class Whole:
    """The running system, and a client behind its HAProxy."""

    system: System
    broker: EmbeddedBroker
    payments: list[dict[str, Any]]
    client: Client
    collector: Collector

    def up(self) -> str:
        """Return where `up` shows itself."""
        *_, (_, endpoint) = ask(self.system.settings.logs, "health")
        return str(endpoint)

    def targets(self) -> list[str]:
        """Return all ports with figures, as Prometheus finds them."""
        ((found),) = json.loads(get(f"http://{self.up()}/targets"))
        return list(found["targets"])

    def figures(self) -> dict[str, dict[str, Metric]]:
        """Return the families of every process, by its name."""
        found = {}
        for target in self.targets():
            with contextlib.suppress(OSError):  # it has just died
                families = {one.name: one for one in parse(get(f"http://{target}/metrics"))}
                info = families["scorewire_node_info"].samples[0].labels
                found[info["node"].partition("@")[0]] = families
        return found


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def parse(text: str) -> list[Metric]:
    return list(text_string_to_metric_families(text))


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    """Return the sum of the samples of a name that have some labels."""
    return sum(
        one.value
        for family in families.values()
        for one in family.samples
        if one.name == sample and labels.items() <= one.labels.items()
    )


@contextmanager
def start_whole() -> Iterator[Whole]:
    """Start all roles, with a release that is served and a shadow that runs."""
    with (
        tempfile.TemporaryDirectory(prefix="sw-") as name,
        EmbeddedPostgres(Path(name) / "postgres") as postgres,
        EmbeddedBroker(Path(name) / "broker") as broker,
        Collector() as collector,
    ):
        migrate(postgres.dsn)
        first = free_ports_in_a_row(3)
        sections = (
            f"[kafka]\nbootstrap_servers = '{broker.bootstrap_servers}'\npartitions = 2\nreplication = 1\n"
            "[shadow]\nnodes = 1\n[gateway]\nnodes = 1\nport = 0\n[log]\nformat = 'json'\n"
            f"[traces]\nendpoint = '{collector.endpoint}'\n"
            f"[haproxy]\nport = {first}\nhttp_port = {first + 1}\nstats_port = {first + 2}\n"
            f"directory = {json.dumps(name + '/haproxy')}\ncheck_ms = 100\n"
        )
        system = start_system(Path(name), postgres, preprocessors=1, scorers=1, more=sections)
        try:
            spec = load_spec(PAYMENT_SPEC)
            payments, labels = simulate(n=1_000, seed=3)
            system.register(PAYMENT_SPEC, "feature_spec", "card-payments")
            for seed, model in enumerate(("forest", "other")):
                forest = RandomForestClassifier(10, random_state=seed).fit(spec.matrix(payments), labels)
                import_model(forest, Path(name) / model, feature_names=list(spec.feature_names))
                system.register(Path(name) / model, "bundle", model)
            system.wait_for_nodes()
            assert system.promote(features="card-payments", model="forest").state == "active"
            with connect(postgres.dsn) as connection:
                shadows.start(connection, "test", "next", {"model": "other"}, by="test")
            with Client(f"tcp://127.0.0.1:{first}", connections=1, deadline=10.0) as client:
                whole = Whole(system, broker, payments, client, collector)
                wait_until(lambda: len(whole.targets()) == 8, "all processes show themselves")
                yield whole
        finally:
            system.host.stop()
