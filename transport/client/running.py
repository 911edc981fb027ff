"""What runs from a start to a stop."""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from typing import Self


class Running(ABC):
    """Something that runs in a `with` block. A start that fails, or is interrupted, leaves nothing behind."""

    @abstractmethod
    def start(self) -> None:
        """Start it."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it. Stopping twice, or what was not started, is harmless."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.stop()
