"""The client under the name that other teams install it by."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

import transport.client
import transport.client.errors
import transport.client.testing


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let `import scorewire_client` find the client of this checkout, the very same module."""
    monkeypatch.setitem(sys.modules, "scorewire_client", transport.client)
    monkeypatch.setitem(sys.modules, "scorewire_client.testing", transport.client.testing)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("examples.clients"):
            del sys.modules[name]
