"""Two transactions on which an actor raises: Python loads this in each node of the chaos bench, by its path.

No transaction is known that does so by itself. What is put in is the error alone: what becomes of the actor,
and of all else that it held, is the node's own.
"""

from __future__ import annotations

import importlib.machinery
import struct
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

#: The amount on which a scorer raises, and the id on which a preprocessor does.
AMOUNT, ID = 987_654.25, "poison"
_VECTOR = struct.pack("<f", AMOUNT)


def _poison_scorer(actor: Any) -> None:
    honest = actor._score  # noqa: SLF001 - from outside, as whoever debugs it would

    def score(self: Any, loaded: Any, rows: Any) -> None:
        if any(_VECTOR in vector for row in rows for vector in row.vectors.values()):
            raise RuntimeError("poison, by the chaos bench")
        honest(self, loaded, rows)

    actor._score = score  # noqa: SLF001


def _poison_preprocessor(actor: Any) -> None:
    honest = actor.finish

    def finish(self: Any, call: Any, outcome: Any) -> None:
        if call.id == ID and not isinstance(outcome, Exception):
            raise RuntimeError("poison, by the chaos bench")
        honest(self, call, outcome)

    actor.finish = finish


_POISONED = {
    "actors.scorer": ("ScorerActor", _poison_scorer),
    "actors.preprocessor": ("PreprocessorActor", _poison_preprocessor),
}


class _Finder:
    """Finds the modules of the actors as Python does, and poisons them once they are there."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _POISONED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None
        assert spec.loader is not None
        honest = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            honest(module)
            actor, poison = _POISONED[name]
            poison(getattr(module, actor))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "node" in sys.argv:
    sys.meta_path.insert(0, _Finder)
