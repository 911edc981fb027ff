"""A headless Chromium: opens a page, asks it things, takes pictures of it.

It is steered over two pipes by the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/),
for which the standard library is enough.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any, Self

#: Seconds that an answer may take.
ANSWER_S = 60.0
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
)
#: Chromium reads from its descriptor 3 and writes to 4.
_STARTER = (
    "import fcntl, os, sys; a, b = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]);"
    " os.dup2(a, 3); os.dup2(b, 4); os.execv(sys.argv[3], sys.argv[3:])"
)


class BrowserError(Exception):
    """Raised when there is no Chromium, or it does not do what is asked."""


def find_browser() -> str:
    """Return where Chromium is.

    Raises:
        BrowserError: nowhere.
    """
    for name in _NAMES:
        if found := shutil.which(name):
            return found
    raise BrowserError("there is no Chromium: on Debian, `apt-get install chromium` brings one")


class Browser:
    """A Chromium of our own with one page, gone when it is closed.

    Args:
        width: of the page, in pixels.
        height: of what is seen of it at once.
        dark: whether its user likes dark pages.
    """

    def __init__(self, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        self._width, self._height, self._dark = width, height, dark
        self._number = 0
        self._buffer = b""
        self._session = ""
        self._binary = find_browser()
        #: Addresses that the page asked for.
        self.requests: list[str] = []
        #: What went wrong in the page.
        self.errors: list[str] = []

    def __enter__(self) -> Self:
        self._home = tempfile.TemporaryDirectory(prefix="scorewire-browser-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", _STARTER, str(theirs_in), str(theirs_out), self._binary, *_FLAGS),
                *(f"--user-data-dir={self._home.name}", f"--window-size={self._width},{self._height}"),
                "about:blank",
            ],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._ask(f"{domain}.enable")
        # A window is never narrower than 500 pixels; what the page is told is.
        size = {"width": self._width, "height": self._height, "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._home.cleanup()

    def open(self, file: Path) -> None:
        """Open a page of this host, and wait until it is complete."""
        self._ask("Page.navigate", url=file.resolve().as_uri())
        give_up_at = time.monotonic() + ANSWER_S
        while self.evaluate("document.readyState + location.protocol") != "completefile:":
            if time.monotonic() > give_up_at:
                raise BrowserError(f"{file} is not complete after {ANSWER_S:.0f} s")
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives in the page.

        Raises:
            BrowserError: it fails.
        """
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in found:
            raise BrowserError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def picture(self, *, height: int | None = None, scale: float = 1.0) -> bytes:
        """Return a picture of the page as PNG: of its whole height, or of its first so many pixels."""
        height = height or int(self.evaluate("document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": self._width, "height": height, "scale": scale}
        found = self._ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(found["data"])

    def _ask(self, method: str, **terms: Any) -> Any:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": terms}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        give_up_at = time.monotonic() + ANSWER_S
        while True:
            answer = self._next(give_up_at)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._take_down(answer)

    def _take_down(self, event: dict[str, Any]) -> None:
        terms = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(terms["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.errors.append(terms["entry"]["text"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(terms["exceptionDetails"]["text"])

    def _next(self, give_up_at: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, give_up_at - time.monotonic()))
            more = os.read(self._in, 1 << 16) if ready else b""
            if not more:
                raise BrowserError("Chromium does not answer" if not ready else "Chromium has ended")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
