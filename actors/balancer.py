"""The balancer actor: keeps HAProxy running and at the membership; the one actor of the role `haproxy`."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Final

from actors.config import Settings
from actors.errors import ConfigError
from actors.roles import Roles
from actors.serving import MailboxActor
from actors.supervisor import ChildSpec, Supervisor, run_top
from actors.watch import WatchSource
from governance.watcher import View, Watcher
from haproxy.agent import Agent
from haproxy.plan import Address, Options, servers_of
from haproxy.settings import HaproxySettings
from haproxy.setup import Setup
from transport.listener import check_address
from transport.mailbox import Timer

logger = logging.getLogger(__name__)

#: Seconds between two looks whether HAProxy lives and is as it should be.
LOOK_S = 0.2


class BalancerActor(MailboxActor):
    """Steers one HAProxy of this host. With the database away it goes on with the membership that it knows.

    Args:
        setup: the host's HAProxies.
        index: which of them.
        ready: set once callers can be served through it.
    """

    def __init__(self, setup: Setup, index: int, ready: threading.Event) -> None:
        super().__init__()
        self._ready = ready
        self._setup = setup
        self._index = index

    def on_start(self) -> None:
        """Adopt the HAProxy that runs, or start one, and begin to watch."""
        self._agent = Agent(self._setup, self._index)
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
    ready = threading.Event()
    start = partial(BalancerActor.start, setup, index, ready)
    children = [ChildSpec(id="balancer", start=start, shutdown_s=15.0)]
    return run_top(lambda: Supervisor.start(children, max_restarts=5, period_s=10.0), ready=ready.is_set)


#: The roles of this file.
BALANCER_ROLES: Final[Roles] = {"haproxy": _run}
