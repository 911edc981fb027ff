"""The intake: finds the rings of a host's preprocessors, and takes what is in them, each record once."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from shadow.outlet import Ticket
from transport.errors import TeeRingError
from transport.tee_files import SUFFIX, own_directory
from transport.tee_record import RawRecord
from transport.tee_ring import RingReader

logger = logging.getLogger(__name__)

#: Records that are taken of one ring before the next one's turn.
TURN: Final = 500
#: Records that are read at a time, a part of a turn, so that reading them is a small step.
_BITE: Final = 20
#: What rings count that adds up.
SUMMED: Final = ("offered", "acknowledged", "dropped")


class _Source:
    """A ring that is read, and which of its records are not safe yet."""

    def __init__(self, ring: RingReader) -> None:
        self.ring = ring
        #: End of each record that was handed on and is not safe, to its start and the number before it.
        self.waiting: OrderedDict[int, tuple[int, int]] = OrderedDict()
        self.told = ring.place
        self.counted = _summed(ring)


class Intake:
    """Takes records out of all rings of a directory. One thread uses it.

    Args:
        directory: where preprocessors make their rings; made if it is missing.
        take: takes a record, the node that answered, and the ticket by which it is settled later; says
            whether it will be. What it will not settle is done with.

    Attributes:
        unreadable: files that are no rings, and damaged places of rings.

    Raises:
        TeeRingError: the directory is another user's.
    """

    def __init__(self, directory: Path, take: Callable[[RawRecord, str, Ticket], bool]) -> None:
        self.unreadable = 0
        self._directory = directory
        self._take = take
        self._sources: dict[str, _Source] = {}
        self._refused: set[str] = set()
        self._gone: Counter[str] = Counter()
        own_directory(directory)

    def look(self) -> None:
        """Find rings that are new, and remove those whose writer is gone and whose records are all safe."""
        found = {path.name: path for path in self._directory.glob(f"*{SUFFIX}")}
        self._refused &= found.keys()
        for name in sorted(found.keys() - self._sources.keys() - self._refused):
            self._open(found[name])
        for name, source in list(self._sources.items()):
            # Asked before its end is looked for: whoever is gone by then has written all.
            gone = source.ring.writer_is_gone()
            source.counted = _summed(source.ring)
            if gone and source.ring.at_end and not source.waiting:
                self.settle_all()
                self._gone.update(_summed(source.ring))
                del self._sources[name]
                source.ring.remove()
                logger.info("the ring of %s is read to its end", source.ring.node)

    def read(self) -> int:
        """Hand on what is in the rings, up to a turn's worth of each; return how many."""
        return sum(self._read(name, source) for name, source in self._sources.items())

    def settle(self, ticket: Ticket) -> None:
        """Take note that a record is safe."""
        name, end = ticket
        if name in self._sources:
            self._sources[name].waiting.pop(end, None)

    def settle_all(self) -> None:
        """Tell each ring up to where all is safe."""
        for source in self._sources.values():
            first = next(iter(source.waiting.values()), None)
            safe = source.ring.place if first is None else first
            if safe != source.told:
                source.told = safe
                source.ring.acknowledge(*safe)

    def counters(self) -> Mapping[str, int]:
        """Return what all preprocessors have counted, also those that are gone. Safe from any thread."""
        counted = Counter(self._gone)
        for source in list(self._sources.values()):
            counted.update(source.counted)
        return {name: counted[name] for name in SUMMED}

    def close(self) -> None:
        """Let the rings go; what is not safe stays in them. A directory without rings is removed."""
        self.settle_all()
        for source in self._sources.values():
            source.ring.close()
        self._sources.clear()
        with contextlib.suppress(OSError):  # there are rings
            self._directory.rmdir()

    def _open(self, path: Path) -> None:
        try:
            ring = RingReader(path)
        except TeeRingError as error:
            if path.exists():  # one that was empty is removed by its writer
                self._refused.add(path.name)
                self.unreadable += 1
                logger.error("left alone: %s", error)  # noqa: TRY400 - its text says it all
            return
        logger.info("the ring of %s holds %d records", ring.node, ring.counters()["held"])
        self._sources[path.name] = _Source(ring)

    def _read(self, name: str, source: _Source) -> int:
        count, damaged = 0, source.ring.damaged
        for _ in range(TURN // _BITE):
            found = source.ring.read(_BITE)
            count += len(found)
            for one in found:
                source.waiting[one.end] = (one.start, one.before)
                if not self._take(one.record, source.ring.node, (name, one.end)):
                    source.waiting.pop(one.end, None)
            if len(found) < _BITE:
                break  # not read on at once: what is damaged may be whole some time later
        self.unreadable += source.ring.damaged - damaged
        return count


def _summed(ring: RingReader) -> dict[str, int]:
    counters = ring.counters()
    return {name: counters[name] for name in SUMMED}
