"""The hint that something changed in an environment."""

from __future__ import annotations

import json

from governance.database import CHANNEL, Connection


def notify(connection: Connection, environment: str) -> None:
    """Tell whoever listens to look; sent when the transaction commits."""
    payload = json.dumps({"environment": environment})
    connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


def concerns(payload: str, environment: str) -> bool:
    """Say whether a notification is about an environment; one that cannot be read might be."""
    try:
        return bool(json.loads(payload).get("environment") == environment)
    except (ValueError, AttributeError):
        return True
