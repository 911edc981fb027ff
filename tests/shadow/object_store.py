"""A server of objects (S3) for the embedded broker, so that what it has taken outlives it."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request

from transport.client.running import Running
from transport.ports import free_ports_in_a_row

START_S = 60.0
BUCKET = "kafka"


class ObjectStore(Running):
    """Moto's S3 on loopback, in a process of its own. Tansu's storage beside memory is S3 alone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = free_ports_in_a_row(1)
        self._url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up_at = time.monotonic() + START_S
        while True:
            try:
                self._make_bucket()
            except urllib.error.URLError:
                assert self._process.poll() is None, "moto.server ended"
                assert time.monotonic() < give_up_at, "moto.server does not answer"
                time.sleep(0.1)
            else:
                return

    def _make_bucket(self) -> None:
        request = urllib.request.Request(f"{self._url}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=5).close()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def storage(self) -> str:
        """What the broker is told."""
        return f"s3://{BUCKET}/"

    @property
    def variables(self) -> dict[str, str]:
        """How it reaches this server."""
        return {
            "AWS_ENDPOINT": self._url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            # An object is replaced only by whoever has seen what it replaces.
            "AWS_CONDITIONAL_PUT": "etag",
        }
