"""The balancer actor: keeps HAProxy running and at the membership; the one actor of the role `haproxy`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import partial
from typing import Final

from actors.config import Settings, node_name
from actors.errors import ConfigError
from actors.mailbox_actor import MailboxActor
from actors.metrics import labels_of, page_of
from actors.probes import Probes
from actors.roles import Roles
from actors.supervisor import ChildSpec, Supervisor, run_top
from actors.watch import WatchSource
from governance.watcher import View, Watcher
from haproxy.agent import Agent
from haproxy.plan import Address, Options, servers_of
from haproxy.settings import HaproxySettings
from haproxy.setup import Setup
from transport.health import Health
from transport.listener import check_address
from transport.mailbox import Timer
from transport.metrics import CONTENT_TYPE, Metric

logger = logging.getLogger(__name__)

#: Attribute of an agent to its figure.
AGENT: Final[Mapping[str, Metric]] = {
    "serving": Metric("scorewire_haproxy_serving", "gauge", "Servers that HAProxy holds for ready."),
    "starts": Metric("scorewire_haproxy_starts_total", "counter", "Starts of HAProxy by its agent."),
    "reloads": Metric("scorewire_haproxy_reloads_total", "counter", "Reloads of HAProxy by its agent."),
}
#: Seconds between two looks whether HAProxy lives and is as it should be.
LOOK_S = 0.2


class BalancerActor(MailboxActor):
    """Steers one HAProxy of this host. With the database away it goes on with the membership that it knows.

    Args:
        setup: the host's HAProxies.
        index: which of them.
        ready: set once callers can be served through it.
        shown: takes the agent, under `agent`, for whoever wants to see how it is.
    """

    def __init__(self, setup: Setup, index: int, ready: threading.Event, shown: dict[str, Agent]) -> None:
        super().__init__()
        self._ready = ready
        self._shown = shown
        self._setup = setup
        self._index = index

    def on_start(self) -> None:
        """Adopt the HAProxy that runs, or start one, and begin to watch."""
        self._agent = self._shown["agent"] = Agent(self._setup, self._index)
        self._keep()
        watcher = Watcher(self._setup.dsn, self._setup.environment)
        self._watch = WatchSource(self.loop, watcher, self._take_view)
        self.loop.add(Timer(LOOK_S, self._keep))

    def on_stop(self) -> None:
        """Stop HAProxy: its host stops."""
        self._watch.close()
        self._agent.stop()

    def on_failure(self, *_: object) -> None:
        """Let the connection go, and HAProxy run: the next actor adopts it."""
        self._watch.close()

    def _take_view(self, view: View) -> None:
        self._agent.take(servers_of(view.members))
        self._keep()

    def _keep(self) -> None:
        self._agent.keep()
        if self._agent.ready:
            self._ready.set()


def setup_of(settings: Settings) -> Setup:
    """Return the HAProxies that a configuration names.

    Raises:
        ConfigError: it names none.
    """
    named = settings.haproxy
    if named is None:
        raise ConfigError("no HAProxy is configured: add a section [haproxy] to scorewire.toml")
    return Setup(
        dsn=settings.direct_dsn,
        environment=settings.environment,
        instances=tuple(_options(named, index) for index in range(named.instances)),
        slots=named.slots,
        binary=named.binary,
        logs=settings.logs.expanduser(),
    )


def _options(named: HaproxySettings, index: int) -> Options:
    return Options(
        directory=(named.directory.expanduser() / str(index)).absolute(),
        tcp=Address(named.host, named.port + index),
        http=Address(named.host, named.http_port + index),
        stats=Address(named.stats_host, named.stats_port + index),
        certificate=named.certificate.expanduser().absolute() if named.certificate else None,
        check_ms=named.check_ms,
        slow_start_s=named.slow_start_s,
        drain_s=named.drain_s,
        old_worker_s=named.old_worker_s,
        max_connections=named.max_connections,
    )


def _run(settings: Settings, index: int, port: int | None) -> int:
    del port  # each HAProxy has several: they stand in the configuration
    setup = setup_of(settings)
    options = setup.instances[index]
    for address in (options.tcp, options.http, options.stats):
        check_address(f"tcp://{address}", wide=settings.allow_wide_bind)
    ready, shown = threading.Event(), dict[str, Agent]()
    start = partial(BalancerActor.start, setup, index, ready, shown)
    children = [ChildSpec(id="balancer", start=start, shutdown_s=15.0)]
    assert settings.haproxy is not None  # noqa: S101 - setup_of has looked
    node_id = node_name("haproxy", index)
    labels = labels_of(settings.environment, "haproxy", node_id)

    def health() -> Health:
        agent = shown.get("agent")
        return "ready" if agent is not None and agent.ready else "starting"

    def page() -> tuple[str, bytes]:
        found = page_of(labels, node_id, health())
        if (agent := shown.get("agent")) is not None:
            found.add_all(AGENT, {name: getattr(agent, name) for name in AGENT})
        return CONTENT_TYPE, found.text()

    with Probes(settings, settings.haproxy.health_port, index, health=health, pages={"/metrics": page}):
        return run_top(lambda: Supervisor.start(children, max_restarts=5, period_s=10.0), ready=ready.is_set)


#: The roles of this file.
BALANCER_ROLES: Final[Roles] = {"haproxy": _run}
