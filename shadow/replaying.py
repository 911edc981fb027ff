"""Works on the parts of replays: in a thread of each shadow node, and in processes of the command's own."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

import psycopg

from actors.config import Settings, node_name
from actors.logs import start_log
from governance import replays
from governance.replays import Part
from governance.shadows import Shadow
from shadow.batch import Batch, Dead, read_batch
from shadow.errors import ShadowBrokenError, ShadowError, Stopped
from shadow.evaluating import Evaluating
from shadow.flow import Flow
from shadow.letters import DeadLetters
from shadow.process import PROGRAM, CandidateProcess, limits_of
from shadow.replay_sources import read_place
from shadow.store import Summarise
from shadow.storing import Database, Graveyard, Storing
from shadow.summary import fold, merge

logger = logging.getLogger(__name__)

#: Seconds between two signs of life, and between two looks for work.
BEAT_S: Final = 2.0
LOOK_S: Final = 1.0
#: Records of a batch: larger than of the live stream, where an answer's age counts.
BATCH: Final = 2000


class Uncounted:
    """A graveyard where no Kafka keeps dead letters: they are told in the log."""

    def bury(self, letters: Sequence[Dead], stop: threading.Event) -> bool:
        """Tell them."""
        del stop
        for letter in letters:
            logger.warning("a record cannot be used (%s): %s", letter.shadow, letter.reason)
        return True


class ReplayWorker:
    """Takes parts of replays one after another.

    Args:
        settings: the host's configuration.
        node_id: who works.
        stop: ends the work; a part that is under way is another's to take.
        replay: of which; None for any that every host can read.
        program: the command line of a candidate's process.
    """

    def __init__(
        self,
        settings: Settings,
        node_id: str,
        stop: threading.Event,
        *,
        replay: int | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self._settings = settings
        self._node_id = node_id
        self._stop = stop
        self._replay = replay
        self._database = Database(settings.direct_dsn, stop)  # to take parts and to say how far they are
        kafka = settings.kafka
        self._graveyard: Graveyard = (
            DeadLetters(kafka, settings.environment, node_id) if kafka else Uncounted()
        )
        limits = limits_of(settings)
        self._shadows: tuple[Shadow, ...] = ()
        # Parts follow each other, and their candidate's process lives on between them.
        self._evaluating = Evaluating(
            lambda shadow: CandidateProcess(shadow.overrides, settings, limits, program),
            lambda: self._shadows,
            stop,
        )

    def run(self, *, until_done: bool = False) -> None:
        """Work until told to stop; or until there is nothing left to take."""
        try:
            while not self._stop.is_set():
                part = self._claim()
                if part is not None:
                    self._work(part)
                elif until_done:
                    return
                else:
                    self._stop.wait(LOOK_S)
        except Stopped:
            return
        finally:
            self._evaluating.close()
            self._database.close()

    def _claim(self) -> Part | None:
        return self._database.run(
            lambda c: replays.claim(c, self._settings.environment, self._node_id, replay=self._replay)
        )

    def _work(self, part: Part) -> None:
        try:
            logger.info("replay %d, part %d: %s", part.replay, part.number, dict(part.place))
            reason = "" if self._evaluate(part) else None
        except (ShadowError, OSError, ValueError, psycopg.Error) as error:
            if isinstance(error, Stopped):
                raise
            logger.exception("replay %d, part %d failed", part.replay, part.number)
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            self._database.run(lambda c: replays.finish(c, part, self._node_id, reason))

    def _evaluate(self, part: Part) -> bool:
        """Evaluate and store a part; False if another node has taken it meanwhile."""
        self._shadows = (part.shadow,)
        database = Database(self._settings.direct_dsn, self._stop)
        storing = Storing(database, Summarise(fold, merge), [], self._graveyard, self._stop)
        flow: Flow[Batch] = Flow([("evaluate", self._evaluating), ("store", storing)])
        try:
            return self._pump(part, flow, storing)
        finally:
            flow.close()
            database.close()

    def _pump(self, part: Part, flow: Flow[Batch], storing: Storing) -> bool:
        read, beat_at = 0, 0.0
        source = read_place(part.source, part.place, self._settings, BATCH)
        first, last = part.since.timestamp(), part.until.timestamp()
        for messages in source:
            if self._stop.is_set():
                raise Stopped
            batch = read_batch(messages, self._settings.environment)
            batch.records = [one for one in batch.records if first <= one.record.at < last]
            read += len(batch.records)
            if batch.records or batch.dead:
                flow.put(batch)
            while flow.take() is not None:
                pass
            if time.monotonic() >= beat_at:
                beat_at = time.monotonic() + BEAT_S
                if not self._beat(part, read, storing.stored):
                    return False
            self._raise_broken()
        while flow.inside:
            flow.take(BEAT_S)
            self._beat(part, read, storing.stored)
        self._raise_broken()
        return self._beat(part, read, storing.stored)

    def _beat(self, part: Part, read: int, fresh: int) -> bool:
        return self._database.run(lambda c: replays.beat(c, part, self._node_id, read, fresh))

    def _raise_broken(self) -> None:
        shadow = self._shadows[0]
        reason = self._evaluating.broken().get((shadow.id, shadow.state_at))
        if reason is not None:
            raise ShadowBrokenError(reason)


def main() -> None:
    """Work on one replay until nothing of it is left: its number, and which process of the host's this is."""
    settings = Settings.model_validate_json(sys.stdin.read())
    replay, index = int(sys.argv[1]), int(sys.argv[2])
    start_log(settings, "replay", f"replay-{index}", level="WARNING")
    worker = ReplayWorker(settings, node_name("replay", index), threading.Event(), replay=replay)
    worker.run(until_done=True)


if __name__ == "__main__":
    main()
