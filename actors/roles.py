"""The roles that a node can have: each names what runs it, so that rooms above can bring their own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from actors.config import Settings
from actors.errors import ConfigError
from actors.supervisor import BOOT_FAILED

logger = logging.getLogger(__name__)

#: Runs a node in the foreground and returns the exit code of its process. Given are the configuration, which
#: of the host's nodes of its role it is, and where it listens, if the command line says so.
Runner = Callable[[Settings, int, int | None], int]
Roles = dict[str, Runner]


def configured(run: Runner) -> Runner:
    """Let a wrong configuration end a node as one that could not start, with a sentence in its log."""

    def checked(settings: Settings, index: int, port: int | None) -> int:
        try:
            return run(settings, index, port)
        except ConfigError as error:
            logger.error("%s", error)  # noqa: TRY400 - its text says it all
            return BOOT_FAILED

    return checked


def _runner(role: str) -> Runner:
    def run(settings: Settings, index: int, port: int | None) -> int:
        from actors.node import Node  # noqa: PLC0415 - it loads the kernel, which no other command needs

        return Node(settings, role, index, port).run()

    return run


#: The roles of this room.
LIVE_ROLES: Final[Roles] = {role: configured(_runner(role)) for role in ("preprocessor", "scorer", "gateway")}
