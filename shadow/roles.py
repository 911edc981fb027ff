"""The roles of this room's nodes."""

from __future__ import annotations

from typing import Final

from actors.config import Settings
from actors.roles import Roles, configured

__all__ = ["SHADOW_ROLES"]


def _shadow(settings: Settings, index: int, port: int | None) -> int:
    del port  # it listens nowhere
    from shadow.node import run_shadow_node  # noqa: PLC0415 - it loads Kafka's client, which few commands need

    return run_shadow_node(settings, index)


def _sink(settings: Settings, index: int, port: int | None) -> int:
    del port  # it listens nowhere
    from shadow.sink import run_sink  # noqa: PLC0415 - it loads Kafka's client, which few commands need

    return run_sink(settings, index)


def _tee(settings: Settings, index: int, port: int | None) -> int:
    from shadow.tee import run_tee  # noqa: PLC0415 - it loads Kafka's client, which few commands need

    return run_tee(settings, index, port)


#: Role to what runs it.
SHADOW_ROLES: Final[Roles] = {
    name: configured(run) for name, run in {"tee": _tee, "sink": _sink, "shadow": _shadow}.items()
}
