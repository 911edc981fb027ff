"""A real Prometheus of our own, and the queries of the dashboards."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import types
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from transport.ports import free_ports_in_a_row

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
#: Where the configuration that is shipped has `up` listen.
SHIPPED = "127.0.0.1:7400"
START_S = 20.0


@dataclass(frozen=True)
class Query:
    """One line of a panel."""

    dashboard: str
    panel: str
    kind: str
    unit: str
    expression: str
    legend: str


def queries(environment: str, interval: str = "1m") -> Iterator[Query]:
    """Yield what the dashboards ask, with the variables that Grafana would put in."""
    put_in = {"$environment": environment, "$__rate_interval": interval, "$__range": interval}
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            unit = panel["fieldConfig"]["defaults"]["unit"]
            for target in panel["targets"]:
                expression = target["expr"]
                for name, value in put_in.items():
                    expression = expression.replace(name, value)
                yield Query(
                    file.stem, panel["title"], panel["type"], unit, expression, target["legendFormat"]
                )


class Prometheus:
    """Prometheus with the configuration and the rules that are shipped, on loopback.

    Args:
        directory: for its configuration and data.
        up: where `run.py up` shows its figures.
        every: how often it scrapes and evaluates.

    Raises:
        RuntimeError: there is no Prometheus, or it does not start.
    """

    def __init__(self, directory: Path, up: str, every: str = "1s") -> None:
        binary = shutil.which("prometheus")
        if binary is None:
            raise RuntimeError("there is no Prometheus: `apt-get install prometheus` brings it")
        text = (DEPLOY / "prometheus.yml").read_text()
        text = text.replace(SHIPPED, up).replace("10s", every)
        text = text.replace("rule_files:", f"  evaluation_interval: {every}\nrule_files:")
        (directory / "prometheus.yml").write_text(text)
        shutil.copy(DEPLOY / "alerts.yml", directory)
        self.address = f"127.0.0.1:{free_ports_in_a_row(1)}"
        self._log = directory / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = self._start(binary, directory, log)

    def _start(self, binary: str, directory: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                binary,
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address={self.address}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API; return the data of the answer.

        Raises:
            RuntimeError: it says no, with its words.
        """
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{parameters}: {error.read().decode(errors='replace')}") from error

    def now(self, query: str) -> list[tuple[Mapping[str, str], float]]:
        """Return the series of a query at this moment: labels and value."""
        found = self.ask("query", query=query)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def range(self, query: str, begin: float, end: float, step: float) -> list[tuple[Mapping[str, str], Any]]:
        """Return the series of a query over a time: labels, and pairs of unix seconds and value."""
        span = {"start": f"{begin:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"}
        found = self.ask("query_range", query=query, **span)["result"]
        return [(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in found]

    def __enter__(self) -> Self:
        give_up_at = time.monotonic() + START_S
        while True:
            try:
                self.ask("status/buildinfo")
            except (OSError, RuntimeError) as error:
                if self._process.poll() is not None or time.monotonic() > give_up_at:
                    self.close()
                    raise RuntimeError(
                        f"Prometheus does not start: {self._log.read_text()[-1000:]}"
                    ) from error
                time.sleep(0.05)
            else:
                return self

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()
