"""What a code package logs: its records in the node's own log, and never more than that can bear."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from actors.code.frames import GarbageError

logger = logging.getLogger(__name__)

#: Lines that a package may log in a second; a worker holds itself to fewer for each request.
MOST_A_SECOND: Final = 100


class PackageLog:
    """Writes the records of one package. Use it from one thread.

    Args:
        package: its name, with its version.
    """

    def __init__(self, package: str) -> None:
        self._package = package
        self._second = 0
        self._left = 0
        self._dropped = 0

    def take(self, frame: list[Any], worker: int, about: Mapping[str, object]) -> None:
        """Write a record.

        Args:
            frame: `["log", level, logger, text]`.
            worker: the process that sent it.
            about: the transaction and the release that it was called with; empty while it loads.

        Raises:
            GarbageError: the frame is none.
        """
        match frame:
            case [_, int(level), str(name), str(text)]:
                facts = {**about, "package": self._package, "worker": worker}
                if self._may_write(facts):
                    # As one line, so that none looks as if the node had written it.
                    said = text.rstrip().replace("\n", "\\n")
                    logger.log(max(level, logging.DEBUG), "%s: %s", name, said, extra=facts)
            case _:
                raise GarbageError("a record for the log that is none")

    def _may_write(self, facts: Mapping[str, object]) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            if self._dropped:
                logger.warning("%d lines of it were left out", self._dropped, extra=facts)
            self._second, self._left, self._dropped = second, MOST_A_SECOND, 0
        if self._left:
            self._left -= 1
            return True
        self._dropped += 1
        return False
