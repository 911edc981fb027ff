"""The interpreters of the peers: this one where their libraries are here, else one made on demand."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import FULL


class MissingPeerError(Exception):
    """A peer's libraries cannot be installed here; the message says what pip said."""


def python_of(name: str, modules: Sequence[str], requirements: Sequence[str]) -> Path:
    """Return the interpreter for a peer.

    Args:
        name: of the peer's environment.
        modules: what must be importable for the peer to stand beside this project's own libraries.
        requirements: what pip installs where they are not.

    Raises:
        MissingPeerError: they cannot be installed.
    """
    if all(importlib.util.find_spec(module) for module in modules):
        return Path(sys.executable)
    place = FULL.stem.parent / f"venv-{name}"
    stamp, wanted = place / "requirements.txt", "\n".join(requirements)
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(place, clear=True, with_pip=True)
        install = [str(place / "bin" / "pip"), "install", "-q", *requirements]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingPeerError(f"{name}: {done.stderr.strip()[-500:]}")
        stamp.write_text(wanted)
    return place / "bin" / "python"
