"""The log of a process: lines for people, or JSON objects with the same facts under names that stay."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from actors.config import Settings

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"
#: What every record has; all else was said with `extra`.
_OWN: Final = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def start_log(settings: Settings, role: str, node: str, *, level: str = "") -> None:
    """Let this process write its log to standard error, as `[log]` says.

    Args:
        settings: the host's configuration.
        role: what it does.
        node: its role and place.
        level: the least that is written; by default what `[log]` says.
    """
    handler = logging.StreamHandler()
    if settings.log.format == "json":
        facts = {"environment": settings.environment, "role": role, "node": node}
        handler.setFormatter(JsonFormatter(facts))
    else:
        handler.setFormatter(TextFormatter(_TEXT))
    logging.basicConfig(level=level or settings.log.level.upper(), handlers=[handler])


def facts_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was said with `extra`: `transaction`, `release`, ... where there is one."""
    return {
        name: value for name, value in vars(record).items() if name not in _OWN and value not in ("", None)
    }


class TextFormatter(logging.Formatter):
    """A line for people, with the facts behind it in brackets."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line, before a traceback."""
        facts = " ".join(f"{name}={value}" for name, value in facts_of(record).items())
        line = super().formatMessage(record)
        return f"{line} [{facts}]" if facts else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at`, `level`, `logger`, `message`, the facts, and `error` with its stack.

    Args:
        facts: what stands in each.
    """

    def __init__(self, facts: Mapping[str, str]) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._facts,
            **facts_of(record),
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, error, _ = record.exc_info
            told["error"] = {
                "type": kind.__name__,
                "message": str(error),
                "stack": self.formatException(record.exc_info),
            }
        return json.dumps(told, default=str)
