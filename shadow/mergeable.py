"""Parts of documents that can be merged in any order and grouping, exactly, and stay small.

A document is JSON: maps, lists, integers, text. Each kind here knows its empty value and how two of its
values become one; merging is associative and commutative, and bounded kinds keep what they keep *exactly*:
what a bag leaves out is decided by a hash of its name alone, so that a name that is kept in the end was kept
in every part that had it. (Sketches of heavy hitters, Misra-Gries or space-saving, keep the frequent names
instead, with counts that depend on the order of merging. Agarwal et al., "Mergeable Summaries", 2013.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Protocol

from shadow.errors import SummaryError


class Kind(Protocol):
    """What a part of a document is."""

    def empty(self) -> Any:
        """Return the value that changes nothing when merged."""

    def merge(self, a: Any, b: Any) -> Any:
        """Return what two values come to; neither is changed."""


@dataclass(frozen=True)
class Sum:
    """An integer that adds up."""

    def empty(self) -> int:
        """Return 0."""
        return 0

    def merge(self, a: int, b: int) -> int:
        """Return the sum."""
        return a + b


@dataclass(frozen=True)
class Sums:
    """Integers that add up, each for itself.

    Attributes:
        n: how many.
    """

    n: int

    def empty(self) -> list[int]:
        """Return as many zeros."""
        return [0] * self.n

    def merge(self, a: list[int], b: list[int]) -> list[int]:
        """Return the sums."""
        return [x + y for x, y in zip(a, b, strict=True)]


@dataclass(frozen=True)
class Extreme:
    """The least or the greatest of numbers; None where there was none.

    Attributes:
        choose: min or max.
    """

    choose: Callable[[Any, Any], Any]

    def empty(self) -> None:
        """Return None."""

    def merge(self, a: Any, b: Any) -> Any:
        """Return the one of the two that is further out."""
        if a is None or b is None:
            return b if a is None else a
        return self.choose(a, b)


@dataclass(frozen=True)
class Same:
    """A value that is the same in all documents that are merged: their version.

    Attributes:
        value: which.
    """

    value: int

    def empty(self) -> int:
        """Return it."""
        return self.value

    def merge(self, a: int, b: int) -> int:
        """Return it.

        Raises:
            SummaryError: one of the two has another.
        """
        for found in (a, b):
            if found != self.value:
                raise SummaryError(
                    f"a summary of version {found} cannot be merged here, where version {self.value} is "
                    "kept: run one version of Scorewire on all shadow nodes"
                )
        return self.value


@dataclass(frozen=True)
class Record:
    """Named parts, each of its own kind. A part that a document lacks is empty.

    Attributes:
        parts: name to kind.
    """

    parts: Mapping[str, Kind]

    def empty(self) -> dict[str, Any]:
        """Return a document of empty parts."""
        return {name: kind.empty() for name, kind in self.parts.items()}

    def merge(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts merged."""
        return {name: _merged(kind, name, a, b) for name, kind in self.parts.items()}


@dataclass(frozen=True)
class Bag:
    """Values by name, at most so many names: those of the lowest hashes, each with all that it ever got.

    Attributes:
        limit: how many names are kept.
        kind: of the values.
    """

    limit: int
    kind: Kind

    def empty(self) -> dict[str, Any]:
        """Return no names."""
        return {}

    def merge(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        """Return both, values of one name merged, and names beyond the limit left out."""
        return self.kept({name: _merged(self.kind, name, a, b) for name in {**a, **b}})

    def kept(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return the values of the names that are kept."""
        if len(values) <= self.limit:
            return values
        return {name: values[name] for name in sorted(values, key=_order)[: self.limit]}


@dataclass(frozen=True)
class Newest:
    """Values by name, at most so many: those of the greatest names, as moments are.

    Attributes:
        limit: how many.
        kind: of the values.
    """

    limit: int
    kind: Kind

    def empty(self) -> dict[str, Any]:
        """Return no names."""
        return {}

    def merge(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        """Return both, values of one name merged, and the lesser names beyond the limit left out."""
        names = sorted({**a, **b})[-self.limit :]
        return {name: _merged(self.kind, name, a, b) for name in names}


@dataclass(frozen=True)
class Top:
    """The entries of the greatest weight, at most so many; the greatest first.

    Attributes:
        limit: how many.
    """

    limit: int

    def empty(self) -> list[dict[str, Any]]:
        """Return no entries."""
        return []

    def merge(self, a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the greatest of both."""
        return self.kept([*a, *b])

    def kept(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the greatest entries: of maps with a `weight` and an `id`, which settles ties."""
        return sorted(sorted(entries, key=itemgetter("id")), key=_weight, reverse=True)[: self.limit]


def _merged(kind: Kind, name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Any:
    if name not in a:
        return b[name] if name in b else kind.empty()
    return kind.merge(a[name], b[name]) if name in b else a[name]


def _weight(entry: dict[str, Any]) -> float:
    return float(entry["weight"])


@lru_cache(maxsize=1 << 16)
def _order(name: str) -> tuple[bytes, str]:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), name
