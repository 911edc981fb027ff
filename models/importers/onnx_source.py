"""x."""

from typing import Any

from models.importers.source import Source


def take_apart(model: Any) -> Source: ...
